//! Matrix products of any layout: `C = A · B`, then bias and activation.
//!
//! **Order of sums.** It follows from `k` alone. `k` is cut into blocks of [`CHAIN`] products, those into groups
//! of [`GROUP`]. A block's sum is the chain `fma(a_k, b_k, … fma(a_0, b_0, 0))` in order; the sums of a group's blocks
//! are added in order to the first of them, and so are the sums of the groups. So a product has the same bits in
//! every layout, packed or not, with any blocking for caches, in any parts and with every instruction set, and a
//! plan may choose layouts freely. Only dot products (few rows) add in an order of their own.
//!
//! **Plan of the loops.** Vectors run along the axis of `C` that is contiguous, called `n`; if that is the
//! rows' axis, the transposed product is computed. `B` must be contiguous along `n`: if it is not, a panel
//! of it is packed. A [register tile](super::register_tile) of `GEMM_ROWS × 2` vectors takes in a block of `k`;
//! elements of `A` are broadcast from wherever they lie. Large products are packed whole ([`super::large`]).
#![expect(unsafe_code, reason = "the register tile reads and writes through pointers")]

use core::ptr;

use super::register_tile::{Bias, Block, Panel};
use super::simd::vector::Vector;
use super::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized, dispatch};
use super::transpose::transpose;
use crate::ops::activation::fused::ActivationKind;

/// From this many multiply-adds on (some microseconds), a product is split over threads.
pub const WORTH_SPLITTING: usize = 1 << 17;

/// Products that one chain of fused multiply-adds takes in. Longer ones are no faster, for 256 rows of `B` two
/// vectors wide fill a half of the first cache, and less exact. Promised in `docs/design.md`: every sum's bits depend
/// on it.
pub const CHAIN: usize = 256;

/// Products of a group: 256 blocks. Promised, too.
pub const GROUP: usize = 256 * CHAIN;

/// Row and column stride of a matrix, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Elements from row to row.
    pub row: usize,
    /// Elements from column to column.
    pub column: usize,
}

impl Strides {
    /// Gives the strides of the transposed matrix.
    pub const fn transposed(self) -> Strides {
        Strides { row: self.column, column: self.row }
    }
}

/// Along which axis of `C` a bias lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasAxis {
    /// One number a row.
    Rows,
    /// One number a column.
    Columns,
}

/// What is done to each element of `C` when its sum is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing.
    Sum,
    /// An activation.
    Activation(ActivationKind),
    /// The gradient of ReLU: 0 where the layer's output, which lies as `C` does, is 0.
    ReluGradient,
}

/// A product of `[m, k]` and `[k, n]`, its layouts and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of `A` and `C`.
    pub m: usize,
    /// Columns of `B` and `C`.
    pub n: usize,
    /// Columns of `A`, rows of `B`.
    pub k: usize,
    /// Layout of `A`.
    pub a: Strides,
    /// Layout of `B`.
    pub b: Strides,
    /// Layout of `C`: one stride is 1 (an axis of size 1 may have any).
    pub c: Strides,
    /// Where the bias goes.
    pub bias: BiasAxis,
    /// What is done last.
    pub finish: Finish,
}

impl Product {
    /// Turns the product so that `C` is contiguous along its columns.
    #[must_use]
    pub fn oriented(self) -> Product {
        if !self.is_turned() {
            return self;
        }
        Product {
            m: self.n,
            n: self.m,
            a: self.b.transposed(),
            b: self.a.transposed(),
            c: self.c.transposed(),
            bias: match self.bias {
                BiasAxis::Rows => BiasAxis::Columns,
                BiasAxis::Columns => BiasAxis::Rows,
            },
            ..self
        }
    }

    /// Says whether [`oriented`](Product::oriented) swaps `A` and `B`.
    pub fn is_turned(&self) -> bool {
        let along_rows = self.c.row == 1 || self.m == 1;
        let along_columns = self.c.column == 1 || self.n == 1;
        along_rows && (!along_columns || self.n == 1 && self.m > 1)
    }

    /// Gives the product that is computed in place of an [oriented](Product::oriented) one with few columns,
    /// which would leave most of a vector empty, if the rows fill vectors and nothing has to be packed. Its
    /// result is `Cᵀ`, without gaps.
    pub(super) fn thin(self) -> Option<Product> {
        let Product { m, n, a, b, c, bias, .. } = self;
        let fills = 4 * n <= MAX_LANES && m.is_multiple_of(MAX_LANES);
        let is_thin = fills && a.row == 1 && c.row == n && self.finish == Finish::Sum;
        let (a, b) = (b.transposed(), a.transposed());
        let c = Strides { row: m, column: 1 };
        let turned = Product { m: n, n: m, k: self.k, a, b, c, bias, finish: Finish::Sum };
        is_thin.then_some(turned)
    }

    /// Says whether `B` must be packed; the product is [oriented](Product::oriented).
    pub(super) fn packs(&self) -> bool {
        self.b.column != 1 && self.n > 1
    }

    /// Gives the product whose `B` is the packed one.
    pub(super) fn packed(self) -> Product {
        Product { b: Strides { row: packed_width(self.n), column: 1 }, ..self }
    }

    /// Gives the number of elements of scratch memory that [`Gemm`] needs.
    pub fn scratch_elements(&self) -> usize {
        let product = self.oriented();
        if product.packs() { product.k * packed_width(product.n) } else { 0 }
    }
}

/// Elements from row to row of a packed panel.
#[inline(always)]
fn packed_width(n: usize) -> usize {
    n.next_multiple_of(MAX_LANES)
}

/// Computes a product with vectors.
pub struct Gemm<'a, T> {
    /// What is computed, [oriented](Product::oriented).
    pub product: &'a Product,
    /// `A`.
    pub a: &'a [T],
    /// `B`.
    pub b: &'a [T],
    /// Added to `C` along [`Product::bias`].
    pub bias: Option<&'a [T]>,
    /// The layer's output, for [`Finish::ReluGradient`].
    pub output: Option<&'a [T]>,
    /// `C`, overwritten.
    pub c: &'a mut [T],
    /// At least [`Product::scratch_elements`] elements.
    pub scratch: &'a mut [T],
}

impl<T: Float> Vectorized for Gemm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let product = *self.product;
        let Product { m, n, k, .. } = product;
        if m == 0 || n == 0 {
            return;
        }
        let mut first = self.first();
        let mut b_row = product.b.row;
        if product.packs() {
            pack_rows::<T, S>(&product, self.b, self.scratch);
            (first.b, b_row) = (self.scratch.as_ptr(), packed_width(n));
        }
        if k > GROUP {
            self.by_groups();
        } else {
            // SAFETY: `first` asserts that all of A, of B and of C and the output are within their slices, and
            // that the bias is as long as its axis; C overlaps nothing, being borrowed exclusively. What was
            // packed has as many columns and more.
            unsafe { blocks::<T, S>(&product, b_row, first) };
        }
        self.finish::<S>();
    }
}

impl<T: Float> Gemm<'_, T> {
    /// Gives the first elements of the operands.
    ///
    /// # Panics
    ///
    /// If a matrix is not within its slice, or the bias not as long as its axis: what is computed from there on
    /// stays within.
    #[inline(always)]
    pub(super) fn first(&mut self) -> Panel<T> {
        let product = self.product;
        let Product { m, n, k, .. } = *product;
        assert_covers(self.a, (m, k), product.a);
        assert_covers(self.b, (k, n), product.b);
        assert_covers(self.c, (m, n), product.c);
        debug_assert_eq!(product.c.column, 1, "the product is oriented");
        let bias = match (self.bias, product.bias) {
            (None, _) => Bias::None,
            (Some(bias), BiasAxis::Rows) => {
                assert_eq!(bias.len(), m, "a bias has a number for each row");
                Bias::Rows(bias.as_ptr())
            }
            (Some(bias), BiasAxis::Columns) => {
                assert_eq!(bias.len(), n, "a bias has a number for each column");
                Bias::Columns(bias.as_ptr())
            }
        };
        let output = match (product.finish, self.output) {
            (Finish::ReluGradient, Some(output)) => {
                assert!(output.len() >= self.c.len(), "the output lies as the gradient does");
                output.as_ptr()
            }
            _ => ptr::null(),
        };
        Panel { a: self.a.as_ptr(), b: self.b.as_ptr(), c: self.c.as_mut_ptr(), output, bias }
    }

    /// Computes the sums of a product of several groups. Those of later ones wait in a second place, a tile at a time,
    /// before they are added.
    #[inline(always)]
    fn by_groups(&mut self) {
        const HIGH: usize = 8;
        const WIDE: usize = 2 * MAX_LANES;
        let whole = if self.product.packs() { self.product.packed() } else { *self.product };
        let whole = Product { finish: Finish::Sum, ..whole };
        let b = if self.product.packs() { &*self.scratch } else { self.b };
        let mut waiting = [T::default(); HIGH * WIDE];
        let tiles = (0..whole.n).step_by(WIDE);
        let tiles =
            tiles.flat_map(|column| (0..whole.m).step_by(HIGH).map(move |row| (row, column)));
        for (row, column) in tiles {
            let (m, n) = (HIGH.min(whole.m - row), WIDE.min(whole.n - column));
            let in_c = row * whole.c.row + column;
            for start in (0..whole.k).step_by(GROUP) {
                let k = GROUP.min(whole.k - start);
                let c = if start == 0 { whole.c } else { Strides { row: WIDE, column: 1 } };
                let product = &Product { m, n, k, c, ..whole };
                let a = &self.a[row * whole.a.row + start * whole.a.column..];
                let b = &b[start * whole.b.row + column * whole.b.column..];
                let c = if start == 0 { &mut self.c[in_c..] } else { &mut waiting[..] };
                dispatch(Gemm { product, a, b, bias: None, output: None, c, scratch: &mut [] });
                for row in 0..if start == 0 { 0 } else { m } {
                    let c = &mut self.c[in_c + row * whole.c.row..][..n];
                    let sums = c.iter_mut().zip(&waiting[row * WIDE..]);
                    sums.for_each(|(total, &sum)| *total = *total + sum);
                }
            }
        }
    }

    /// Does what follows the sums and is not done while they are in registers.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(self) {
        let Gemm { product, bias, output, c, .. } = self;
        let Product { m, n, k, finish, .. } = *product;
        let is_long = k > GROUP;
        let activation = match finish {
            Finish::Activation(kind) if is_long || kind != ActivationKind::Relu => Some(kind),
            _ => None,
        };
        if !is_long && activation.is_none() {
            return;
        }
        for row in 0..m {
            let at = row * product.c.row;
            let c = &mut c[at..at + n];
            if let Some(bias) = bias.filter(|_| is_long) {
                match product.bias {
                    BiasAxis::Rows => c.iter_mut().for_each(|c| *c = *c + bias[row]),
                    BiasAxis::Columns => c.iter_mut().zip(bias).for_each(|(c, &b)| *c = *c + b),
                }
            }
            if let Some(kind) = activation {
                activate::<T, S>(kind, c);
            }
            if let (true, Finish::ReluGradient, Some(output)) = (is_long, finish, output) {
                let is_off = |output: T| output == T::default();
                let pairs = c.iter_mut().zip(&output[at..]);
                pairs.filter(|(_, output)| is_off(**output)).for_each(|(c, _)| *c = T::default());
            }
        }
    }
}

/// Computes a product of one group, block after block of `k`.
///
/// # Safety
///
/// As [`Block::columns`], for all of the product; `b_row` is the row stride of what `panel.b` points to.
#[inline(always)]
unsafe fn blocks<T: Float, S: Simd>(product: &Product, b_row: usize, mut panel: Panel<T>) {
    let Product { m, n, k, a, c, finish, .. } = *product;
    let is_relu = finish == Finish::Activation(ActivationKind::Relu);
    let (a_row, a_column, c_row) = (a.row, a.column, c.row);
    let mut start = 0;
    loop {
        let length = CHAIN.min(k - start);
        // What follows the sums is done while they are in registers.
        let ends = start + length == k;
        let (adds, relu) = (start > 0, is_relu && ends);
        let block = Block { m, k: length, a_row, a_column, b_row, c_row, adds, relu };
        let from = if ends { panel } else { panel.unfinished() };
        // Loops by hand: `step_by` divides to count its steps, which takes as long as a small product.
        let mut column = 0;
        while column < n {
            let at = from.further(column, from.b.wrapping_add(column));
            // SAFETY: as the caller promises.
            unsafe { block.columns::<T, S>(n - column, at) };
            column += 2 * <T::Lanes<S> as Lanes<T>>::N;
        }
        if ends {
            return;
        }
        panel.a = panel.a.wrapping_add(length * a_column);
        panel.b = panel.b.wrapping_add(length * b_row);
        start += length;
    }
}

/// Applies an activation to a row of `C`.
#[inline(always)]
pub(super) fn activate<T: Float, S: Simd>(activation: ActivationKind, c: &mut [T]) {
    for c in c.chunks_mut(<T::Lanes<S> as Lanes<T>>::N) {
        // SAFETY: as many lanes are read and written as the chunk is long.
        unsafe {
            let sums = T::Lanes::<S>::load_first(c.as_ptr(), c.len());
            activation.apply(Vector::<T, S>(sums)).0.store_first(c.as_mut_ptr(), c.len());
        }
    }
}

/// Asserts that a matrix of `size` with these strides lies within `slice`.
#[inline(always)]
pub(super) fn assert_covers<T>(slice: &[T], size: (usize, usize), strides: Strides) {
    let (rows, columns) = size;
    if rows > 0 && columns > 0 {
        let last = (rows - 1) * strides.row + (columns - 1) * strides.column;
        assert!(last < slice.len(), "a matrix lies within its slice");
    }
}

/// Copies the `k` rows of `B` next to each other, [`packed_width`] elements from row to row.
#[inline(always)]
pub(super) fn pack_rows<T: Float, S: Simd>(product: &Product, b: &[T], to: &mut [T]) {
    let Product { n, k, b: strides, .. } = *product;
    let width = packed_width(n);
    if strides.row == 1 {
        transpose::<T, S>(b, strides.column, to, width, n, k);
        return;
    }
    for row in 0..k {
        for column in 0..n {
            to[row * width + column] = b[row * strides.row + column * strides.column];
        }
    }
}
