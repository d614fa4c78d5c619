//! Large matrix products: factors are packed in blocks for the caches, and threads share the blocks of `C`.
//!
//! The order of sums is that of [`super::gemm`]. What is packed and the sizes of blocks are free: they change no bit.
#![expect(unsafe_code, reason = "threads write blocks of the same result")]

use core::ops::Range;

use super::cache::CacheSizes;
use super::gemm::{CHAIN, Finish, GROUP, Gemm, Product};
use super::register_tile::{Block, Panel};
use super::share::{Divisible, share_out};
use super::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized, dispatch};
use super::transpose::transpose;
use crate::execute::executor::with_scratch;
use crate::ops::activation::fused::ActivationKind;

/// Columns of `C` that are computed together.
const COLUMNS: usize = 1024;

/// Rows of `C` that are computed together if there are several groups of `k`, whose sums wait in a second place.
const ROWS: usize = 1024;

/// Products along `k` whose `B` is packed at a time: whole blocks, and a part of a group.
const DEPTH: usize = 4 * CHAIN;

/// Columns that the register tiles of every instruction set divide.
const WIDTH: usize = 2 * MAX_LANES;

/// Rows that the register tiles of every instruction set divide.
const HEIGHT: usize = 24;

/// With more rows than that, it pays to pack a `B` whose columns lie one behind the other: of 32 rows a product takes
/// 0.93 of the time unpacked, of 128 more than packed.
const FEW_ROWS: usize = 64;

/// With more columns than that, it pays to pack an `A` whose columns lie one behind the other: of 32 columns a product
/// takes 0.8 of the time unpacked, of 1,024 1.02.
const FEW_COLUMNS: usize = 256;

/// So many elements are worth a thread that packs them.
const WORTH_PACKING: usize = 1 << 14;

/// Computes a product, oriented, and what follows it; on the threads of the pool if `split`.
pub(super) fn multiply<T: Float>(mut gemm: Gemm<'_, T>, split: bool) {
    let threads = if split { rayon::current_num_threads() } else { 1 };
    let product = *gemm.product;
    let Product { m, n, k, .. } = product;
    let (first, b) = (gemm.first(), gemm.b);
    let most_rows = if k > GROUP { ROWS.min(m) } else { m };
    let most_columns = COLUMNS.min(n.next_multiple_of(WIDTH));
    let waiting = if k > GROUP { most_rows * most_columns } else { 0 };
    let packed = if product.packs_b() { DEPTH.min(k) * most_columns } else { 0 };
    with_scratch((packed + waiting) * size_of::<T>(), |scratch| {
        let (packed, waiting) = bytemuck::cast_slice_mut::<u8, T>(scratch).split_at_mut(packed);
        for columns in parts(0..n, COLUMNS) {
            for rows in parts(0..m, most_rows) {
                for depth in parts(0..k, DEPTH) {
                    let slab = Slab { product: &product, depth, columns: columns.clone() };
                    if product.packs_b() {
                        let to = &mut packed[..slab.packed_elements()];
                        share_out(PackB { slab: slab.clone(), b, to, threads });
                    }
                    let shared = Shared {
                        first,
                        rows: rows.clone(),
                        packed: packed.as_ptr(),
                        waiting: waiting.as_mut_ptr(),
                        slab,
                    };
                    let (rows, columns) = (rows.clone(), columns.clone());
                    share_out(Part { shared: &shared, rows, columns, threads });
                }
            }
        }
    });
    dispatch(End(gemm));
}

impl Product {
    /// Says whether the rows of `A` are packed.
    fn packs_a(&self) -> bool {
        self.a.column != 1 || self.n > FEW_COLUMNS
    }

    /// Says whether `B` is packed.
    fn packs_b(&self) -> bool {
        self.b.column != 1 || self.m > FEW_ROWS
    }
}

/// Cuts a range into parts of so many numbers, the last of which may be shorter.
fn parts(of: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = of;
    (start..end).step_by(most.max(1)).map(move |start| start..end.min(start + most))
}

/// What follows the sums.
struct End<'a, T>(Gemm<'a, T>);

impl<T: Float> Vectorized for End<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        self.0.finish::<S>();
    }
}

/// Some rows and columns of `B`.
#[derive(Clone)]
struct Slab<'a> {
    product: &'a Product,
    depth: Range<usize>,
    columns: Range<usize>,
}

impl Slab<'_> {
    /// Counts the columns when they are packed.
    fn width(&self) -> usize {
        self.columns.len().next_multiple_of(WIDTH)
    }

    fn packed_elements(&self) -> usize {
        self.depth.len() * self.width()
    }
}

/// The packing of a slab: block after block of `k`; in a block, panels of columns as wide as a register tile.
struct PackB<'a, T> {
    slab: Slab<'a>,
    b: &'a [T],
    to: &'a mut [T],
    threads: usize,
}

impl<T: Float> Divisible for PackB<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let PackB { slab, b, to, threads } = self;
        let Slab { product, depth, columns } = slab.clone();
        if threads < 2 || to.len() < WORTH_PACKING {
            return Err(PackB { slab, b, to, threads });
        }
        // A part of one block may be cut between columns: its panels lie one behind the other.
        let (first, second) = match depth.len() > CHAIN {
            true => {
                let at = depth.start + (depth.len() / 2).next_multiple_of(CHAIN);
                let of = |depth| Slab { product, depth, columns: columns.clone() };
                (of(depth.start..at), of(at..depth.end))
            }
            false if columns.len() > WIDTH => {
                let at = columns.start + (columns.len() / 2).next_multiple_of(WIDTH);
                let of = |columns| Slab { product, depth: depth.clone(), columns };
                (of(columns.start..at), of(at..columns.end))
            }
            false => return Err(PackB { slab, b, to, threads }),
        };
        let (upper, lower) = to.split_at_mut(first.packed_elements());
        let of = |slab, to, threads| PackB { slab, b, to, threads };
        Ok([of(first, upper, threads / 2), of(second, lower, threads - threads / 2)])
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T: Float> Vectorized for PackB<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let PackB { slab, b, to, .. } = self;
        let (panel, strides) = (2 * <T::Lanes<S> as Lanes<T>>::N, slab.product.b);
        let of_block = CHAIN * slab.width();
        for (depth, to) in parts(slab.depth.clone(), CHAIN).zip(to.chunks_mut(of_block)) {
            let k = depth.len();
            for (columns, to) in parts(slab.columns.clone(), panel).zip(to.chunks_mut(k * panel)) {
                let n = columns.len();
                let from = &b[depth.start * strides.row + columns.start * strides.column..];
                if strides.column == 1 && n == panel {
                    for (row, to) in to.chunks_exact_mut(panel).enumerate() {
                        copy_panel::<T, S>(&from[row * strides.row..], to);
                    }
                } else if strides.row == 1 {
                    transpose::<T, S>(from, strides.column, to, panel, n, k);
                } else {
                    for (row, to) in to.chunks_exact_mut(panel).enumerate() {
                        for (column, to) in to.iter_mut().enumerate().take(n) {
                            *to = from[row * strides.row + column * strides.column];
                        }
                    }
                }
            }
        }
    }
}

/// Copies a row of two vectors.
#[inline(always)]
fn copy_panel<T: Float, S: Simd>(from: &[T], to: &mut [T]) {
    let lanes = T::Lanes::<S>::N;
    let (from, to) = (&from[..2 * lanes], &mut to[..2 * lanes]);
    // SAFETY: both slices are two vectors long.
    unsafe {
        T::Lanes::<S>::load(from.as_ptr()).store(to.as_mut_ptr());
        T::Lanes::<S>::load(from.as_ptr().add(lanes)).store(to.as_mut_ptr().add(lanes));
    }
}

/// What the threads know that multiply by a packed slab.
struct Shared<'a, T> {
    slab: Slab<'a>,
    /// The operands of the whole product.
    first: Panel<T>,
    /// The rows of `C` whose sums may wait.
    rows: Range<usize>,
    packed: *const T,
    /// The sums of a later group, a row of [`Slab::width`] for each of `rows`.
    waiting: *mut T,
}

// SAFETY: what is read is only read, and each place of `C` and of what waits is written by one part alone.
unsafe impl<T: Float> Sync for Shared<'_, T> {}

/// Some rows and columns of `C`.
struct Part<'a, T> {
    shared: &'a Shared<'a, T>,
    rows: Range<usize>,
    columns: Range<usize>,
    threads: usize,
}

impl<T: Float> Divisible for Part<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let Part { shared, rows, columns, threads } = self;
        // A thread packs the rows of `A` for itself, so columns are cut where they are many more.
        let cuts_columns = columns.len() > 4 * rows.len();
        let cut = |range: &Range<usize>, unit: usize| {
            let at = range.len() * (threads / 2) / threads;
            range.start + at.next_multiple_of(unit)
        };
        let (at, end) = match cuts_columns {
            true => (cut(&columns, WIDTH), columns.end),
            false => (cut(&rows, 4), rows.end),
        };
        if threads < 2 || at >= end {
            return Err(Part { shared, rows, columns, threads });
        }
        let of = |rows, columns, threads| Part { shared, rows, columns, threads };
        let (one, other) = (threads / 2, threads - threads / 2);
        Ok(match cuts_columns {
            true => {
                let (left, right) = (columns.start..at, at..columns.end);
                [of(rows.clone(), left, one), of(rows, right, other)]
            }
            false => {
                let (upper, lower) = (rows.start..at, at..rows.end);
                [of(upper, columns.clone(), one), of(lower, columns, other)]
            }
        })
    }

    fn compute(self) {
        let rows = rows_of_a::<T>().min(self.rows.len().next_multiple_of(HEIGHT));
        let packed = if self.shared.slab.product.packs_a() { rows * CHAIN } else { 0 };
        with_scratch(packed * size_of::<T>(), |scratch| {
            dispatch(OnScratch { part: self, most: rows, a: bytemuck::cast_slice_mut(scratch) });
        });
    }
}

/// Gives how many rows of `A` are packed at a time: a half of the second cache holds a block of them.
fn rows_of_a<T>() -> usize {
    let rows = CacheSizes::current().l2_bytes / 2 / (CHAIN * size_of::<T>());
    (rows / HEIGHT * HEIGHT).clamp(2 * HEIGHT, 32 * HEIGHT)
}

/// A part that one thread computes.
struct OnScratch<'a, 's, T> {
    part: Part<'a, T>,
    /// So many rows at a time.
    most: usize,
    /// Where they are packed.
    a: &'s mut [T],
}

impl<T: Float> Vectorized for OnScratch<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let OnScratch { part: Part { shared, rows, columns, .. }, most, a } = self;
        for rows in parts(rows, most) {
            for depth in parts(shared.slab.depth.clone(), CHAIN) {
                if shared.slab.product.packs_a() {
                    pack_a::<T, S>(shared, &rows, &depth, a);
                }
                // SAFETY: what is packed of these rows and of the slab has been, and no other part has them.
                unsafe { shared.block::<S>(&rows, &columns, depth, a.as_ptr()) };
            }
        }
    }
}

/// Packs a block of some rows of `A`, in strips as high as a register tile.
#[inline(always)]
fn pack_a<T: Float, S: Simd>(
    shared: &Shared<'_, T>,
    rows: &Range<usize>,
    depth: &Range<usize>,
    to: &mut [T],
) {
    match S::GEMM_ROWS {
        8 => pack_strips::<T, 8>(shared, rows, depth, to),
        6 => pack_strips::<T, 6>(shared, rows, depth, to),
        _ => pack_strips::<T, 4>(shared, rows, depth, to),
    }
}

/// Packs them in strips of `HIGH` rows.
#[inline(always)]
fn pack_strips<T: Float, const HIGH: usize>(
    shared: &Shared<'_, T>,
    rows: &Range<usize>,
    depth: &Range<usize>,
    to: &mut [T],
) {
    let (strides, k) = (shared.slab.product.a, depth.len());
    let start = rows.start * strides.row + depth.start * strides.column;
    let from = shared.first.a.wrapping_add(start);
    let whole = rows.len() / HIGH;
    // SAFETY (all blocks below): these rows and columns are within `A`, as the slice was that the pointer comes from.
    match strides.row {
        // Column after column: each is read once, however many strips it is cut into.
        1 => {
            for i in 0..k {
                let from = from.wrapping_add(i * strides.column);
                for (strip, to) in to.chunks_exact_mut(HIGH * k).enumerate().take(whole) {
                    let from = from.wrapping_add(strip * HIGH).cast::<[T; HIGH]>();
                    // SAFETY: see above.
                    to[i * HIGH..][..HIGH].copy_from_slice(&unsafe { from.read() });
                }
            }
        }
        _ => {
            for (strip, to) in to.chunks_exact_mut(HIGH * k).enumerate().take(whole) {
                let from = from.wrapping_add(strip * HIGH * strides.row);
                for (i, to) in to.chunks_exact_mut(HIGH).enumerate() {
                    let from = from.wrapping_add(i * strides.column);
                    for (row, to) in to.iter_mut().enumerate() {
                        // SAFETY: see above.
                        *to = unsafe { *from.add(row * strides.row) };
                    }
                }
            }
        }
    }
    let from = from.wrapping_add(whole * HIGH * strides.row);
    for (i, to) in to[whole * HIGH * k..].chunks_exact_mut(HIGH).enumerate().take(k) {
        let from = from.wrapping_add(i * strides.column);
        for (row, to) in to.iter_mut().enumerate().take(rows.len() % HIGH) {
            // SAFETY: see above.
            *to = unsafe { *from.add(row * strides.row) };
        }
    }
}

impl<T: Float> Shared<'_, T> {
    /// Multiplies a block of some rows by that of the slab.
    ///
    /// # Safety
    ///
    /// `packed_a` and `packed` hold what is packed, and nobody else uses these rows and columns of `C` and of what waits.
    #[inline(always)]
    unsafe fn block<S: Simd>(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        depth: Range<usize>,
        packed_a: *const T,
    ) {
        let Shared { slab, first, packed, .. } = self;
        let product = slab.product;
        let Product { k, a, b, c, finish, .. } = *product;
        let (wide, high) = (2 * T::Lanes::<S>::N, S::GEMM_ROWS);
        let ends = depth.end == k && k <= GROUP;
        let waits = depth.start >= GROUP;
        // Where row 0 and column 0 would be.
        let origin = self.rows.start * slab.width() + slab.columns.start;
        let (to, c_row) = match waits {
            true => (self.waiting.wrapping_sub(origin), slab.width()),
            false => (first.c, c.row),
        };
        // Where this block begins in the factors, and strides there.
        let (of_a, a_strip, a_row, a_column) = match product.packs_a() {
            true => (packed_a, depth.len(), 1, high),
            false => {
                let start = rows.start * a.row + depth.start * a.column;
                (first.a.wrapping_add(start), a.row, a.row, a.column)
            }
        };
        let (of_b, b_panel, b_row) = match product.packs_b() {
            true => {
                let start = (depth.start - slab.depth.start) * slab.width();
                (packed.wrapping_add(start), depth.len(), wide)
            }
            false => {
                let start = depth.start * b.row + slab.columns.start;
                (first.b.wrapping_add(start), 1, b.row)
            }
        };
        let first = Panel { c: to, ..*first };
        let first = if ends { first } else { first.unfinished() };
        for column in columns.clone().step_by(wide) {
            let own = of_b.wrapping_add((column - slab.columns.start) * b_panel);
            let panel = first.further(column, own);
            for row in rows.clone().step_by(high) {
                let block = Block {
                    m: high.min(rows.end - row),
                    k: depth.len(),
                    a_row,
                    a_column,
                    b_row,
                    c_row,
                    adds: !depth.start.is_multiple_of(GROUP),
                    relu: ends && finish == Finish::Activation(ActivationKind::Relu),
                };
                let own = of_a.wrapping_add((row - rows.start) * a_strip);
                // SAFETY: as the caller promises; the whole product's operands were checked.
                unsafe {
                    block.columns::<T, S>(columns.end - column, panel.below(row, c_row, own));
                }
            }
        }
        if waits && (depth.end == k || depth.end.is_multiple_of(GROUP)) {
            for row in rows.clone() {
                for column in columns.clone() {
                    // SAFETY: as the caller promises; the group's sums have been written.
                    unsafe {
                        let sum = *to.wrapping_add(row * c_row + column);
                        let total = self.first.c.wrapping_add(row * c.row + column);
                        *total = *total + sum;
                    }
                }
            }
        }
    }
}
