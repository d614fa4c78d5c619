//! The register tile of matrix products: a few rows by two vectors of `C`, one block of `k` long.
#![expect(unsafe_code, reason = "the register tile reads and writes through pointers")]

use super::simd::{Float, Lanes, Simd};

/// Where a bias starts.
#[derive(Clone, Copy)]
pub(super) enum Bias<T> {
    None,
    Rows(*const T),
    Columns(*const T),
}

/// The first elements of the operands of a panel of columns.
#[derive(Clone, Copy)]
pub(super) struct Panel<T> {
    pub(super) a: *const T,
    pub(super) b: *const T,
    pub(super) c: *mut T,
    /// Null if there is none.
    pub(super) output: *const T,
    pub(super) bias: Bias<T>,
}

impl<T> Panel<T> {
    /// Gives the panel some columns further on in `C`, whose `B` is elsewhere.
    #[inline(always)]
    pub(super) fn further(self, columns: usize, b: *const T) -> Self {
        let Panel { a, c, output, bias, .. } = self;
        let output = if output.is_null() { output } else { output.wrapping_add(columns) };
        let bias = match bias {
            Bias::Columns(bias) => Bias::Columns(bias.wrapping_add(columns)),
            bias => bias,
        };
        Panel { a, b, c: c.wrapping_add(columns), output, bias }
    }

    /// Gives the panel without what follows its sums.
    #[inline(always)]
    pub(super) fn unfinished(self) -> Self {
        Panel { output: core::ptr::null(), bias: Bias::None, ..self }
    }

    /// Gives the panel some rows further down in `C`, whose `A` is elsewhere.
    #[inline(always)]
    pub(super) fn below(self, rows: usize, c_row: usize, a: *const T) -> Self {
        let Panel { b, c, output, bias, .. } = self;
        let at = rows * c_row;
        let output = if output.is_null() { output } else { output.wrapping_add(at) };
        let bias = match bias {
            Bias::Rows(bias) => Bias::Rows(bias.wrapping_add(rows)),
            bias => bias,
        };
        Panel { a, b, c: c.wrapping_add(at), output, bias }
    }
}

/// What all register tiles of a block share.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) m: usize,
    /// At most [`CHAIN`](super::gemm::CHAIN): every sum is one chain.
    pub(super) k: usize,
    pub(super) a_row: usize,
    pub(super) a_column: usize,
    pub(super) b_row: usize,
    pub(super) c_row: usize,
    /// Whether `C` holds the sum of the blocks before, to which this one is added.
    pub(super) adds: bool,
    /// Whether to end with a ReLU: the one activation short enough not to push the sums out of their
    /// registers. Others pass over `C` once more.
    pub(super) relu: bool,
}

impl Block {
    /// Computes all rows of a panel of `width` columns, two vectors of them at most.
    ///
    /// # Safety
    ///
    /// The pointers are to the first elements of matrices that have that many rows and columns, with the
    /// strides in `self`; `c` overlaps none of the others.
    #[inline(always)]
    pub(super) unsafe fn columns<T: Float, S: Simd>(&self, width: usize, panel: Panel<T>) {
        let lanes = <T::Lanes<S> as Lanes<T>>::N;
        // SAFETY: as the caller promises.
        unsafe {
            if width >= 2 * lanes {
                self.panel::<T, S, 2, true>(lanes, panel);
            } else if width > lanes {
                self.panel::<T, S, 2, false>(width - lanes, panel);
            } else if width == lanes {
                self.panel::<T, S, 1, true>(lanes, panel);
            } else {
                self.panel::<T, S, 1, false>(width, panel);
            }
        }
    }

    /// Computes all rows of a panel of `VECTORS` vectors of columns, the last of which has `last` lanes (all
    /// if `FULL`).
    ///
    /// # Safety
    ///
    /// As [`columns`](Block::columns).
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
        if self.adds {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let is_last = vector + 1 == VECTORS;
                    let at = (row + i) * self.c_row + vector * lanes;
                    // SAFETY: see above.
                    let before = unsafe { load::<T, S, FULL>(panel.c.add(at), is_last, last) };
                    *sum = before.add(*sum);
                }
            }
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
                        V::<T, S>::zero_where(output.eq(zero), sum)
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
