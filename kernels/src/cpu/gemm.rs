//! Matrix products for small matrices: `C = A · B`, then bias and activation.
//!
//! **Order of sums.** Every element of `C` is the chain `fma(a_k, b_k, … fma(a_0, b_0, 0))` over `k` in
//! order, whatever the layouts, the blocking and the instruction set's width. So a product has the same
//! bits in every layout, and a plan may choose layouts freely. Only [`dot`](super::dot) (few rows) and the
//! `gemm` crate (large products) add in another order; which one is used follows from the sizes alone.
//!
//! **Plan of the loops.** Vectors run along the axis of `C` that is contiguous, called `n`; if that is the
//! rows' axis, the transposed product is computed. `B` must be contiguous along `n`: if it is not, a panel
//! of it is packed. A register tile of `GEMM_ROWS × 2` vectors runs over the whole of `k`; elements of `A`
//! are broadcast from wherever they lie.
#![expect(unsafe_code, reason = "the register tile reads and writes through pointers")]

use super::simd::{Float, Lanes, Simd, Vectorized};
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
    /// Applied to each element last.
    pub activation: Option<ActivationKind>,
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

    /// Says whether `B` must be packed; the product is [oriented](Product::oriented).
    fn packs(&self) -> bool {
        self.b.column != 1 && self.n > 1
    }

    /// Gives the number of elements of scratch memory that [`Gemm`] needs.
    pub fn scratch_elements(&self) -> usize {
        let product = self.oriented();
        if product.packs() { product.k * product.n.next_multiple_of(16) } else { 0 }
    }
}

/// Computes a product with vectors.
pub struct Gemm<'a, T> {
    /// What is computed.
    pub product: Product,
    /// `A`.
    pub a: &'a [T],
    /// `B`.
    pub b: &'a [T],
    /// Added to `C` along [`Product::bias`].
    pub bias: Option<&'a [T]>,
    /// `C`, overwritten.
    pub c: &'a mut [T],
    /// At least [`Product::scratch_elements`] elements.
    pub scratch: &'a mut [T],
}

impl<T: Float> Vectorized for Gemm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (a, b) = if self.product.is_turned() { (self.b, self.a) } else { (self.a, self.b) };
        let product = self.product.oriented();
        let Product { m, n, k, .. } = product;
        if m == 0 || n == 0 {
            return;
        }
        assert_covers(a, (m, k), product.a);
        assert_covers(b, (k, n), product.b);
        assert_covers(self.c, (m, n), product.c);
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), if product.bias == BiasAxis::Rows { m } else { n }, "bias");
        }
        let (b, b_row) = if product.packs() {
            let width = n.next_multiple_of(16);
            if product.b.row == 1 {
                transpose::<T, S>(b, product.b.column, self.scratch, width, n, k);
            } else {
                pack(b, product.b, self.scratch, width, k, n);
            }
            (&*self.scratch, width)
        } else {
            (b, product.b.row)
        };
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        let tile = Block {
            k,
            a_row: product.a.row,
            a_column: product.a.column,
            b_row,
            c_row: product.c.row,
            relu: product.activation == Some(ActivationKind::Relu),
        };
        let mut column = 0;
        while column < n {
            let width = (n - column).min(2 * lanes);
            let mut row = 0;
            while row < m {
                let rows = (m - row).min(S::GEMM_ROWS);
                // SAFETY: the assertions above say that elements `[row.., ..k]` of A, `[..k, column..]` of
                // B and `[row.., column..]` of C are within their slices for `rows` rows and `width`
                // columns, of which no more than there are were asked for; C overlaps neither, being
                // borrowed exclusively.
                unsafe {
                    let a = a.as_ptr().add(row * product.a.row);
                    let b = b.as_ptr().add(column);
                    let c = self.c.as_mut_ptr().add(row * product.c.row + column);
                    let bias = match (self.bias, product.bias) {
                        (None, _) => Bias::None,
                        (Some(bias), BiasAxis::Rows) => Bias::Rows(bias.as_ptr().add(row)),
                        (Some(bias), BiasAxis::Columns) => Bias::Columns(bias.as_ptr().add(column)),
                    };
                    tile.run::<T, S>(rows, width, a, b, c, bias);
                }
                row += rows;
            }
            column += width;
        }
        if let Some(activation) = product.activation.filter(|_| !tile.relu) {
            for row in 0..m {
                activate::<T, S>(activation, &mut self.c[row * product.c.row..][..n]);
            }
        }
    }
}

/// Applies an activation to a row of `C`.
#[inline(always)]
fn activate<T: Float, S: Simd>(activation: ActivationKind, c: &mut [T]) {
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
fn assert_covers<T>(slice: &[T], size: (usize, usize), strides: Strides) {
    let (rows, columns) = size;
    if rows > 0 && columns > 0 {
        let last = (rows - 1) * strides.row + (columns - 1) * strides.column;
        assert!(last < slice.len(), "a matrix lies within its slice");
    }
}

/// Copies a matrix of any strides into rows of `width` elements.
#[inline(always)]
fn pack<T: Float>(b: &[T], strides: Strides, to: &mut [T], width: usize, k: usize, n: usize) {
    for row in 0..k {
        for column in 0..n {
            to[row * width + column] = b[row * strides.row + column * strides.column];
        }
    }
}

/// The bias of a register tile, from its first row or column on.
#[derive(Clone, Copy)]
enum Bias<T> {
    None,
    Rows(*const T),
    Columns(*const T),
}

/// What all register tiles of a product share.
#[derive(Clone, Copy)]
struct Block {
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
    /// Computes `rows ≤ GEMM_ROWS` rows and `width ≤ 2 · N` columns.
    ///
    /// # Safety
    ///
    /// `a`, `b`, `c` and `bias` point to the first elements of matrices that have that many rows and
    /// columns, with the strides in `self`; `c` overlaps none of the others.
    #[inline(always)]
    unsafe fn run<T: Float, S: Simd>(
        &self,
        rows: usize,
        width: usize,
        a: *const T,
        b: *const T,
        c: *mut T,
        bias: Bias<T>,
    ) {
        macro_rules! tiles {
            ($($rows:literal),*) => {
                match rows {
                    // SAFETY: as the caller promises.
                    $($rows => unsafe { self.columns::<T, S, $rows>(width, a, b, c, bias) },)*
                    _ => unreachable!("GEMM_ROWS is at most 8"),
                }
            };
        }
        tiles!(1, 2, 3, 4, 5, 6, 7, 8);
    }

    /// # Safety
    ///
    /// As [`run`](Block::run), with `ROWS` rows.
    #[inline(always)]
    unsafe fn columns<T: Float, S: Simd, const ROWS: usize>(
        &self,
        width: usize,
        a: *const T,
        b: *const T,
        c: *mut T,
        bias: Bias<T>,
    ) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        // SAFETY: as the caller promises; full vectors are used only where there are as many columns.
        unsafe {
            if width == 2 * lanes {
                self.tile::<T, S, ROWS, 2, true>(lanes, a, b, c, bias);
            } else if width > lanes {
                self.tile::<T, S, ROWS, 2, false>(width - lanes, a, b, c, bias);
            } else if width == lanes {
                self.tile::<T, S, ROWS, 1, true>(lanes, a, b, c, bias);
            } else {
                self.tile::<T, S, ROWS, 1, false>(width, a, b, c, bias);
            }
        }
    }

    /// The register tile: `ROWS × VECTORS` vectors, the last of which has `last` lanes (all if `FULL`).
    ///
    /// # Safety
    ///
    /// As [`run`](Block::run), with `ROWS` rows and `(VECTORS - 1) · N + last` columns.
    #[inline(always)]
    unsafe fn tile<T: Float, S: Simd, const ROWS: usize, const VECTORS: usize, const FULL: bool>(
        &self,
        last: usize,
        a: *const T,
        b: *const T,
        c: *mut T,
        bias: Bias<T>,
    ) {
        type V<T, S> = <T as Float>::Lanes<S>;
        let lanes = V::<T, S>::N;
        // SAFETY (all blocks below): the addresses are those of elements that the caller promises; the
        // last vector of a row is read and written by its first `last` lanes only unless it is full.
        let load = |from: *const T, vector: usize| unsafe {
            let from = from.add(vector * lanes);
            if FULL || vector + 1 < VECTORS {
                V::<T, S>::load(from)
            } else {
                V::<T, S>::load_first(from, last)
            }
        };
        let mut sums = [[V::<T, S>::splat(T::default()); VECTORS]; ROWS];
        let (mut a, mut b) = (a, b);
        for _ in 0..self.k {
            let row: [V<T, S>; VECTORS] = core::array::from_fn(|vector| load(b, vector));
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: see above.
                let factor = V::<T, S>::splat(unsafe { *a.add(i * self.a_row) });
                for (sum, &row) in sums.iter_mut().zip(&row) {
                    *sum = factor.mul_add(row, *sum);
                }
            }
            a = a.wrapping_add(self.a_column);
            b = b.wrapping_add(self.b_row);
        }
        match bias {
            Bias::None => {}
            Bias::Rows(bias) => {
                for (i, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: see above.
                    let bias = V::<T, S>::splat(unsafe { *bias.add(i) });
                    sums.iter_mut().for_each(|sum| *sum = sum.add(bias));
                }
            }
            Bias::Columns(bias) => {
                for vector in 0..VECTORS {
                    let bias = load(bias, vector);
                    sums.iter_mut().for_each(|sums| sums[vector] = sums[vector].add(bias));
                }
            }
        }
        if self.relu {
            let zero = V::<T, S>::splat(T::default());
            for sums in &mut sums {
                sums.iter_mut().for_each(|sum| *sum = zero.max(*sum));
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                // SAFETY: see above.
                unsafe {
                    let to = c.add(i * self.c_row + vector * lanes);
                    if FULL || vector + 1 < VECTORS {
                        sum.store(to);
                    } else {
                        sum.store_first(to, last);
                    }
                }
            }
        }
    }
}
