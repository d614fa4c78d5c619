//! A part of an axis: `slice`.

use core::ops::Range;

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type, no_such_axis};
use crate::ir::trace::Var;

/// Gives indices `start..end` of an axis.
#[derive(Clone, Debug)]
struct Slice {
    axis: usize,
    start: usize,
    end: usize,
}

/// Returns `shape` with another size along `axis`.
pub(super) fn with_size(shape: &Shape, axis: usize, size: usize) -> Shape {
    shape.iter().enumerate().map(|(i, &n)| if i == axis { size } else { n }).collect()
}

/// Views as much of `whole` as `shape` asks for.
pub(super) fn window(whole: &Operand, shape: &Shape) -> Operand {
    let ty = Type { dtype: whole.ty.dtype, shape: shape.clone() };
    Operand { ty, layout: whole.layout.clone() }
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn attributes(&self) -> String {
        format!("dim={} {}..{}", self.axis, self.start, self.end)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("slice: expected 1 input, got {}", inputs.len())));
        };
        let size = x.shape.get(self.axis).copied();
        let size = size.ok_or_else(|| no_such_axis(self.axis as isize, &x.shape))?;
        if self.start > self.end || self.end > size {
            return Err(OpError(format!(
                "start ({}) + length ({}) exceeds dimension size ({size}).",
                self.start,
                self.end.saturating_sub(self.start)
            )));
        }
        let shape = with_size(&x.shape, self.axis, self.end - self.start);
        Ok(vec![Type { dtype: x.dtype, shape }])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.ordered(&inputs[0].layout.order(&inputs[0].ty.shape))]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let from = window(&inputs[0], &outputs[0].ty.shape);
            let offset = self.start * inputs[0].layout[self.axis];
            let part = Region::new((&from, offset), (&outputs[0], 0));
            CopyParts::one(part, inputs[0].ty.dtype.size_bytes())
        })
        .give::<Cuda>(|inputs, outputs| {
            let from = window(&inputs[0], &outputs[0].ty.shape);
            let offset = self.start * inputs[0].layout[self.axis];
            Box::new(on_device::copy_all(&from, offset, &outputs[0]))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let size = at.inputs[0].shape()[self.axis];
        let op = SliceGradient { slice: self.clone(), size };
        vec![at.gradients[0].as_ref().map(|dy| dy.trace().apply(op, &[dy]))]
    }
}

/// The gradient of a [`Slice`]: that of its output, and zeros around it.
#[derive(Clone, Debug)]
struct SliceGradient {
    slice: Slice,
    /// Size of the sliced axis.
    size: usize,
}

impl Op for SliceGradient {
    fn name(&self) -> &'static str {
        "slice_gradient"
    }

    fn attributes(&self) -> String {
        format!("{} of {}", self.slice.attributes(), self.size)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [dy] = inputs else {
            return Err(OpError(format!("slice_gradient: expected 1 input, got {}", inputs.len())));
        };
        let shape = with_size(&dy.shape, self.slice.axis, self.size);
        Ok(vec![Type { dtype: dy.dtype, shape }])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.ordered(&inputs[0].layout.order(&inputs[0].ty.shape))]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let to = window(&outputs[0], &inputs[0].ty.shape);
            let offset = self.slice.start * outputs[0].layout[self.slice.axis];
            let parts = vec![Region::new((&inputs[0], 0), (&to, offset))];
            let element_bytes = inputs[0].ty.dtype.size_bytes();
            CopyParts { parts, element_bytes, has_gaps: true }.kernel()
        })
        .give::<Cuda>(|inputs, outputs| {
            let to = window(&outputs[0], &inputs[0].ty.shape);
            let offset = self.slice.start * outputs[0].layout[self.slice.axis];
            let numel = outputs[0].ty.shape.numel();
            let zeros = format!("for (int i = t; i < {numel}; i += T) {{1}}[i] = 0; sync<T>();");
            Box::new(on_device::code(
                &[zeros, on_device::copy((0, &inputs[0], 0), (1, &to, offset))],
                numel,
            ))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|g| g.trace().apply(self.slice.clone(), &[g]))]
    }
}

impl Var {
    /// Gives the part of the value whose index along `axis` is in `range`.
    ///
    /// Source: `torch.narrow`.
    #[must_use]
    pub fn slice(&self, axis: isize, range: Range<usize>) -> Var {
        match self.shape().axis(axis) {
            Some(axis) => {
                let slice = Slice { axis, start: range.start, end: range.end };
                self.trace().apply(slice, &[self])
            }
            None => self.trace().fail(no_such_axis(axis, self.shape()).0),
        }
    }
}
