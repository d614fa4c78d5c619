//! The edges of module calls: `enter` and `leave` pass their inputs through.
//!
//! They give a module's inputs and outputs values of their own, even in `Identity` or in a module that
//! is called twice, so that hooks can watch them. All values that cross an edge do so in one node, which
//! has all their gradients at hand when it is differentiated. A plan drops those that nobody watches.
//!
//! Source: `torch.utils.hooks.BackwardHook`, whose `BackwardHookFunction` does the same.

use crate::cpu::kernel::Cpu;
use crate::cpu::tile::Tile;
use crate::ir::dtype::bf16;
use crate::ir::op::{Ask, Boundary, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type};
use crate::ir::trace::Var;

/// The values enter a module's `forward`.
#[derive(Debug)]
pub(crate) struct Enter;

/// The values leave a module's `forward`.
#[derive(Debug)]
pub(crate) struct Leave;

macro_rules! boundary {
    ($op:ident, $name:literal) => {
        impl Op for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
                Ok(inputs.to_vec())
            }

            fn mixing(&self) -> Mixing {
                Mixing::Untouched
            }

            fn takes_any_layout(&self, _: usize) -> bool {
                true
            }

            fn layouts(&self, inputs: &[Operand], _: &[Type]) -> Vec<Layout> {
                inputs.iter().map(|input| input.layout.clone()).collect()
            }

            fn boundary(&self) -> Option<Boundary> {
                Some(Boundary::$op)
            }

            fn kernels(&self, ask: &mut Ask<'_>) {
                ask.give::<Cpu>(|_, outputs| {
                    let sizes = outputs.iter().map(|output| output.ty.dtype.size_bytes());
                    let sizes: Vec<_> = sizes.collect();
                    Box::new(move |tile: &mut Tile<'_>| copy(tile, &sizes))
                });
            }

            fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
                at.gradients.to_vec()
            }
        }
    };
}

boundary!(Enter, "enter");
boundary!(Leave, "leave");

/// Copies each input to its output; `sizes` are those of their elements, in bytes.
fn copy(tile: &mut Tile<'_>, sizes: &[usize]) {
    for model in 0..tile.models() {
        let (inputs, mut outputs, _) = tile.model(model).split();
        for (number, size) in sizes.iter().enumerate() {
            match size {
                8 => outputs.take::<i64>().copy_from_slice(inputs.get(number)),
                4 => outputs.take::<f32>().copy_from_slice(inputs.get(number)),
                2 => outputs.take::<bf16>().copy_from_slice(inputs.get(number)),
                _ => outputs.take::<u8>().copy_from_slice(inputs.get(number)),
            }
        }
    }
}
