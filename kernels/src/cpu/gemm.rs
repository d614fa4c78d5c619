//! Matrix products for small matrices: `C = A · B`, then bias and activation.
//!
//! **Order of sums.** Every element of `C` is the chain `fma(a_k, b_k, … fma(a_0, b_0, 0))` over `k` in
//! order, whatever the layouts, the blocking and the instruction set's width. So a product has the same
//! bits in every layout, and a plan may choose layouts freely. Only dot products (few rows) and the
//! `gemm` crate (large products) add in another order; which one is used follows from the sizes alone.
//!
//! **Plan of the loops.** Vectors run along the axis of `C` that is contiguous, called `n`; if that is the
//! rows' axis, the transposed product is computed. `B` must be contiguous along `n`: if it is not, a panel
//! of it is packed. A register tile of `GEMM_ROWS × 2` vectors runs over the whole of `k`; elements of `A`
//! are broadcast from wherever they lie.
#![expect(unsafe_code, reason = "the register tile reads and writes through pointers")]

use core::ptr;

use super::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized};
use super::transpose::transpose;
use crate::ops::activation::ActivationKind;

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
    fn run<S: Simd>(self) {
        let Gemm { product, a, b, c, scratch, .. } = self;
        let Product { m, n, k, .. } = *product;
        if m == 0 || n == 0 {
            return;
        }
        assert_covers(a, (m, k), product.a);
        assert_covers(b, (k, n), product.b);
        assert_covers(c, (m, n), product.c);
        debug_assert_eq!(product.c.column, 1, "the product is oriented");
        let (b, b_row) = if product.packs() {
            pack_rows::<T, S>(product, b, scratch);
            (&*scratch, packed_width(n))
        } else {
            (b, product.b.row)
        };
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
                assert!(output.len() >= c.len(), "the output lies as the gradient does");
                output.as_ptr()
            }
            _ => ptr::null(),
        };
        let block = Block {
            m,
            k,
            a_row: product.a.row,
            a_column: product.a.column,
            b_row,
            c_row: product.c.row,
            relu: product.finish == Finish::Activation(ActivationKind::Relu),
        };
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let mut column = 0;
        while column < n {
            // SAFETY: the assertions above say that all of A, `[..k, column..n]` of B and `[..m, column..n]`
            // of C and of the output are within their slices, and the bias is as long as its axis; C
            // overlaps nothing, being borrowed exclusively.
            unsafe {
                let panel = Panel {
                    a: a.as_ptr(),
                    b: b.as_ptr().add(column),
                    c: c.as_mut_ptr().add(column),
                    output: if output.is_null() { output } else { output.add(column) },
                    bias: match bias {
                        Bias::Columns(bias) => Bias::Columns(bias.add(column)),
                        bias => bias,
                    },
                };
                let width = n - column;
                if width >= 2 * lanes {
                    block.panel::<T, S, 2, true>(lanes, panel);
                } else if width > lanes {
                    block.panel::<T, S, 2, false>(width - lanes, panel);
                } else if width == lanes {
                    block.panel::<T, S, 1, true>(lanes, panel);
                } else {
                    block.panel::<T, S, 1, false>(width, panel);
                }
            }
            column += 2 * lanes;
        }
        if let Finish::Activation(activation) = product.finish
            && !block.relu
        {
            for row in 0..m {
                activate::<T, S>(activation, &mut c[row * product.c.row..][..n]);
            }
        }
    }
}

/// Applies an activation to a row of `C`.
#[inline(always)]
pub(super) fn activate<T: Float, S: Simd>(activation: ActivationKind, c: &mut [T]) {
    for c in c.chunks_mut(<T::Lanes<S> as Lanes<T>>::N) {
        // SAFETY: as many lanes are read and written as the chunk is long.
        unsafe {
            let sums = T::Lanes::<S>::load_first(c.as_ptr(), c.len());
            activation.apply::<T, S>(sums).store_first(c.as_mut_ptr(), c.len());
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

/// Where a bias starts.
#[derive(Clone, Copy)]
enum Bias<T> {
    None,
    Rows(*const T),
    Columns(*const T),
}

/// The first elements of the operands of a panel of columns.
#[derive(Clone, Copy)]
struct Panel<T> {
    a: *const T,
    b: *const T,
    c: *mut T,
    /// Null if there is none.
    output: *const T,
    bias: Bias<T>,
}

/// What all register tiles of a product share.
#[derive(Clone, Copy)]
struct Block {
    m: usize,
    k: usize,
    a_row: usize,
    a_column: usize,
    b_row: usize,
    c_row: usize,
    /// Whether to end with a ReLU: the one activation short enough not to push the sums out of their
    /// registers. Others pass over `C` once more.
    relu: bool,
}

impl Block {
    /// Computes all rows of a panel of `VECTORS` vectors of columns, the last of which has `last` lanes (all
    /// if `FULL`).
    ///
    /// # Safety
    ///
    /// The pointers are to the first elements of matrices that have that many rows and columns, with the
    /// strides in `self`; `c` overlaps none of the others.
    #[inline(always)]
    unsafe fn panel<T: Float, S: Simd, const VECTORS: usize, const FULL: bool>(
        &self,
        last: usize,
        panel: Panel<T>,
    ) {
        let mut row = 0;
        // A panel one vector wide leaves registers for twice the rows.
        while VECTORS == 1 && S::GEMM_ROWS == 8 && row + 16 <= self.m {
            // SAFETY: as the caller promises, for the rows from `row` on that there are.
            unsafe { self.tile::<T, S, 16, VECTORS, FULL>(row, last, panel) };
            row += 16;
        }
        while row + S::GEMM_ROWS <= self.m {
            // SAFETY: as the caller promises, for the rows from `row` on that there are.
            unsafe {
                match S::GEMM_ROWS {
                    8 => self.tile::<T, S, 8, VECTORS, FULL>(row, last, panel),
                    6 => self.tile::<T, S, 6, VECTORS, FULL>(row, last, panel),
                    _ => self.tile::<T, S, 4, VECTORS, FULL>(row, last, panel),
                }
            }
            row += S::GEMM_ROWS.clamp(4, 8);
        }
        if row + 4 <= self.m {
            // SAFETY: see above.
            unsafe { self.tile::<T, S, 4, VECTORS, FULL>(row, last, panel) };
            row += 4;
        }
        if row + 2 <= self.m {
            // SAFETY: see above.
            unsafe { self.tile::<T, S, 2, VECTORS, FULL>(row, last, panel) };
            row += 2;
        }
        while row < self.m {
            // SAFETY: see above.
            unsafe { self.tile::<T, S, 1, VECTORS, FULL>(row, last, panel) };
            row += 1;
        }
    }

    /// The register tile: `ROWS × VECTORS` vectors from row `row` on.
    ///
    /// # Safety
    ///
    /// As [`panel`](Block::panel), and there are `ROWS` rows from `row` on.
    #[inline(always)]
    unsafe fn tile<T: Float, S: Simd, const ROWS: usize, const VECTORS: usize, const FULL: bool>(
        &self,
        row: usize,
        last: usize,
        panel: Panel<T>,
    ) {
        type V<T, S> = <T as Float>::Lanes<S>;
        let lanes = V::<T, S>::N;
        // SAFETY (all blocks below): the addresses are those of elements that the caller promises; the
        // last vector of a row is read and written by its first `last` lanes only unless it is full.
        let mut sums = [[V::<T, S>::splat(T::default()); VECTORS]; ROWS];
        let mut a = panel.a.wrapping_add(row * self.a_row);
        let mut b = panel.b;
        for _ in 0..self.k {
            let mut columns = [V::<T, S>::splat(T::default()); VECTORS];
            for (vector, column) in columns.iter_mut().enumerate() {
                let is_last = vector + 1 == VECTORS;
                // SAFETY: see above.
                *column = unsafe { load::<T, S, FULL>(b.add(vector * lanes), is_last, last) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: see above.
                let factor = V::<T, S>::splat(unsafe { *a.add(i * self.a_row) });
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = factor.mul_add(column, *sum);
                }
            }
            a = a.wrapping_add(self.a_column);
            b = b.wrapping_add(self.b_row);
        }
        match panel.bias {
            Bias::None => {}
            Bias::Rows(bias) => {
                for (i, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: see above.
                    let bias = V::<T, S>::splat(unsafe { *bias.add(row + i) });
                    for sum in sums.iter_mut() {
                        *sum = sum.add(bias);
                    }
                }
            }
            Bias::Columns(bias) => {
                for vector in 0..VECTORS {
                    let is_last = vector + 1 == VECTORS;
                    // SAFETY: see above.
                    let bias =
                        unsafe { load::<T, S, FULL>(bias.add(vector * lanes), is_last, last) };
                    for sums in &mut sums {
                        sums[vector] = sums[vector].add(bias);
                    }
                }
            }
        }
        let zero = V::<T, S>::splat(T::default());
        if self.relu {
            for sums in &mut sums {
                for sum in sums.iter_mut() {
                    *sum = zero.max(*sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                let is_last = vector + 1 == VECTORS;
                let at = (row + i) * self.c_row + vector * lanes;
                // SAFETY: see above.
                unsafe {
                    let sum = if panel.output.is_null() {
                        sum
                    } else {
                        let output = load::<T, S, FULL>(panel.output.add(at), is_last, last);
                        V::<T, S>::select(output.eq(zero), zero, sum)
                    };
                    if FULL || !is_last {
                        sum.store(panel.c.add(at));
                    } else {
                        sum.store_first(panel.c.add(at), last);
                    }
                }
            }
        }
    }
}

/// Reads a vector of a row: all its lanes, or the first `last` of the last vector unless it is `FULL`.
///
/// # Safety
///
/// `from` points to that many readable elements.
#[inline(always)]
unsafe fn load<T: Float, S: Simd, const FULL: bool>(
    from: *const T,
    is_last: bool,
    last: usize,
) -> T::Lanes<S> {
    // SAFETY: as the caller promises.
    unsafe {
        if FULL || !is_last {
            T::Lanes::<S>::load(from)
        } else {
            T::Lanes::<S>::load_first(from, last)
        }
    }
}
