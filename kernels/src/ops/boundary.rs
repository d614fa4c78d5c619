//! The edges of module calls: `enter` and `leave` pass their input through.
//!
//! They give a module's inputs and outputs values of their own, even in `Identity` or in a module that
//! is called twice, so that hooks can watch them. A plan drops those that nobody watches.

use crate::cpu::tile::Tile;
use crate::op::{Boundary, GradientAt, Kernel, Op, OpError};
use crate::program::trace::Var;
use crate::shape::{Layout, Operand, Type};

/// The value enters a module's `forward`.
#[derive(Debug)]
pub(crate) struct Enter;

/// The value leaves a module's `forward`.
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

            fn takes_any_layout(&self, _: usize) -> bool {
                true
            }

            fn layouts(&self, inputs: &[Operand], _: &[Type]) -> Vec<Layout> {
                inputs.iter().map(|input| input.layout.clone()).collect()
            }

            fn boundary(&self) -> Option<Boundary> {
                Some(Boundary::$op)
            }

            fn kernel(&self, _: &[Operand], outputs: &[Operand]) -> Box<dyn Kernel> {
                let element_bytes = outputs[0].ty.dtype.size_bytes();
                Box::new(move |tile: &mut Tile<'_>| copy(tile, element_bytes))
            }

            fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
                at.gradients.to_vec()
            }
        }
    };
}

boundary!(Enter, "enter");
boundary!(Leave, "leave");

fn copy(tile: &mut Tile<'_>, element_bytes: usize) {
    for model in 0..tile.models() {
        let (inputs, mut outputs, _) = tile.model(model).split();
        match element_bytes {
            8 => outputs.take::<i64>().copy_from_slice(inputs.get(0)),
            4 => outputs.take::<f32>().copy_from_slice(inputs.get(0)),
            _ => outputs.take::<u8>().copy_from_slice(inputs.get(0)),
        }
    }
}
