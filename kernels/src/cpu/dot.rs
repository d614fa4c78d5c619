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

/// What is done with the loop over `k` that is made for its length.
pub(super) trait ForLength {
    /// Does it.
    fn with<S: Simd, L: Length>(self);
}

/// Chooses a loop for rows of length `k`. The choice stands outside of all other loops: inside, the compiler
/// would keep the addresses of every one of them at hand.
#[inline(always)]
pub(super) fn for_length<T: Float, S: Simd>(k: usize, work: impl ForLength) {
    let lanes = <T::Lanes<S> as Lanes<T>>::N;
    match k {
        1 => work.with::<S, Short<1>>(),
        2 if lanes > 2 => work.with::<S, Short<2>>(),
        4 if lanes > 4 => work.with::<S, Short<4>>(),
        8 if lanes > 8 => work.with::<S, Short<8>>(),
        _ if k == lanes => work.with::<S, Whole<1>>(),
        _ if k == 2 * lanes => work.with::<S, Whole<2>>(),
        _ if k == 4 * lanes => work.with::<S, Whole<4>>(),
        _ => work.with::<S, Any>(),
    }
}

impl<T: Float> Vectorized for Dot<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for_length::<T, S>(self.k, self);
    }
}

impl<T: Float> ForLength for Dot<'_, T> {
    #[inline(always)]
    fn with<S: Simd, L: Length>(self) {
        let Dot { rows, columns, k, .. } = self;
        assert!(self.a.len() == rows * k && self.b.len() == columns * k, "sizes of a product");
        assert!(self.c.len() == rows * columns, "size of its result");
        assert!(self.bias.is_none_or(|bias| bias.len() == columns), "bias");
        let has_relu = matches!(self.finish, Finish::Activation(ActivationKind::Relu));
        for row in 0..rows {
            let (a, c) = (&self.a[row * k..][..k], &mut self.c[row * columns..][..columns]);
            let mut row = Row { a, b: self.b, bias: self.bias, has_relu, c };
            L::compute::<T, S>(&mut row);
            if let Finish::Activation(activation) = self.finish
                && !has_relu
            {
                activate::<T, S>(activation, row.c);
            }
        }
    }
}

/// The dot products of one row of `A` with every row of `B`.
pub(super) struct Row<'a, T> {
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    /// The one activation that is short enough to be repeated in every loop here.
    has_relu: bool,
    c: &'a mut [T],
}

/// A length of rows, with the loop that is made for it.
pub(super) trait Length {
    /// Computes a row of `C`.
    fn compute<T: Float, S: Simd>(row: &mut Row<'_, T>);
}

/// Rows of `K` elements, several of them a vector: `K` divides the number of lanes.
pub(super) struct Short<const K: usize>;

impl<const K: usize> Length for Short<K> {
    #[inline(always)]
    fn compute<T: Float, S: Simd>(row: &mut Row<'_, T>) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        assert!(row.a.len() == K, "a row of that length");
        let columns = row.c.len();
        let whole = columns - columns % lanes;
        for column in (0..whole).step_by(lanes) {
            row.short::<S, K>(column, lanes);
        }
        if whole < columns {
            row.short::<S, K>(whole, columns - whole);
        }
    }
}

/// Rows of so many whole vectors.
pub(super) struct Whole<const VECTORS: usize>;

impl<const VECTORS: usize> Length for Whole<VECTORS> {
    #[inline(always)]
    fn compute<T: Float, S: Simd>(row: &mut Row<'_, T>) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        assert!(row.a.len() == VECTORS * lanes, "a row of that length");
        let columns = row.c.len();
        let whole = columns - columns % lanes;
        for column in (0..whole).step_by(lanes) {
            row.whole::<S, VECTORS, MAX_LANES>(column, lanes);
        }
        match columns - whole {
            0 => {}
            n @ 1..=2 => row.whole::<S, VECTORS, 2>(whole, n),
            n @ 3..=4 => row.whole::<S, VECTORS, 4>(whole, n),
            n @ 5..=8 => row.whole::<S, VECTORS, 8>(whole, n),
            n => row.whole::<S, VECTORS, MAX_LANES>(whole, n),
        }
    }
}

/// Rows of any length.
pub(super) struct Any;

impl Length for Any {
    #[inline(always)]
    fn compute<T: Float, S: Simd>(row: &mut Row<'_, T>) {
        let columns = row.c.len();
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        for column in (0..columns).step_by(lanes) {
            row.any::<S>(column, lanes.min(columns - column));
        }
    }
}

impl<T: Float> Row<'_, T> {
    /// Computes `n` columns, from several rows of `B` a vector.
    #[inline(always)]
    fn short<S: Simd, const K: usize>(&mut self, column: usize, n: usize) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let zero = T::Lanes::<S>::splat(T::default());
        // SAFETY: `a` has `K` elements.
        let a = unsafe { T::Lanes::<S>::repeat(self.a.as_ptr(), K) };
        let b = self.b[column * K..][..n * K].as_ptr();
        let mut products = [zero; MAX_LANES];
        for (i, product) in products.iter_mut().enumerate().take(K) {
            let left = (n * K).saturating_sub(i * lanes);
            let b = b.wrapping_add(i * lanes);
            // SAFETY: there are `left` elements from here on.
            let b = unsafe {
                match left >= lanes {
                    true => T::Lanes::<S>::load(b),
                    false => T::Lanes::<S>::load_first(b, left),
                }
            };
            *product = b.mul_add(a, zero);
        }
        self.finish::<S>(column, n, T::Lanes::<S>::group_sums(&products, K));
    }

    /// Computes `n` columns, no more than there are lanes and than `ROWS`, a power of two.
    #[inline(always)]
    fn whole<S: Simd, const VECTORS: usize, const ROWS: usize>(&mut self, column: usize, n: usize) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let (k, rows) = (VECTORS * lanes, ROWS.min(lanes));
        let b = self.b[column * k..][..n * k].as_ptr();
        let mut a = [T::Lanes::<S>::splat(T::default()); VECTORS];
        for (vector, a) in a.iter_mut().enumerate() {
            // SAFETY: `a` has `VECTORS` vectors.
            *a = unsafe { T::Lanes::<S>::load(self.a.as_ptr().add(vector * lanes)) };
        }
        let mut sums = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
        for (row, sum) in sums.iter_mut().enumerate().take(rows) {
            let row = row.min(n - 1) * k;
            for (vector, a) in a.iter().enumerate() {
                // SAFETY: the slice has `n` rows of `VECTORS` vectors.
                let b = unsafe { T::Lanes::<S>::load(b.add(row + vector * lanes)) };
                *sum = b.mul_add(*a, *sum);
            }
        }
        // Sums of the same vectors over again cost nothing: the compiler sees that they are the same.
        for row in rows..lanes {
            sums[row] = sums[row % rows];
        }
        self.finish::<S>(column, n, T::Lanes::<S>::sums(&sums));
    }

    /// Computes `n` columns, no more than there are lanes.
    #[inline(always)]
    fn any<S: Simd>(&mut self, column: usize, n: usize) {
        let k = self.a.len();
        let mut sums = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
        for (row, sum) in sums.iter_mut().enumerate().take(n) {
            *sum = partial_sums::<T, S>(self.a, &self.b[(column + row) * k..][..k]);
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

/// Multiplies two rows of as many elements; gives each lane's sum.
#[inline(always)]
fn partial_sums<T: Float, S: Simd>(a: &[T], b: &[T]) -> T::Lanes<S> {
    let lanes = <T::Lanes<S> as Lanes<T>>::N;
    assert!(a.len() == b.len(), "rows of one length");
    let mut sum = T::Lanes::<S>::splat(T::default());
    let mut i = 0;
    while i + lanes <= a.len() {
        // SAFETY: the loads stay below the length of both rows.
        unsafe {
            let product = T::Lanes::<S>::load(b.as_ptr().add(i));
            sum = product.mul_add(T::Lanes::<S>::load(a.as_ptr().add(i)), sum);
        }
        i += lanes;
    }
    if i < a.len() {
        let left = a.len() - i;
        // SAFETY: as above.
        unsafe {
            let product = T::Lanes::<S>::load_first(b.as_ptr().add(i), left);
            sum = product.mul_add(T::Lanes::<S>::load_first(a.as_ptr().add(i), left), sum);
        }
    }
    sum
}
