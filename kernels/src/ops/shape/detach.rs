//! `detach`: the value as it is, a constant for gradients.

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type};
use crate::ir::trace::Var;

/// Copies its input as it lies; no gradient goes through.
#[derive(Clone, Copy, Debug)]
struct Detach;

impl Op for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        match inputs {
            [x] => Ok(vec![x.clone()]),
            _ => Err(OpError(format!("detach: expected 1 input, got {}", inputs.len()))),
        }
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], _: &[Type]) -> Vec<Layout> {
        vec![inputs[0].layout.clone()]
    }

    fn is_constant(&self) -> bool {
        true
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let element_bytes = inputs[0].ty.dtype.size_bytes();
            CopyParts::one(Region::new((&inputs[0], 0), (&outputs[0], 0)), element_bytes)
        })
        .give::<Cuda>(|inputs, outputs| Box::new(on_device::copy_all(&inputs[0], 0, &outputs[0])));
    }
}

impl Var {
    /// Gives the same numbers as a constant: what depends on them has no gradient because of them.
    ///
    /// Source: `torch.Tensor.detach`.
    #[must_use]
    pub fn detach(&self) -> Var {
        self.trace().apply(Detach, &[self])
    }
}
