//! Large products, by the `gemm` crate, which splits them over the threads of the pool if asked to.
//!
//! Its order of sums follows from the sizes, not from the number of threads. For vectors and for small `m · n`
//! it would also follow from the layouts: [`Way::of`](super::product::Way::of) sends such products elsewhere.
#![expect(unsafe_code, reason = "the gemm crate takes pointers")]

use super::gemm::{BiasAxis, Finish, Product, assert_covers};
use super::simd::{Float, Lanes, Simd, Vectorized};

/// Computes `C = A · B`, oriented, on the threads of the pool if `split`.
pub(super) fn multiply<T: Float>(product: &Product, a: &[T], b: &[T], c: &mut [T], split: bool) {
    let parallelism = if split { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    let Product { m, n, k, .. } = *product;
    assert_covers(a, (m, k), product.a);
    assert_covers(b, (k, n), product.b);
    assert_covers(c, (m, n), product.c);
    let (zero, one) = (T::from_f64(0.0), T::from_f64(1.0));
    // SAFETY: the assertions above say that all elements of the matrices lie within their slices; `c` is
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

/// What follows an oriented product: bias, then [`Product::finish`].
pub(super) struct Epilogue<'a, T> {
    pub(super) product: &'a Product,
    pub(super) bias: Option<&'a [T]>,
    pub(super) output: Option<&'a [T]>,
    pub(super) c: &'a mut [T],
}

impl<T: Float> Vectorized for Epilogue<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let Epilogue { product, bias, output, c } = self;
        if bias.is_none() && product.finish == Finish::Sum {
            return;
        }
        for row in 0..product.m {
            for column in (0..product.n).step_by(lanes) {
                let n = lanes.min(product.n - column);
                let at = row * product.c.row + column;
                let c = &mut c[at..at + n];
                // SAFETY: `n` lanes of slices of `n` elements are read.
                let read = |x: &[T]| unsafe { T::Lanes::<S>::load_first(x[..n].as_ptr(), n) };
                let mut y = read(c);
                if let Some(bias) = bias {
                    y = y.add(match product.bias {
                        BiasAxis::Rows => T::Lanes::<S>::splat(bias[row]),
                        BiasAxis::Columns => read(&bias[column..]),
                    });
                }
                y = match (product.finish, output) {
                    (Finish::Activation(activation), _) => activation.apply::<T, S>(y),
                    (Finish::ReluGradient, Some(output)) => {
                        let zero = T::Lanes::<S>::splat(T::default());
                        T::Lanes::<S>::select(read(&output[at..]).eq(zero), zero, y)
                    }
                    _ => y,
                };
                // SAFETY: `n` lanes of a slice of `n` elements are written.
                unsafe { y.store_first(c.as_mut_ptr(), n) };
            }
        }
    }
}
