//! Even random numbers: `rand`.
//!
//! Element number `i`, counted row-major, is the upper 24 bits of word `i` of the draw, in units of 2⁻²⁴: so it
//! depends on the model and the step, not on neighbors.
//!
//! Source: `torch.rand`; the random numbers are others.

use crate::cpu::kernel::Cpu;
use crate::cpu::random::{Draw, GROUP};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::{Trace, Var};
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::computes;

/// There is no input.
#[derive(Clone, Debug)]
struct Rand {
    ty: Type,
}

impl Op for Rand {
    fn name(&self) -> &'static str {
        "rand"
    }

    fn attributes(&self) -> String {
        self.ty.to_string()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        computes("rand", &self.ty)?;
        match inputs {
            [] => Ok(vec![self.ty.clone()]),
            _ => Err(OpError(format!("rand: expected no inputs, got {}", inputs.len()))),
        }
    }

    fn is_random(&self) -> bool {
        true
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| {
            fn of<T: Number>(tile: &mut Tile<'_>) {
                for model in 0..tile.models() {
                    let model = tile.model(model);
                    let (key, draw) = model.key();
                    let (_, mut outputs, _) = model.split();
                    let draw = Draw::new(key, draw);
                    for (group, part) in outputs.take::<T>().chunks_mut(GROUP).enumerate() {
                        for (element, word) in part.iter_mut().zip(draw.words(group as u32)) {
                            *element = T::from_f64(f64::from(word >> 8) / f64::from(1_u32 << 24));
                        }
                    }
                }
            }
            match self.ty.dtype {
                Dtype::F64 => Box::new(of::<f64>),
                _ => Box::new(of::<f32>),
            }
        });
    }
}

impl Trace {
    /// Draws numbers evenly from `[0, 1)`.
    ///
    /// Source: `torch.rand`.
    pub fn rand(&self, dtype: Dtype, shape: impl Into<Shape>) -> Var {
        let drawn = if dtype.is_half() { Dtype::F32 } else { dtype };
        self.apply(Rand { ty: Type::new(drawn, shape) }, &[]).to(dtype)
    }
}
