//! Another element type for the same numbers: `to`; and counting in whole numbers: `increment`.

use core::marker::PhantomData;

use crate::cpu::convert::Convert;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::Simd;
use crate::cpu::simd::halves::{Stored, narrow, widen};
use crate::cpu::tile::Tile;
use crate::cpu::vector_kernel::{VectorKernel, vector_kernel};
use crate::device::code::{Cuda, Definition, DeviceCode};
use crate::ir::dtype::{Dtype, bf16, f16};
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::layout_like;

/// Converts to another element type.
#[derive(Clone, Copy, Debug)]
struct Cast {
    to: Dtype,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "to"
    }

    fn attributes(&self) -> String {
        format!("dtype={}", self.to)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("to: expected 1 input, got {}", inputs.len())));
        };
        Ok(vec![Type { dtype: self.to, shape: x.shape.clone() }])
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn converts_to(&self) -> Option<Dtype> {
        Some(self.to)
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(inputs, &outputs[0].shape)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            fn from<A: Convert>(to: Dtype) -> Box<dyn Kernel> {
                match (A::DTYPE, to) {
                    // What halves are computed in: vectors of them at once.
                    (Dtype::F32, Dtype::F16) => return vector_kernel(Narrow::<f16>(PhantomData)),
                    (Dtype::F32, Dtype::BF16) => return vector_kernel(Narrow::<bf16>(PhantomData)),
                    (Dtype::F16, Dtype::F32) => return vector_kernel(Widen::<f16>(PhantomData)),
                    (Dtype::BF16, Dtype::F32) => return vector_kernel(Widen::<bf16>(PhantomData)),
                    _ => {}
                }
                match to {
                    Dtype::F64 => Box::new(CastKernel::<A, f64>(PhantomData)),
                    Dtype::I64 => Box::new(CastKernel::<A, i64>(PhantomData)),
                    Dtype::Bool => Box::new(CastKernel::<A, u8>(PhantomData)),
                    Dtype::F16 => Box::new(CastKernel::<A, f16>(PhantomData)),
                    Dtype::BF16 => Box::new(CastKernel::<A, bf16>(PhantomData)),
                    Dtype::F32 => Box::new(CastKernel::<A, f32>(PhantomData)),
                }
            }
            match inputs[0].ty.dtype {
                Dtype::F64 => from::<f64>(self.to),
                Dtype::I64 => from::<i64>(self.to),
                Dtype::Bool => from::<u8>(self.to),
                Dtype::F16 => from::<f16>(self.to),
                Dtype::BF16 => from::<bf16>(self.to),
                Dtype::F32 => from::<f32>(self.to),
            }
        })
        .give::<Cuda>(|inputs, outputs| {
            let (from, to, numel) = (inputs[0].ty.dtype, self.to, outputs[0].ty.shape.numel());
            let call = format!(
                "for (int i = t; i < {numel}; i += T) {{1}}[i] = to_{}(from_{}({{0}}[i]));",
                name_of(to),
                name_of(from)
            );
            let definitions = vec![Definition::file("cast", include_str!("cast.cu"))];
            Box::new(DeviceCode { definitions, call, scratch_bytes: 0, width: numel })
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let from = at.inputs[0].dtype();
        vec![at.gradients[0].as_ref().filter(|_| from.is_float()).map(|dy| dy.to(from))]
    }
}

/// Returns how the functions of the device's conversions name a type.
fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f64",
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::BF16 => "bf16",
        Dtype::I64 => "i64",
        Dtype::Bool => "bool",
    }
}

/// Widens halves to singles.
struct Widen<H>(PhantomData<H>);

impl<H: Stored<f32>> VectorKernel for Widen<H> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (inputs, mut outputs, _) = tile.operands();
        let (x, mut y) = (inputs.get::<H>(0), outputs.take::<f32>());
        for model in 0..models {
            widen::<H, S>(x.at(model), y.at(model));
        }
    }
}

/// Rounds singles to halves.
struct Narrow<H>(PhantomData<H>);

impl<H: Stored<f32>> VectorKernel for Narrow<H> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (inputs, mut outputs, _) = tile.operands();
        let (x, mut y) = (inputs.get::<f32>(0), outputs.take::<H>());
        for model in 0..models {
            narrow::<H, S>(x.at(model), y.at(model));
        }
    }
}

struct CastKernel<A, B>(PhantomData<(A, B)>);

impl<A: Convert, B: Convert> Kernel for CastKernel<A, B> {
    fn run(&self, tile: &mut Tile<'_>) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (x, y) = (inputs.get::<A>(0), outputs.take::<B>());
            y.iter_mut().zip(x).for_each(|(y, x)| *y = B::from_f64(x.to_f64()));
        }
    }
}

/// `x + 1` in whole numbers.
#[derive(Clone, Copy, Debug)]
struct Increment;

impl Op for Increment {
    fn name(&self) -> &'static str {
        "increment"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        match inputs {
            [x] if x.dtype == Dtype::I64 => Ok(vec![x.clone()]),
            _ => Err(OpError("increment: expected one input of i64".into())),
        }
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| {
            Box::new(|tile: &mut Tile<'_>| {
                for model in 0..tile.models() {
                    let (inputs, mut outputs, _) = tile.model(model).split();
                    let (x, y) = (inputs.get::<i64>(0), outputs.take::<i64>());
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = x.wrapping_add(1));
                }
            })
        })
        .give::<Cuda>(|_, outputs| {
            let width = outputs[0].ty.shape.numel();
            let call = format!(
                "for (int i = t; i < {width}; i += T) {{1}}[i] = (i64)((u64){{0}}[i] + 1);"
            );
            Box::new(DeviceCode { call, width, ..DeviceCode::default() })
        });
    }
}

impl Var {
    /// Converts the numbers to `dtype`: to whole numbers by dropping the fraction, to truth by asking
    /// whether they are 0, to halves by rounding to the nearest, ties to even, of the number in single precision. By way of double precision: whole numbers above 2⁵³ are rounded.
    ///
    /// Source: `torch.Tensor.to`.
    #[must_use]
    pub fn to(&self, dtype: Dtype) -> Var {
        if self.dtype() == dtype {
            self.clone()
        } else {
            self.trace().apply(Cast { to: dtype }, &[self])
        }
    }

    /// Adds 1 to whole numbers of i64.
    ///
    /// Source: `torch.Tensor.add_(1)`, without the writing.
    #[must_use]
    pub fn increment(&self) -> Var {
        self.trace().apply(Increment, &[self])
    }
}
