//! Products with few rows: each element is a dot product of two contiguous rows.
//!
//! Each has the [order of sums](super::sum), whatever the width of the vectors. `B` and the bias may lie in halves: they
//! are widened as they are read, and each sum is rounded to that half before an activation.
#![expect(unsafe_code, reason = "rows are read through pointers")]

use super::gemm::{Finish, WORTH_SPLITTING, activate};
use super::share::{Divisible, share_out};
use super::simd::halves::Stored;
use super::simd::vector::Vector;
use super::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized, dispatch};
use super::sum::{BLOCK, Join, PARTIALS, Pairs, join_vectors};
use super::tile::{Input, Output};
use crate::ops::activation::fused::ActivationKind;

/// `C[r, o] = finish(⟨A[r, ..], B[o, ..]⟩ + bias[o])`, all row-major: `A` is `[rows, k]`, `B` is
/// `[columns, k]`, `C` is `[rows, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Rows of `A` and `C`.
    pub(super) rows: usize,
    /// Rows of `B`, columns of `C`.
    pub(super) columns: usize,
    /// Length of a row of `A` and `B`.
    pub(super) k: usize,
    /// An activation is applied last.
    pub(super) finish: Finish,
}

/// One product.
pub(super) struct Dot<'a, T, B = T> {
    /// Of what sizes.
    pub(super) sizes: Sizes,
    /// `A`.
    pub(super) a: &'a [T],
    /// `B`.
    pub(super) b: &'a [B],
    /// One number for each row of `B`.
    pub(super) bias: Option<&'a [B]>,
    /// `C`.
    pub(super) c: &'a mut [T],
}

/// The products of every model of a tile.
pub(super) struct DotsOfTile<'a, 't, T, B = T> {
    /// Of what sizes each of them is.
    pub(super) sizes: Sizes,
    /// Where each product of a model begins in its `A`, `B` and `C`.
    pub(super) starts: &'a [[usize; 3]],
    /// How many models there are.
    pub(super) models: usize,
    /// `A` of every model.
    pub(super) a: Input<'t, T>,
    /// `B` of every model.
    pub(super) b: Input<'t, B>,
    /// One number for each row of `B`.
    pub(super) bias: Option<Input<'t, B>>,
    /// `C` of every model.
    pub(super) c: Output<'t, T>,
}

/// What is done with the loop over `k` that is made for its length.
pub(super) trait ForLength {
    /// Does it.
    fn with<S: Simd, L: Length>(self);
}

/// Chooses a loop for rows of length `k`. The choice stands outside of all other loops: inside, the compiler
/// would keep the addresses of every one of them at hand. There is none of its own for short rows of halves.
#[inline(always)]
pub(super) fn for_length<T: Float, B: Stored<T>, S: Simd>(k: usize, work: impl ForLength) {
    let lanes = <T::Lanes<S> as Lanes<T>>::N;
    if B::IS_HALF {
        return match k {
            _ if k == 2 * lanes => work.with::<S, Whole<2>>(),
            _ if k == 4 * lanes => work.with::<S, Whole<4>>(),
            _ if k == 8 * lanes => work.with::<S, Whole<8>>(),
            _ => work.with::<S, Any>(),
        };
    }
    match k {
        1 => work.with::<S, Short<1>>(),
        2 if lanes > 2 => work.with::<S, Short<2>>(),
        4 if lanes > 4 => work.with::<S, Short<4>>(),
        8 if lanes > 8 => work.with::<S, Short<8>>(),
        _ if k == lanes => work.with::<S, Whole<1>>(),
        _ if k == 2 * lanes => work.with::<S, Whole<2>>(),
        _ if k == 4 * lanes => work.with::<S, Whole<4>>(),
        _ if k == 8 * lanes => work.with::<S, Whole<8>>(),
        _ => work.with::<S, Any>(),
    }
}

impl<T: Float, B: Stored<T>> Dot<'_, T, B> {
    /// Computes it on the threads of the pool, row after row.
    pub(super) fn split(self) {
        let Dot { sizes, a, b, bias, c } = self;
        let Sizes { columns, k, .. } = sizes;
        for (row, c) in c.chunks_mut(columns).enumerate() {
            let sizes = Sizes { rows: 1, ..sizes };
            share_out(Dot { sizes, a: &a[row * k..][..k], b, bias, c });
        }
    }
}

/// Of one row.
impl<T: Float, B: Stored<T>> Divisible for Dot<'_, T, B> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let Sizes { columns, k, .. } = self.sizes;
        if columns * k < WORTH_SPLITTING || columns < 2 {
            return Err(self);
        }
        let Dot { sizes, a, b, bias, c } = self;
        let at = columns / 2;
        let (left, right) = c.split_at_mut(at);
        let (left_b, right_b) = b.split_at(at * k);
        let (left_bias, right_bias) = bias.map(|bias| bias.split_at(at)).unzip();
        let of = |columns, b, bias, c| Dot { sizes: Sizes { columns, ..sizes }, a, b, bias, c };
        Ok([of(at, left_b, left_bias, left), of(columns - at, right_b, right_bias, right)])
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T: Float, B: Stored<T>> Vectorized for Dot<'_, T, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for_length::<T, B, S>(self.sizes.k, self);
    }
}

impl<T: Float, B: Stored<T>> ForLength for Dot<'_, T, B> {
    #[inline(always)]
    fn with<S: Simd, L: Length>(self) {
        let Dot { sizes, a, b, bias, c } = self;
        let Sizes { rows, columns, k, .. } = sizes;
        assert!(a.len() == rows * k && b.len() == columns * k, "sizes of a product");
        assert!(c.len() == rows * columns, "size of its result");
        assert!(bias.is_none_or(|bias| bias.len() == columns), "bias");
        let bias = bias.map_or(core::ptr::null(), <[B]>::as_ptr);
        let at = Operands { a: a.as_ptr(), b: b.as_ptr(), bias, c: c.as_mut_ptr() };
        // SAFETY: the slices are as long as the sizes say, and `C` is borrowed exclusively.
        unsafe { sizes.compute::<T, B, S, L>(1, at, [0; 4]) };
    }
}

impl<T: Float, B: Stored<T>> ForLength for DotsOfTile<'_, '_, T, B> {
    #[inline(always)]
    fn with<S: Simd, L: Length>(self) {
        let DotsOfTile { sizes, starts, models, a, b, bias, c } = self;
        let Sizes { rows, columns, k, .. } = sizes;
        for start in starts {
            let fits = start[0] + rows * k <= a.numel() && start[1] + columns * k <= b.numel();
            assert!(fits && start[2] + rows * columns <= c.numel(), "sizes of a product");
        }
        assert!(bias.is_none_or(|bias| bias.numel() == columns), "bias");
        // Operands that lie evenly apart need looking up only once.
        let strides = match (starts.len(), bias) {
            (1, None) => [a.stride(), b.stride(), Some(0), c.stride()],
            (1, Some(bias)) => [a.stride(), b.stride(), bias.stride(), c.stride()],
            _ => [None; 4],
        };
        let (together, strides) = match strides {
            [Some(a), Some(b), Some(bias), Some(c)] => (models, [a, b, bias, c]),
            _ => (1, [0; 4]),
        };
        for model in (0..models).step_by(together.max(1)) {
            for &[in_a, in_b, in_c] in starts {
                let at = Operands {
                    a: a.address(model).wrapping_add(in_a),
                    b: b.address(model).wrapping_add(in_b),
                    bias: bias.map_or(core::ptr::null(), |bias| bias.address(model)),
                    c: c.address(model).wrapping_add(in_c),
                };
                // SAFETY: the assertions above say that each model's operands hold its products, and
                // whoever made the tile, that they are there for as many models and that `C` overlaps nothing.
                unsafe { sizes.compute::<T, B, S, L>(together, at, strides) };
            }
        }
    }
}

/// Where the operands of a product begin.
#[derive(Clone, Copy)]
struct Operands<T, B> {
    a: *const T,
    b: *const B,
    /// Null if there is none.
    bias: *const B,
    c: *mut T,
}

impl<T, B> Operands<T, B> {
    /// Gives the operands of the product `n` strides further on, in bytes for `A`, `B`, the bias and `C`.
    #[inline(always)]
    fn further(self, n: usize, [a, b, bias, c]: [usize; 4]) -> Self {
        Operands {
            a: self.a.wrapping_byte_add(n * a),
            b: self.b.wrapping_byte_add(n * b),
            bias: self.bias.wrapping_byte_add(n * bias),
            c: self.c.wrapping_byte_add(n * c),
        }
    }
}

impl Sizes {
    /// Computes `count` products whose operands lie `strides` bytes apart.
    ///
    /// What is done between one product and the next is little: a small model's products take no longer, and
    /// a CPU that looks a few hundred instructions ahead shall see the weights of the models to come.
    ///
    /// # Safety
    ///
    /// At each of these places there are operands of these sizes, those of `C` to be written, and these overlap
    /// no others. `k` is what `L` is made for.
    #[inline(always)]
    unsafe fn compute<T: Float, B: Stored<T>, S: Simd, L: Length>(
        self,
        count: usize,
        first: Operands<T, B>,
        strides: [usize; 4],
    ) {
        let Sizes { rows, columns, k, finish } = self;
        let has_bias = !first.bias.is_null();
        let has_relu = matches!(finish, Finish::Activation(ActivationKind::Relu));
        let mut at = first;
        for _ in 0..count {
            for row in 0..rows {
                let (a, c) = (at.a.wrapping_add(row * k), at.c.wrapping_add(row * columns));
                let bias = if has_bias { Some(at.bias) } else { None };
                let row = Row { a, b: at.b, bias, has_relu, c, columns, k };
                // SAFETY: as the caller promises.
                unsafe { L::compute::<T, B, S>(row) };
            }
            at = at.further(1, strides);
        }
        if let Finish::Activation(activation) = finish
            && !has_relu
        {
            for product in 0..count {
                let c = first.further(product, strides).c;
                // SAFETY: as the caller promises; nobody else has a view of it.
                let c = unsafe { core::slice::from_raw_parts_mut(c, rows * columns) };
                for c in c.chunks_exact_mut(columns.max(1)) {
                    activate::<T, S>(activation, c);
                }
            }
        }
    }
}

/// The dot products of one row of `A` with every row of `B`.
#[derive(Clone, Copy)]
pub(super) struct Row<T, B> {
    a: *const T,
    b: *const B,
    bias: Option<*const B>,
    /// The one activation that is short enough to be repeated in every loop here.
    has_relu: bool,
    c: *mut T,
    columns: usize,
    k: usize,
}

/// A length of rows, with the loop that is made for it.
pub(super) trait Length {
    /// Computes a row of `C`.
    ///
    /// # Safety
    ///
    /// `a` has `k` readable elements, `b` has `columns · k`, `bias` and `c` have `columns`, those of `c` to be
    /// written and nobody else's; `k` is of this length.
    unsafe fn compute<T: Float, B: Stored<T>, S: Simd>(row: Row<T, B>);
}

/// Rows of `K` elements, several of them a vector: `K` divides the number of lanes.
pub(super) struct Short<const K: usize>;

impl<const K: usize> Length for Short<K> {
    #[inline(always)]
    unsafe fn compute<T: Float, B: Stored<T>, S: Simd>(row: Row<T, B>) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        debug_assert!(row.k == K, "a row of that length");
        let whole = row.columns - row.columns % lanes;
        for column in (0..whole).step_by(lanes) {
            // SAFETY: there are so many columns, and the caller promises the rest.
            unsafe { row.short::<S, K>(column, lanes) };
        }
        if whole < row.columns {
            // SAFETY: as above.
            unsafe { row.short::<S, K>(whole, row.columns - whole) };
        }
    }
}

/// Rows of so many whole vectors, no more than a block.
pub(super) struct Whole<const VECTORS: usize>;

impl<const VECTORS: usize> Length for Whole<VECTORS> {
    #[inline(always)]
    unsafe fn compute<T: Float, B: Stored<T>, S: Simd>(row: Row<T, B>) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        debug_assert!(row.k == VECTORS * lanes, "a row of that length");
        let whole = row.columns - row.columns % lanes;
        // SAFETY (all blocks below): there are so many columns, and the caller promises the rest.
        for column in (0..whole).step_by(lanes) {
            // SAFETY: see above.
            unsafe { row.whole::<S, VECTORS, MAX_LANES>(column, lanes) };
        }
        // SAFETY: see above.
        unsafe {
            match row.columns - whole {
                0 => {}
                n @ 1..=2 => row.whole::<S, VECTORS, 2>(whole, n),
                n @ 3..=4 => row.whole::<S, VECTORS, 4>(whole, n),
                n @ 5..=8 => row.whole::<S, VECTORS, 8>(whole, n),
                n => row.whole::<S, VECTORS, MAX_LANES>(whole, n),
            }
        }
    }
}

/// Rows of any length.
pub(super) struct Any;

impl Length for Any {
    #[inline(always)]
    unsafe fn compute<T: Float, B: Stored<T>, S: Simd>(row: Row<T, B>) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        for column in (0..row.columns).step_by(lanes) {
            // SAFETY: there are so many columns, and the caller promises the rest.
            unsafe { row.any::<S>(column, lanes.min(row.columns - column)) };
        }
    }
}

impl<T: Float, B: Stored<T>> Row<T, B> {
    /// Computes `n` columns, from several rows of `B` a vector.
    ///
    /// # Safety
    ///
    /// As [`Length::compute`] for `K`, and there are `n` columns from `column` on, no more than lanes.
    #[inline(always)]
    unsafe fn short<S: Simd, const K: usize>(self, column: usize, n: usize) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let zero = T::Lanes::<S>::splat(T::default());
        // SAFETY: `a` has `K` elements.
        let a = unsafe { T::Lanes::<S>::repeat(self.a, K) };
        let b = self.b.wrapping_add(column * K);
        let mut products = [zero; MAX_LANES];
        for (i, product) in products.iter_mut().enumerate().take(K) {
            let left = (n * K).saturating_sub(i * lanes);
            let b = b.wrapping_add(i * lanes);
            // SAFETY: there are `left` elements from here on.
            let b = unsafe {
                match left >= lanes {
                    true => B::load::<S>(b),
                    false => B::load_first::<S>(b, left),
                }
            };
            *product = b.mul(a);
        }
        // SAFETY: as the caller promises.
        unsafe { self.finish::<S>(column, n, T::Lanes::<S>::group_sums(&products, K)) };
    }

    /// Computes `n` columns, no more than `ROWS`, a power of two.
    ///
    /// # Safety
    ///
    /// As [`Length::compute`] for `VECTORS`, and there are `n` columns from `column` on, no more than lanes.
    #[inline(always)]
    unsafe fn whole<S: Simd, const VECTORS: usize, const ROWS: usize>(
        self,
        column: usize,
        n: usize,
    ) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let (k, rows, in_round) = (VECTORS * lanes, ROWS.min(lanes), PARTIALS / lanes);
        let b = self.b.wrapping_add(column * k);
        let mut a = [T::Lanes::<S>::splat(T::default()); VECTORS];
        for (vector, a) in a.iter_mut().enumerate() {
            // SAFETY: `a` has `VECTORS` vectors.
            *a = unsafe { T::Lanes::<S>::load(self.a.add(vector * lanes)) };
        }
        let mut sums = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
        for (row, sum) in sums.iter_mut().enumerate().take(rows) {
            let row = row.min(n - 1) * k;
            let mut partials = [Vector::<T, S>::nothing(); MOST_IN_ROUND];
            for (vector, a) in a.iter().enumerate() {
                // SAFETY: there are `n` rows of `VECTORS` vectors.
                let b = unsafe { B::load::<S>(b.add(row + vector * lanes)) };
                let partial = &mut partials[vector % in_round].0;
                // A first product differs from one that is added to +0 by the sign of a zero: see `finish`.
                *partial = if vector < in_round { b.mul(*a) } else { b.mul_add(*a, *partial) };
            }
            *sum = join_vectors(&partials, in_round.min(VECTORS)).0;
        }
        // Sums of the same vectors over again cost nothing: the compiler sees that they are the same.
        for row in rows..lanes {
            sums[row] = sums[row % rows];
        }
        // SAFETY: as the caller promises.
        unsafe { self.finish::<S>(column, n, T::Lanes::<S>::sums(&sums)) };
    }

    /// Computes `n` columns.
    ///
    /// # Safety
    ///
    /// As [`Length::compute`], and there are `n` columns from `column` on, no more than lanes.
    #[inline(always)]
    unsafe fn any<S: Simd>(self, column: usize, n: usize) {
        let k = self.k;
        // SAFETY: `a` has `k` elements.
        let a = unsafe { core::slice::from_raw_parts(self.a, k) };
        let mut pairs = Pairs::<Vector<T, S>>::new();
        for start in (0..k).step_by(BLOCK) {
            let a = &a[start..k.min(start + BLOCK)];
            let mut sums = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
            let row = |row: usize| self.b.wrapping_add((column + row) * k + start);
            // One row after the other, as they lie: what comes from memory comes faster so.
            for (at, sum) in sums.iter_mut().enumerate().take(n) {
                // SAFETY: `b` has a row of `k` elements for each column.
                *sum = unsafe { block::<T, B, S>(a, row(at)) };
            }
            pairs.push(Vector(T::Lanes::<S>::sums(&sums)));
        }
        // SAFETY: as the caller promises.
        unsafe { self.finish::<S>(column, n, pairs.total().0) };
    }

    /// Ends the sums, adds the bias, applies a ReLU and writes `n` columns of `C`.
    ///
    /// # Safety
    ///
    /// `bias` and `c` have `n` elements from `column` on, no more than lanes.
    #[inline(always)]
    unsafe fn finish<S: Simd>(self, column: usize, n: usize, sums: T::Lanes<S>) {
        // No sum is -0, whatever the signs of zeros in it.
        let mut y = sums.add(T::Lanes::<S>::splat(T::default()));
        if let Some(bias) = self.bias {
            // SAFETY: as the caller promises.
            y = y.add(unsafe { B::load_first::<S>(bias.add(column), n) });
        }
        y = B::round::<S>(y);
        if self.has_relu {
            y = ActivationKind::Relu.apply(Vector::<T, S>(y)).0;
        }
        // SAFETY: as the caller promises, and as many lanes are written.
        unsafe { y.store_first(self.c.add(column), n) };
    }
}

/// So many vectors hold the partial sums of a block, or fewer.
const MOST_IN_ROUND: usize = 4;

/// Multiplies up to a block of a row with as many elements of another; gives the partial sums, joined until they are one
/// vector.
///
/// # Safety
///
/// There are as many elements at `b`.
#[inline(always)]
unsafe fn block<T: Float, B: Stored<T>, S: Simd>(a: &[T], b: *const B) -> T::Lanes<S> {
    // SAFETY: the caller's promise.
    unsafe {
        match PARTIALS / <T::Lanes<S> as Lanes<T>>::N {
            1 => block_of::<T, B, S, 1>(a, b),
            2 => block_of::<T, B, S, 2>(a, b),
            _ => block_of::<T, B, S, MOST_IN_ROUND>(a, b),
        }
    }
}

/// Does that with so many vectors of partial sums.
///
/// # Safety
///
/// As for [`block`].
#[inline(always)]
unsafe fn block_of<T: Float, B: Stored<T>, S: Simd, const IN_ROUND: usize>(
    a: &[T],
    b: *const B,
) -> T::Lanes<S> {
    let lanes = <T::Lanes<S> as Lanes<T>>::N;
    let mut partials = [Vector::<T, S>::nothing(); IN_ROUND];
    let mut at = 0;
    while at + PARTIALS <= a.len() {
        for (vector, partial) in partials.iter_mut().enumerate() {
            let place = at + vector * lanes;
            // SAFETY: the loads stay below the length of both rows.
            let (a, b) =
                unsafe { (T::Lanes::<S>::load(a.as_ptr().add(place)), B::load::<S>(b.add(place))) };
            partial.0 = b.mul_add(a, partial.0);
        }
        at += PARTIALS;
    }
    for (vector, partial) in partials.iter_mut().enumerate() {
        let place = at + vector * lanes;
        let left = a.len().saturating_sub(place);
        if left >= lanes {
            // SAFETY: as above.
            let (a, b) =
                unsafe { (T::Lanes::<S>::load(a.as_ptr().add(place)), B::load::<S>(b.add(place))) };
            partial.0 = b.mul_add(a, partial.0);
        } else if left > 0 {
            // SAFETY: as above.
            let (a, b) = unsafe {
                (
                    T::Lanes::<S>::load_first(a.as_ptr().add(place), left),
                    B::load_first::<S>(b.add(place), left),
                )
            };
            partial.0 = b.mul_add(a, partial.0);
        }
    }
    join_vectors(&partials, IN_ROUND).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{InstructionSet, dispatch_to};
    use crate::cpu::sum::{LENGTHS, in_order};

    /// Multiplies two rows by `columns` rows of `B`.
    fn dots<T: Float>(set: InstructionSet, [a, b]: [&[T]; 2], columns: usize) -> Vec<T> {
        let mut c = vec![T::default(); 2 * columns];
        let sizes = Sizes { rows: 2, columns, k: a.len() / 2, finish: Finish::Sum };
        dispatch_to(set, Dot { sizes, a, b, bias: None, c: &mut c });
        c
    }

    fn check<T: Float>(fused: impl Fn(T, T, T) -> T, number: impl Fn(usize) -> T) {
        for k in LENGTHS {
            for columns in [1, 3, 8, 17] {
                let a: Vec<T> = (0..2 * k).map(|i| number(3 * i + 1)).collect();
                let b: Vec<T> = (0..columns * k).map(|i| number(5 * i + 2)).collect();
                let product = |at: usize| {
                    let (a, b) = (&a[at / columns * k..][..k], &b[at % columns * k..][..k]);
                    in_order(k, |p, i| fused(a[i], b[i], p))
                };
                let expected: Vec<u64> =
                    (0..2 * columns).map(|at| product(at).into().to_bits()).collect();
                for set in InstructionSet::available() {
                    let found = dots(set, [&a, &b], columns);
                    let found: Vec<_> = found.into_iter().map(|c| c.into().to_bits()).collect();
                    assert_eq!(found, expected, "{k} numbers, {columns} columns, {set:?}");
                }
            }
        }
    }

    #[test]
    fn dot_products_have_one_order_on_every_instruction_set() {
        check(f32::mul_add, |i| (0.7 * i as f32).sin());
        check(f64::mul_add, |i| (0.7 * i as f64).sin());
        // Products that are too small for a number: zeros of either sign.
        check(f32::mul_add, |i| if i % 3 == 0 { -1e-30 } else { 1e-30 });
        check(f32::mul_add, |_| -0.0);
    }
}
