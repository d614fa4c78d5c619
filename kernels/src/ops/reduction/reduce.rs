//! Sums, means and maxima over axes.
//!
//! The reduced numbers of an output are counted in the order of their axes, row-major, and joined in the
//! [order of sums](crate::cpu::sum), maxima too. That order holds for every layout and instruction set, so the bits
//! do too.

use core::fmt::Debug;

mod kernel;
mod on_device;
mod settings;

use kernel::{Add, Larger, ReduceKernel};
use settings::{Kind, Reduce};

use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type, no_such_axis};
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::computes;

/// What becomes of the losses of a batch's items.
///
/// Source: the argument `reduction` of torch's losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reduction {
    /// They stay as they are: `'none'`.
    None,
    /// They are averaged: `'mean'`.
    #[default]
    Mean,
    /// They are added up: `'sum'`.
    Sum,
}

impl Reduction {
    /// Gives torch's name.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::None => "none",
            Reduction::Mean => "mean",
            Reduction::Sum => "sum",
        }
    }

    /// Records the reduction of `losses`.
    pub(crate) fn apply(self, losses: Var) -> Var {
        match self {
            Reduction::None => losses,
            Reduction::Mean => losses.mean(&[], false),
            Reduction::Sum => losses.sum(&[], false),
        }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Mean => "mean",
            Kind::Amax => "amax",
        }
    }

    fn attributes(&self) -> String {
        let keepdim = if self.dropped.is_empty() { " keepdim" } else { "" };
        format!("dim={:?}{keepdim}", self.axes)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!(
                "{}: expected 1 input, got {}",
                self.name(),
                inputs.len()
            )));
        };
        computes(self.name(), x)?;
        if let Some(axis) = self.axes.iter().find(|&&axis| axis >= x.shape.rank()) {
            return Err(no_such_axis(*axis as isize, &x.shape));
        }
        let empty = self.axes.iter().find(|&&axis| x.shape[axis] == 0);
        if let (Kind::Amax, Some(axis)) = (self.kind, empty) {
            return Err(OpError(format!(
                "amax(): Expected reduction dim {axis} to have non-zero size."
            )));
        }
        let kept = self.kept(&x.shape);
        let shape: Shape = (0..kept.rank())
            .filter(|axis| !self.dropped.contains(axis))
            .map(|axis| kept[axis])
            .collect();
        Ok(vec![Type { dtype: x.dtype, shape }])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let order = inputs[0].layout.order(&inputs[0].ty.shape);
        let left = |axis: usize| axis - self.dropped.iter().filter(|&&gone| gone < axis).count();
        let order: Vec<_> =
            order.into_iter().filter(|axis| !self.dropped.contains(axis)).map(left).collect();
        vec![outputs[0].shape.ordered(&order)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let (x, y) = (&inputs[0], &outputs[0]);
            match (y.ty.dtype, self.kind) {
                (Dtype::F64, Kind::Amax) => Box::new(ReduceKernel::<f64, Larger>::new(self, x, y)),
                (Dtype::F64, _) => Box::new(ReduceKernel::<f64, Add>::new(self, x, y)),
                (_, Kind::Amax) => Box::new(ReduceKernel::<f32, Larger>::new(self, x, y)),
                _ => Box::new(ReduceKernel::<f32, Add>::new(self, x, y)),
            }
        })
        .give::<Cuda>(|inputs, outputs| Box::new(on_device::code(self, &inputs[0], &outputs[0])));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, y) = (&at.inputs[0], &at.outputs[0]);
        let Some(dy) = &at.gradients[0] else {
            return vec![None];
        };
        let kept = self.kept(x.shape());
        let n = x.shape().numel() / kept.numel().max(1);
        let dy = dy.reshape(kept.clone());
        let dx = match self.kind {
            Kind::Sum => dy.expand(x.shape().clone()),
            Kind::Mean => (dy / n as f64).expand(x.shape().clone()),
            Kind::Amax => {
                // As in torch, equal maxima share the gradient equally.
                let is_largest = x.eq(&y.reshape(kept));
                let axes: Vec<_> = self.axes.iter().map(|&axis| axis as isize).collect();
                let count = is_largest.sum(&axes, true);
                is_largest * (dy / count)
            }
        };
        vec![Some(dx)]
    }
}

/// Resolves a list of axes; an empty one means all of them.
///
/// # Errors
///
/// If there is no such axis, or one comes twice.
fn resolve(axes: &[isize], shape: &Shape) -> Result<Vec<usize>, OpError> {
    if axes.is_empty() {
        return Ok((0..shape.rank()).collect());
    }
    let mut resolved = Vec::with_capacity(axes.len());
    for &axis in axes {
        let axis = shape.axis(axis).ok_or_else(|| no_such_axis(axis, shape))?;
        if resolved.contains(&axis) {
            return Err(OpError(format!("dim {axis} appears multiple times in the list of dims")));
        }
        resolved.push(axis);
    }
    resolved.sort_unstable();
    Ok(resolved)
}

impl Var {
    /// Adds up along `axes`, all of them if none are given; `keepdim` leaves them with size 1.
    ///
    /// Source: `torch.sum`.
    #[must_use]
    pub fn sum(&self, axes: &[isize], keepdim: bool) -> Var {
        self.reduce(Kind::Sum, axes, keepdim)
    }

    /// Averages along `axes`, all of them if none are given; `keepdim` leaves them with size 1. The mean
    /// of no numbers is NaN.
    ///
    /// Source: `torch.mean`.
    #[must_use]
    pub fn mean(&self, axes: &[isize], keepdim: bool) -> Var {
        self.reduce(Kind::Mean, axes, keepdim)
    }

    /// Gives the largest number along `axes`, all of them if none are given; NaN if one is NaN.
    /// `keepdim` leaves the axes with size 1. Equal maxima share the gradient equally.
    ///
    /// Source: `torch.amax`.
    #[must_use]
    pub fn amax(&self, axes: &[isize], keepdim: bool) -> Var {
        self.reduce(Kind::Amax, axes, keepdim)
    }

    /// Adds up along those axes along which `shape` would have to be broadcast to this value's shape:
    /// the gradient of broadcasting.
    ///
    /// Source: `torch.Tensor.sum_to_size`.
    #[must_use]
    pub fn sum_to(&self, shape: &Shape) -> Var {
        if self.shape() == shape {
            return self.clone();
        }
        if shape.broadcast(self.shape()).as_ref() != Some(self.shape()) {
            return self
                .trace()
                .fail(format!("size {shape} is not expandable to size {}", self.shape()));
        }
        let new = self.shape().rank() - shape.rank();
        let axes = (0..self.shape().rank())
            .filter(|&axis| axis < new || shape[axis - new] != self.shape()[axis])
            .collect();
        let reduce = Reduce { kind: Kind::Sum, axes, dropped: (0..new).collect() };
        self.trace().apply(reduce, &[self])
    }

    fn reduce(&self, kind: Kind, axes: &[isize], keepdim: bool) -> Var {
        match resolve(axes, self.shape()) {
            Ok(axes) => {
                let dropped = if keepdim { Vec::new() } else { axes.clone() };
                self.trace().apply(Reduce { kind, axes, dropped }, &[self])
            }
            Err(error) => self.trace().fail(error.0),
        }
    }
}
