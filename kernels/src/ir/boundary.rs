//! The edges of module calls: `enter` and `leave` pass their inputs through.
//!
//! They give a module's inputs and outputs values of their own, even in `Identity` or in a module that
//! is called twice, so that hooks can watch them. All values that cross an edge do so in one node, which
//! has all their gradients at hand when it is differentiated. A plan drops those that nobody watches. Every back end
//! knows how to compute what passes its inputs through, so that no kernel is asked for.
//!
//! Source: `torch.utils.hooks.BackwardHook`, whose `BackwardHookFunction` does the same.

use crate::ir::error::OpError;
use crate::ir::op::{Boundary, GradientAt, Mixing, Op};
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

            fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
                at.gradients.to_vec()
            }
        }
    };
}

boundary!(Enter, "enter");
boundary!(Leave, "leave");
