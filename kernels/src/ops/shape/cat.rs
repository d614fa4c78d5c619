//! Values side by side along an axis: `cat`.

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type, no_such_axis};
use crate::ir::trace::{Trace, Var};
use crate::ops::elementwise::pointwise::same_dtype;

/// Joins its inputs along an axis.
#[derive(Clone, Debug)]
struct Cat {
    axis: usize,
}

impl Op for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn attributes(&self) -> String {
        format!("dim={}", self.axis)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Arithmetic
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let Some(first) = inputs.first() else {
            return Err(OpError("torch.cat(): expected a non-empty list of Tensors".to_owned()));
        };
        let mut sizes = first.shape.to_vec();
        if self.axis >= sizes.len() {
            return Err(no_such_axis(self.axis as isize, &first.shape));
        }
        for (number, other) in inputs.iter().enumerate().skip(1) {
            same_dtype("cat", first, other)?;
            if other.shape.rank() != sizes.len() {
                return Err(OpError(format!(
                    "Tensors must have same number of dimensions: got {} and {}",
                    sizes.len(),
                    other.shape.rank()
                )));
            }
            for (axis, (&n, &expected)) in other.shape.iter().zip(first.shape.iter()).enumerate() {
                if axis != self.axis && n != expected {
                    return Err(OpError(format!(
                        "Sizes of tensors must match except in dimension {}. Expected size \
                         {expected} but got size {n} for tensor number {number} in the list.",
                        self.axis
                    )));
                }
            }
            sizes[self.axis] += other.shape[self.axis];
        }
        Ok(vec![Type::new(first.dtype, sizes)])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.ordered(&inputs[0].layout.order(&inputs[0].ty.shape))]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let stride = outputs[0].layout[self.axis];
            let mut start = 0;
            let mut parts = Vec::with_capacity(inputs.len());
            for input in inputs {
                let to = Operand { ty: input.ty.clone(), layout: outputs[0].layout.clone() };
                parts.push(Region::new((input, 0), (&to, start * stride)));
                start += input.ty.shape[self.axis];
            }
            let element_bytes = outputs[0].ty.dtype.size_bytes();
            CopyParts { parts, element_bytes, has_gaps: false }.kernel()
        })
        .give::<Cuda>(|inputs, outputs| {
            let (y, stride) = (&outputs[0], outputs[0].layout[self.axis]);
            let mut start = 0;
            let copy = |(number, input): (usize, &Operand)| {
                let to = Operand { ty: input.ty.clone(), layout: y.layout.clone() };
                let copy = on_device::copy((number, input, 0), (inputs.len(), &to, start * stride));
                start += input.ty.shape[self.axis];
                copy
            };
            let loops: Vec<_> = inputs.iter().enumerate().map(copy).collect();
            Box::new(on_device::code(&loops, y.ty.shape.numel()))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(dy) = &at.gradients[0] else {
            return vec![None; at.inputs.len()];
        };
        let mut start = 0;
        let part = |(input, &needed): (&Var, &bool)| {
            let end = start + input.shape()[self.axis];
            let part = needed.then(|| dy.slice(self.axis as isize, start..end));
            start = end;
            part
        };
        at.inputs.iter().zip(at.needs).map(part).collect()
    }
}

impl Var {
    /// Joins `values` along `axis`; their other sizes are equal. Of no values the result stands for nothing, and the
    /// recording that it enters keeps the error.
    ///
    /// Source: `torch.cat`.
    #[must_use]
    pub fn cat(values: &[&Var], axis: isize) -> Var {
        let Some(first) = values.first() else {
            return Trace::new().fail("torch.cat(): expected a non-empty list of Tensors");
        };
        match first.shape().axis(axis) {
            Some(axis) => first.trace().apply(Cat { axis }, values),
            None => first.trace().fail(no_such_axis(axis, first.shape()).0),
        }
    }
}
