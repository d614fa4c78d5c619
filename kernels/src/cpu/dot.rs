//! Products with few rows: each element is a dot product of two contiguous rows.
//!
//! **Order of sums.** Lane `l` adds up the products at `l`, `l + N`, `l + 2N`, … in order; the lanes are
//! added by [`Lanes::sums`]. The order follows from `k` and the instruction set alone.
#![expect(unsafe_code, reason = "rows are read through pointers")]

use super::gemm::Finish;
use super::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized};

/// `C[r, o] = finish(⟨A[r, ..], B[o, ..]⟩ + bias[o])`, all row-major: `A` is `[rows, k]`, `B` is
/// `[columns, k]`, `C` is `[rows, columns]`.
pub(super) struct Dot<'a, T> {
    /// Rows of `A` and `C`.
    pub(super) rows: usize,
    /// Rows of `B`, columns of `C`.
    pub(super) columns: usize,
    /// Length of a row of `A` and `B`.
    pub(super) k: usize,
    /// `A`.
    pub(super) a: &'a [T],
    /// `B`.
    pub(super) b: &'a [T],
    /// One number for each row of `B`.
    pub(super) bias: Option<&'a [T]>,
    /// An activation is applied last.
    pub(super) finish: Finish,
    /// `C`.
    pub(super) c: &'a mut [T],
}

impl<T: Float> Vectorized for Dot<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let k = self.k;
        let Dot { rows, columns, .. } = self;
        assert!(self.a.len() == rows * k && self.b.len() == columns * k, "sizes of a product");
        assert!(self.c.len() == rows * columns, "size of its result");
        assert!(self.bias.is_none_or(|bias| bias.len() == columns), "bias");
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        for row in 0..rows {
            let a = &self.a[row * k..][..k];
            let c = &mut self.c[row * columns..][..columns];
            let mut column = 0;
            while column < columns {
                let n = (columns - column).min(lanes);
                let mut partial = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
                for (i, partial) in partial.iter_mut().enumerate().take(n) {
                    // SAFETY: row `column + i` of B is within B, which has `columns` rows of `k`.
                    let row = unsafe { self.b.as_ptr().add((column + i) * k) };
                    *partial = partial_sums::<T, S>(a, row);
                }
                let sums = T::Lanes::<S>::sums(&partial);
                let bias = self.bias.map(|bias| &bias[column..]);
                let y = finish::<T, S>(sums, bias, n, self.finish);
                // SAFETY: `column + n ≤ columns`, the length of this row of C.
                unsafe { y.store_first(c.as_mut_ptr().add(column), n) };
                column += n;
            }
        }
    }
}

/// Multiplies `a` with the row of as many elements at `b`; gives each lane's sum.
#[inline(always)]
fn partial_sums<T: Float, S: Simd>(a: &[T], b: *const T) -> T::Lanes<S> {
    let lanes = <T::Lanes<S> as Lanes<T>>::N;
    let mut sum = T::Lanes::<S>::splat(T::default());
    let mut i = 0;
    while i + lanes <= a.len() {
        // SAFETY: the loads stay below `a.len()`, which is the length of both rows.
        unsafe {
            let product = T::Lanes::<S>::load(b.add(i));
            sum = product.mul_add(T::Lanes::<S>::load(a.as_ptr().add(i)), sum);
        }
        i += lanes;
    }
    if i < a.len() {
        // SAFETY: see above.
        unsafe {
            let product = T::Lanes::<S>::load_first(b.add(i), a.len() - i);
            sum = product.mul_add(T::Lanes::<S>::load_first(a.as_ptr().add(i), a.len() - i), sum);
        }
    }
    sum
}

#[inline(always)]
fn finish<T: Float, S: Simd>(
    sums: T::Lanes<S>,
    bias: Option<&[T]>,
    n: usize,
    last: Finish,
) -> T::Lanes<S> {
    let sums = match bias {
        // SAFETY: the slice has at least `n` elements.
        Some(bias) => sums.add(unsafe { T::Lanes::<S>::load_first(bias[..n].as_ptr(), n) }),
        None => sums,
    };
    match last {
        Finish::Activation(activation) => activation.apply::<T, S>(sums),
        Finish::Sum | Finish::ReluGradient => sums,
    }
}
