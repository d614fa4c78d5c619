//! Products with few rows: each element is a dot product of two contiguous rows.
//!
//! **Order of sums.** Lane `l` adds up the products at `l`, `l + N`, `l + 2N`, … in order; the lanes are
//! added by halves, as [`Lanes::sum`] does, only the first `k` of them if `k` divides their number. The order
//! follows from `k` and the instruction set alone.
#![expect(unsafe_code, reason = "rows are read through pointers")]

use super::gemm::{Finish, activate};
use super::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized};
use crate::ops::activation::ActivationKind;

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
        let Dot { rows, columns, k, .. } = self;
        assert!(self.a.len() == rows * k && self.b.len() == columns * k, "sizes of a product");
        assert!(self.c.len() == rows * columns, "size of its result");
        assert!(self.bias.is_none_or(|bias| bias.len() == columns), "bias");
        let has_relu = matches!(self.finish, Finish::Activation(ActivationKind::Relu));
        for row in 0..rows {
            let (a, c) = (&self.a[row * k..][..k], &mut self.c[row * columns..][..columns]);
            let mut row = Row { a, b: self.b, bias: self.bias, has_relu, c };
            row.compute::<S>();
            if let Finish::Activation(activation) = self.finish
                && !has_relu
            {
                activate::<T, S>(activation, row.c);
            }
        }
    }
}

/// The dot products of one row of `A` with every row of `B`.
struct Row<'a, T> {
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    /// The one activation that is short enough to be repeated in every loop here.
    has_relu: bool,
    c: &'a mut [T],
}

impl<T: Float> Row<'_, T> {
    #[inline(always)]
    fn compute<S: Simd>(&mut self) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        match self.a.len() {
            1 => self.short::<S, 1>(),
            2 if lanes > 2 => self.short::<S, 2>(),
            4 if lanes > 4 => self.short::<S, 4>(),
            8 if lanes > 8 => self.short::<S, 8>(),
            _ => self.long::<S>(),
        }
    }

    /// Takes several rows of `B` a vector: `K` divides the number of lanes.
    #[inline(always)]
    fn short<S: Simd, const K: usize>(&mut self) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let columns = self.c.len();
        let zero = T::Lanes::<S>::splat(T::default());
        // SAFETY: `a` has `K` elements.
        let a = unsafe { T::Lanes::<S>::repeat(self.a.as_ptr(), K) };
        for column in (0..columns).step_by(lanes) {
            let n = (columns - column).min(lanes);
            let b = self.b[column * K..][..n * K].as_ptr();
            let mut products = [zero; MAX_LANES];
            for (i, product) in products.iter_mut().enumerate().take(K) {
                let left = (n * K).saturating_sub(i * lanes);
                // SAFETY: there are `left` elements from here on, or one vector of them at least.
                let b = unsafe {
                    match left >= lanes {
                        true => T::Lanes::<S>::load(b.add(i * lanes)),
                        false => T::Lanes::<S>::load_first(b.wrapping_add(i * lanes), left),
                    }
                };
                *product = b.mul_add(a, zero);
            }
            self.finish::<S>(column, n, T::Lanes::<S>::group_sums(&products, K));
        }
    }

    /// Takes a vector or more for each row of `B`.
    #[inline(always)]
    fn long<S: Simd>(&mut self) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let columns = self.c.len();
        for column in (0..columns).step_by(lanes) {
            match columns - column {
                1..=2 => self.block::<S, 2>(column),
                3..=4 => self.block::<S, 4>(column),
                5..=8 => self.block::<S, 8>(column),
                _ => self.block::<S, MAX_LANES>(column),
            }
        }
    }

    /// Computes up to `ROWS` columns, a power of two, and no more than there are lanes.
    #[inline(always)]
    fn block<S: Simd, const ROWS: usize>(&mut self, column: usize) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let n = (self.c.len() - column).min(ROWS).min(lanes);
        let k = self.a.len();
        let b = self.b[column * k..][..n * k].as_ptr();
        // Where there are fewer rows than lanes, sums of the same rows over again cost the compiler nothing.
        let mut sums = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
        for row in 0..ROWS.min(lanes) {
            // SAFETY: this is row `column + n - 1` of B or one before.
            sums[row] = partial_sums::<T, S>(self.a, unsafe { b.add(row.min(n - 1) * k) });
        }
        for row in ROWS..lanes {
            sums[row] = sums[row % ROWS];
        }
        self.finish::<S>(column, n, T::Lanes::<S>::sums(&sums));
    }

    /// Adds the bias, applies a ReLU and writes `n` columns of `C`.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, column: usize, n: usize, sums: T::Lanes<S>) {
        let mut y = sums;
        if let Some(bias) = self.bias {
            // SAFETY: the slice has `n` elements.
            y = y.add(unsafe { T::Lanes::<S>::load_first(bias[column..][..n].as_ptr(), n) });
        }
        if self.has_relu {
            y = ActivationKind::Relu.apply::<T, S>(y);
        }
        // SAFETY: the slice has `n` elements, and as many lanes are written.
        unsafe { y.store_first(self.c[column..][..n].as_mut_ptr(), n) };
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
