//! Other orders of the axes: `permute`, `transpose`. The layout is permuted too, so that the elements
//! stay where they are.

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type, no_such_axis};
use crate::ir::trace::Var;

/// Axis `i` of the result is axis `axes[i]` of the input.
#[derive(Clone, Debug)]
struct Permute {
    axes: Vec<usize>,
}

impl Permute {
    /// Views the input with its axes in their new order.
    fn view(&self, x: &Operand) -> Operand {
        let shape = self.axes.iter().map(|&axis| x.ty.shape[axis]).collect();
        let strides: Vec<_> = self.axes.iter().map(|&axis| x.layout[axis]).collect();
        Operand { ty: Type { dtype: x.ty.dtype, shape }, layout: Layout::from(strides) }
    }
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn attributes(&self) -> String {
        format!("dims={:?}", self.axes)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("permute: expected 1 input, got {}", inputs.len())));
        };
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted != (0..x.shape.rank()).collect::<Vec<_>>() {
            return Err(OpError(format!(
                "permute(sparse_coo): number of dimensions in the tensor input does not match the \
                 length of the desired ordering of dimensions i.e. input.dim() = {} is not equal to \
                 len(dims) = {}",
                x.shape.rank(),
                self.axes.len()
            )));
        }
        let shape = self.axes.iter().map(|&axis| x.shape[axis]).collect();
        Ok(vec![Type { dtype: x.dtype, shape }])
    }

    fn copies_as_is(&self) -> bool {
        true
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], _: &[Type]) -> Vec<Layout> {
        vec![self.view(&inputs[0]).layout]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let part = Region::new((&self.view(&inputs[0]), 0), (&outputs[0], 0));
            CopyParts::one(part, inputs[0].ty.dtype.size_bytes())
        })
        .give::<Cuda>(|inputs, outputs| {
            Box::new(on_device::copy_all(&self.view(&inputs[0]), 0, &outputs[0]))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let mut axes = vec![0; self.axes.len()];
        for (new, &old) in self.axes.iter().enumerate() {
            axes[old] = new;
        }
        vec![at.gradients[0].as_ref().map(|dy| dy.trace().apply(Permute { axes }, &[dy]))]
    }
}

impl Var {
    /// Puts the axes into another order: axis `i` of the result is axis `axes[i]`.
    ///
    /// Source: `torch.permute`.
    #[must_use]
    pub fn permute(&self, axes: &[isize]) -> Var {
        let resolved: Result<Vec<_>, _> =
            axes.iter().map(|&axis| self.shape().axis(axis).ok_or(axis)).collect();
        match resolved {
            Ok(axes) => self.trace().apply(Permute { axes }, &[self]),
            Err(axis) => self.trace().fail(no_such_axis(axis, self.shape()).0),
        }
    }

    /// Swaps two axes.
    ///
    /// Source: `torch.transpose`.
    #[must_use]
    pub fn transpose(&self, a: isize, b: isize) -> Var {
        match (self.shape().axis(a), self.shape().axis(b)) {
            (Some(a), Some(b)) => {
                let mut axes: Vec<_> = (0..self.shape().rank()).collect();
                axes.swap(a, b);
                self.trace().apply(Permute { axes }, &[self])
            }
            (None, _) => self.trace().fail(no_such_axis(a, self.shape()).0),
            _ => self.trace().fail(no_such_axis(b, self.shape()).0),
        }
    }

    /// Transposes a matrix; a vector or a number stays.
    ///
    /// Source: `torch.t`.
    #[must_use]
    pub fn t(&self) -> Var {
        match self.shape().rank() {
            0 | 1 => self.clone(),
            2 => self.transpose(0, 1),
            rank => self
                .trace()
                .fail(format!("t() expects a tensor with <= 2 dimensions, but self is {rank}D")),
        }
    }

    /// Transposes matrices: swaps the last two axes.
    ///
    /// Source: `torch.Tensor.mT`.
    #[must_use]
    pub fn mt(&self) -> Var {
        match self.shape().rank() {
            rank @ 0..2 => self.trace().fail(format!(
                "tensor.mT is only supported on matrices or batches of matrices. Got {rank}-D tensor."
            )),
            _ => self.transpose(-2, -1),
        }
    }
}
