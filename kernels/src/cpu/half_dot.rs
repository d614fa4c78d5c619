//! Products with few rows by a weight that lies in halves: dot products that widen its numbers as they read them.
//!
//! Each sum, bias added, is rounded to that half before an activation. The bits are those of the same product in singles
//! whose result is rounded.

use core::marker::PhantomData;

use super::dot::{Dot, DotsOfTile, Sizes, for_length};
use super::gemm::{Product, WORTH_SPLITTING};
use super::simd::Simd;
use super::simd::halves::Stored;
use super::tile::{Tile, VectorKernel, run_vectors};
use crate::cpu::kernel::Kernel;
use crate::ir::dtype::{Dtype, bf16, f16};

/// Makes the kernel of a product whose inputs are `A` in singles, `B` in halves and perhaps a bias in halves, made of dot
/// products of rows.
///
/// # Panics
///
/// If the product's elements cannot be counted.
pub fn half_dot_kernel(half: Dtype, product: &Product, has_bias: bool) -> Box<dyn Kernel> {
    assert!(product.is_countable(), "the elements of a product can be addressed");
    let sizes = product.as_dots();
    match half {
        Dtype::F16 => Box::new(HalfDots::<f16> { sizes, has_bias, of: PhantomData }),
        _ => Box::new(HalfDots::<bf16> { sizes, has_bias, of: PhantomData }),
    }
}

/// The dot products of each model.
struct HalfDots<H> {
    sizes: Sizes,
    has_bias: bool,
    of: PhantomData<H>,
}

impl<H: Stored<f32>> Kernel for HalfDots<H> {
    fn run(&self, tile: &mut Tile<'_>) {
        let Sizes { rows, columns, k, .. } = self.sizes;
        if !tile.split() || rows * columns * k < WORTH_SPLITTING {
            run_vectors(self, tile);
            return;
        }
        let models = tile.models();
        let (inputs, mut outputs, _) = tile.operands();
        let (a, b) = (inputs.get::<f32>(0), inputs.get::<H>(1));
        let bias = self.has_bias.then(|| inputs.get::<H>(2));
        let mut c = outputs.take::<f32>();
        for model in 0..models {
            let (a, b, bias) = (a.at(model), b.at(model), bias.map(|bias| bias.at(model)));
            Dot { sizes: self.sizes, a, b, bias, c: c.at(model) }.split();
        }
    }
}

impl<H: Stored<f32>> VectorKernel for HalfDots<H> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let (sizes, models) = (self.sizes, tile.models());
        let (inputs, mut outputs, _) = tile.operands();
        let (a, b) = (inputs.get::<f32>(0), inputs.get::<H>(1));
        let bias = self.has_bias.then(|| inputs.get::<H>(2));
        let c = outputs.take::<f32>();
        let starts = &[[0; 3]];
        for_length::<f32, H, S>(sizes.k, DotsOfTile { sizes, starts, models, a, b, bias, c });
    }
}
