//! How convolutions are computed: a block of the output's positions becomes the columns of a matrix, and the
//! sums are products of matrices.
//!
//! The block's columns hold, one below the other, the numbers that each position sees. Which positions make a
//! block follows from the shapes alone. The order of each sum is that of [`crate::cpu::gemm`], over what a position sees
//! and over the positions of all items, one behind the other. For the input it is the sum over the output's channels
//! for each position; these are added up in the order of blocks, within a block in that of the kernel's elements.

use core::marker::PhantomData;
use core::ops::Range;

use super::direct::Direct;
use super::geometry::Geometry;
use super::settings::Side;
use crate::cpu::gemm::{BiasAxis, CHAIN, Finish, GROUP, Gemm, Product, Strides};
use crate::cpu::kernel::Kernel;
use crate::cpu::scratch::with_scratch;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::{Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::ops::elementwise::number::Number;
use crate::ops::reduction::lines::{carve, scratch_bytes};

pub(super) struct ConvolutionKernel<T> {
    geometry: Geometry,
    side: Side,
    /// How it is computed without matrices, if it is.
    direct: Option<Direct>,
    has_bias: bool,
    /// Elements of scratch memory: for the matrix, the output's block, a block's sums of the weight, a group's, and
    /// what products pack.
    scratch: [usize; 5],
    element: PhantomData<T>,
}

impl<T: Number> ConvolutionKernel<T> {
    pub(super) fn new(geometry: Geometry, side: Side, has_bias: bool) -> Self {
        let columns = geometry.most_columns();
        let (channels, out) = (geometry.channels, geometry.out);
        let is_weight = side == Side::Weight;
        let at_once = if is_weight { geometry.channels_at_once() } else { channels };
        let taps = geometry.seen().checked_div(channels).unwrap_or(0);
        let seen = taps * at_once;
        let sum = if is_weight { seen * out } else { 0 };
        let is_long = is_weight && geometry.positions > GROUP;
        let group = if is_long { geometry.seen() * out } else { 0 };
        // The last channels may be one alone, whose product is turned.
        let packed = [at_once, channels.checked_rem(at_once).unwrap_or(0)].map(|channels| {
            let sizes = (columns, taps * channels);
            product(side, &geometry, geometry.results(side).0, sizes, columns).scratch_elements()
        });
        let packed = packed[0].max(packed[1]);
        let scratch = [seen * columns, out * columns, sum, group, packed];
        let direct = Direct::new(&geometry, side);
        ConvolutionKernel { geometry, side, direct, has_bias, scratch, element: PhantomData }
    }
}

/// Gives the product that a block of `columns` positions needs for so many channels of the result, where the matrix has
/// `gathered` rows; `y_row` is from row to row of the output's block.
fn product(
    side: Side,
    geometry: &Geometry,
    channels: usize,
    (columns, gathered): (usize, usize),
    y_row: usize,
) -> Product {
    let (seen, out) = (geometry.seen(), geometry.out);
    let of_input = channels * seen.checked_div(geometry.channels).unwrap_or(0);
    let rows = |row| Strides { row, column: 1 };
    let (matrix, weight, y) = (rows(columns), rows(seen), rows(y_row));
    let sums = rows(gathered);
    let (m, n, k, a, b, c) = match side {
        Side::Output => (channels, columns, seen, weight, matrix, y),
        Side::Input => (of_input, columns, out, weight.transposed(), y, matrix),
        Side::Weight => (channels, gathered, columns, y, matrix.transposed(), sums),
    };
    Product { m, n, k, a, b, c, bias: BiasAxis::Rows, finish: Finish::Sum }
}

/// Computes `c = a · b`.
#[inline(always)]
fn multiply<T: Number, S: Simd>(
    product: &Product,
    (a, b): (&[T], &[T]),
    bias: Option<&[T]>,
    c: &mut [T],
    scratch: &mut [T],
) {
    let (a, b) = if product.is_turned() { (b, a) } else { (a, b) };
    let product = &product.oriented();
    Gemm { product, a, b, bias, output: None, c, scratch }.run::<S>();
}

impl<T: Number> Kernel for ConvolutionKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let threads = if tile.split() { rayon::current_num_threads() } else { 1 };
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let part = Share {
                kernel: self,
                channels: 0..self.geometry.groups * self.geometry.results(self.side).0,
                a: inputs.get(0),
                b: inputs.get(1),
                bias: self.has_bias.then(|| inputs.get(2)),
                result: outputs.take(),
            };
            match part.is_worth_splitting(threads) {
                true => share_out(ForThreads { part, threads }),
                false => part.compute(scratch),
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        match &self.direct {
            Some(direct) => scratch_bytes::<T>(&direct.scratch()),
            None => scratch_bytes::<T>(&self.scratch),
        }
    }
}

/// From this many multiply-adds on, a convolution is split over threads.
const WORTH_SPLITTING: usize = 1 << 18;

/// Some channels of one model's result, counted over all groups.
struct Share<'a, T> {
    kernel: &'a ConvolutionKernel<T>,
    channels: Range<usize>,
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    /// Of the result, these channels alone.
    result: &'a mut [T],
}

impl<T: Number> Share<'_, T> {
    /// Says whether it is large, and its channels lie one behind the other.
    fn is_worth_splitting(&self, threads: usize) -> bool {
        let ConvolutionKernel { geometry, side, .. } = self.kernel;
        let products = geometry.positions * geometry.seen() * geometry.out * geometry.groups;
        let is_apart = self.result.len() == self.channels.len() * geometry.results(*side).1;
        threads > 1 && self.channels.len() > 1 && is_apart && products >= WORTH_SPLITTING
    }

    /// Computes it on this thread.
    fn compute(self, scratch: &mut [u8]) {
        match &self.kernel.direct {
            Some(direct) => dispatch(Directly { direct, part: self, scratch }),
            None => dispatch(OnScratch { part: self, scratch }),
        }
    }
}

/// A part for so many threads: each gathers what its channels need for itself.
struct ForThreads<'a, T> {
    part: Share<'a, T>,
    threads: usize,
}

impl<T: Number> Divisible for ForThreads<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let ForThreads { part, threads } = self;
        if threads < 2 || part.channels.len() < 2 {
            return Err(ForThreads { part, threads });
        }
        let Share { kernel, channels, a, b, bias, result } = part;
        let at = channels.start + channels.len() * (threads / 2) / threads;
        let at = at.max(channels.start + 1);
        let (upper, lower) =
            result.split_at_mut(result.len() / channels.len() * (at - channels.start));
        let of = |channels, result, threads| ForThreads {
            part: Share { kernel, channels, a, b, bias, result },
            threads,
        };
        Ok([
            of(channels.start..at, upper, threads / 2),
            of(at..channels.end, lower, threads - threads / 2),
        ])
    }

    fn compute(self) {
        with_scratch(self.part.kernel.scratch_bytes(), |scratch| self.part.compute(scratch));
    }
}

/// A part that one thread computes without matrices.
struct Directly<'a, 's, T> {
    direct: &'a Direct,
    part: Share<'a, T>,
    scratch: &'s mut [u8],
}

impl<T: Number> Vectorized for Directly<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Directly { direct, part: Share { channels, a, b, bias, result, .. }, scratch } = self;
        let scratch = carve::<T, 3>(scratch, direct.scratch());
        direct.run::<T, S>(channels, (a, b, bias), result, scratch);
    }
}

/// A part that one thread computes.
struct OnScratch<'a, 's, T> {
    part: Share<'a, T>,
    scratch: &'s mut [u8],
}

impl<T: Number> Vectorized for OnScratch<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let OnScratch { part: Share { kernel, channels: all, a, b, bias, result }, scratch } = self;
        let ConvolutionKernel { geometry, side, scratch: lens, .. } = kernel;
        let (seen, out) = (geometry.seen(), geometry.out);
        let (in_group, stride) = geometry.results(*side);
        let [matrix, block_of_y, sum, of_group, pack] = carve::<T, 5>(scratch, *lens);
        let is_empty = seen == 0 || out == 0;
        if *side == Side::Input || is_empty || geometry.positions == 0 {
            result.fill(T::default());
        }
        if is_empty {
            if let Some(bias) = bias {
                geometry.fill(&bias[all], result);
            }
            return;
        }
        // Where the part begins in the result.
        let base = all.start * stride;
        for group in 0..geometry.groups {
            let first = group * in_group;
            let channels = all.start.max(first)..all.end.min(first + in_group);
            if channels.is_empty() {
                continue;
            }
            let (n, from) = (channels.len(), channels.start - first);
            let of_weight = group * out * seen..(group + 1) * out * seen;
            let seen_channels = group * geometry.channels..(group + 1) * geometry.channels;
            for (number, block) in geometry.blocks.iter().enumerate() {
                let columns = geometry.columns(block);
                match side {
                    Side::Output => {
                        geometry.gather(a, seen_channels.clone(), block, matrix);
                        let product = product(*side, geometry, n, (columns, seen), stride);
                        let at = channels.start * stride - base
                            + geometry.offset_in_y(&geometry.runs[block.start]);
                        let bias = bias.map(|bias| &bias[channels.clone()]);
                        let factors = (&b[of_weight.clone()][from * seen..], &*matrix);
                        multiply::<T, S>(&product, factors, bias, &mut result[at..], pack);
                    }
                    Side::Input => {
                        let (y, row) = geometry.outputs(a, group, block, block_of_y);
                        let product = product(*side, geometry, n, (columns, seen), row);
                        let at = from * (seen / geometry.channels);
                        let factors = (&b[of_weight.clone()][at..], y);
                        multiply::<T, S>(&product, factors, None, matrix, pack);
                        geometry.scatter(matrix, channels.clone(), block, result, base);
                    }
                    Side::Weight => {
                        let (y, row) = geometry.outputs(b, group, block, block_of_y);
                        let at = channels.start * seen - base;
                        let total = &mut result[at..at + n * seen];
                        // Later groups of blocks wait until they are whole.
                        let (in_group, blocks) = (number % (GROUP / CHAIN), GROUP / CHAIN);
                        let waits = number >= blocks;
                        let to = if waits { &mut of_group[..n * seen] } else { &mut *total };
                        let mut place = 0;
                        for first in seen_channels.clone().step_by(geometry.channels_at_once()) {
                            let some =
                                first..seen_channels.end.min(first + geometry.channels_at_once());
                            let gathered = some.len() * (seen / geometry.channels);
                            geometry.gather(a, some, block, matrix);
                            let product = product(*side, geometry, n, (columns, gathered), row);
                            let factors = (&y[from * row..], &*matrix);
                            multiply::<T, S>(&product, factors, None, sum, pack);
                            let lines = to.chunks_exact_mut(seen).zip(sum.chunks_exact(gathered));
                            for (to, sum) in lines.take(n) {
                                add(sum, &mut to[place..place + gathered], in_group > 0);
                            }
                            place += gathered;
                        }
                        let is_whole =
                            in_group + 1 == blocks || number + 1 == geometry.blocks.len();
                        if waits && is_whole {
                            add(&of_group[..n * seen], total, true);
                        }
                    }
                }
            }
        }
    }
}

/// Writes sums, added to what is there if `adds`.
#[inline(always)]
fn add<T: Number>(sums: &[T], to: &mut [T], adds: bool) {
    match adds {
        true => to.iter_mut().zip(sums).for_each(|(to, &sum)| *to = *to + sum),
        false => to.copy_from_slice(sums),
    }
}
