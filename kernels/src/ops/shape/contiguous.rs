//! `contiguous`: a copy that lies row-major. The plan puts it before ops that need that.

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;

/// Copies its input, of any layout and dtype, into the row-major layout.
///
/// Source: `torch.Tensor.contiguous`.
#[derive(Clone, Copy, Debug)]
pub struct Contiguous;

impl Op for Contiguous {
    fn name(&self) -> &'static str {
        "contiguous"
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        match inputs {
            [x] => Ok(vec![x.clone()]),
            _ => Err(OpError(format!("contiguous: expected 1 input, got {}", inputs.len()))),
        }
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
        at.gradients.to_vec()
    }
}
