//! Large products, by the `gemm` crate, which splits them over the threads of the pool if asked to.
//!
//! Its order of sums follows from the sizes, not from the number of threads.
#![expect(unsafe_code, reason = "the gemm crate takes pointers")]

use super::gemm::{BiasAxis, Product};
use super::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use super::tile::Tile;
use crate::ops::activation::ActivationKind;

/// Computes `product` for every model of `tile`.
pub(super) fn run<T: Float>(product: &Product, tile: &mut Tile<'_>) {
    let parallelism =
        if tile.split() { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    for model in 0..tile.models() {
        let (inputs, mut outputs, _) = tile.model(model).split();
        let (a, b, c) = (inputs.get::<T>(0), inputs.get::<T>(1), outputs.take::<T>());
        multiply(product, a, b, c, parallelism);
        let bias = (inputs.len() > 2).then(|| inputs.get::<T>(2));
        if bias.is_some() || product.activation.is_some() {
            let turned = product.oriented();
            dispatch(Epilogue { product: &turned, bias, activation: product.activation, c });
        }
    }
}

fn multiply<T: Float>(
    product: &Product,
    a: &[T],
    b: &[T],
    c: &mut [T],
    parallelism: gemm::Parallelism,
) {
    let Product { m, n, k, .. } = *product;
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "dense matrices");
    let (zero, one) = (T::from_f64(0.0), T::from_f64(1.0));
    // SAFETY: the matrices are dense, so all their elements lie within slices of as many elements; `c` is
    // borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            product.c.column as isize,
            product.c.row as isize,
            false,
            a.as_ptr(),
            product.a.column as isize,
            product.a.row as isize,
            b.as_ptr(),
            product.b.column as isize,
            product.b.row as isize,
            zero,
            one,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Bias and activation, over an oriented product.
struct Epilogue<'a, T> {
    product: &'a Product,
    bias: Option<&'a [T]>,
    activation: Option<ActivationKind>,
    c: &'a mut [T],
}

impl<T: Float> Vectorized for Epilogue<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        for (row, c) in self.c.chunks_mut(self.product.n).enumerate() {
            for (chunk, c) in c.chunks_mut(lanes).enumerate() {
                // SAFETY (all blocks): at most `c.len()` lanes are read and written.
                let mut y = unsafe { T::Lanes::<S>::load_first(c.as_ptr(), c.len()) };
                if let Some(bias) = self.bias {
                    y = y.add(match self.product.bias {
                        BiasAxis::Rows => T::Lanes::<S>::splat(bias[row]),
                        BiasAxis::Columns => unsafe {
                            let bias = &bias[chunk * lanes..][..c.len()];
                            T::Lanes::<S>::load_first(bias.as_ptr(), bias.len())
                        },
                    });
                }
                if let Some(activation) = self.activation {
                    y = activation.apply::<T, S>(y);
                }
                // SAFETY: see above.
                unsafe { y.store_first(c.as_mut_ptr(), c.len()) };
            }
        }
    }
}
