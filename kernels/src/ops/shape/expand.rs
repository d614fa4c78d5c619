//! Broadcasting to a given shape: `expand`.

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::Var;

/// Repeats a value along new axes and along those of size 1.
#[derive(Clone, Debug)]
struct Expand {
    shape: Shape,
}

impl Op for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn attributes(&self) -> String {
        format!("size={}", self.shape)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("expand: expected 1 input, got {}", inputs.len())));
        };
        if x.shape.broadcast(&self.shape).as_ref() != Some(&self.shape) {
            return Err(OpError(format!(
                "The expanded size {} does not fit the existing size {}",
                self.shape, x.shape
            )));
        }
        Ok(vec![Type { dtype: x.dtype, shape: self.shape.clone() }])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let element_bytes = inputs[0].ty.dtype.size_bytes();
            CopyParts::one(Region::new((&inputs[0], 0), (&outputs[0], 0)), element_bytes)
        })
        .give::<Cuda>(|inputs, outputs| Box::new(on_device::copy_all(&inputs[0], 0, &outputs[0])));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| dy.sum_to(at.inputs[0].shape()))]
    }
}

impl Var {
    /// Repeats the value along new axes and along those of size 1, so that it gets shape `shape`.
    ///
    /// Source: `torch.Tensor.expand`, without -1 for sizes that stay.
    #[must_use]
    pub fn expand(&self, shape: impl Into<Shape>) -> Var {
        let shape = shape.into();
        if *self.shape() == shape {
            return self.clone();
        }
        self.trace().apply(Expand { shape }, &[self])
    }
}
