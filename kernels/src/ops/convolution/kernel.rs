//! How convolutions are computed: a block of the output's positions becomes the columns of a matrix, and the
//! sums are products of matrices.
//!
//! The block's columns hold, one below the other, the numbers that each position sees. Which positions make a
//! block follows from the shapes alone. The order of each sum is that of [`crate::cpu::gemm`], over what a position sees
//! and over the positions of all items, one behind the other. For the input it is the sum over the output's channels
//! for each position; these are added up in the order of blocks, within a block in that of the kernel's elements.

use core::marker::PhantomData;
use core::ops::Range;

use super::axes::{Axis, Planes, planes};
use super::direct::Direct;
use super::{Convolution, Side};
use crate::cpu::gemm::{BiasAxis, CHAIN, Finish, GROUP, Gemm, Product, Strides};
use crate::cpu::kernel::Kernel;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::{Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::execute::executor::with_scratch;
use crate::ir::shape::Operand;
use crate::ops::elementwise::number::Number;
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// Numbers of a block: 256 KiB of singles, a part of the second cache.
const BLOCK: usize = 1 << 16;

/// No block has more columns: enough for every vector, and rows stay within a page or two.
const MAX_COLUMNS: usize = 1024;

/// No block is made with fewer columns, if there are as many.
const MIN_COLUMNS: usize = 32;

/// Sizes and places of a convolution's three factors, with three spatial axes always.
#[derive(Debug)]
pub(super) struct Geometry {
    pub(super) axes: [Axis; 3],
    pub(super) groups: usize,
    /// Channels of the input in a group.
    pub(super) channels: usize,
    /// Channels of the output in a group.
    pub(super) out: usize,
    /// Positions of the output, those of all items.
    pub(super) positions: usize,
    /// Strides of items and channels of the input.
    pub(super) x: Planes,
    /// The same of the output.
    pub(super) y: Planes,
    /// Runs of positions.
    runs: Vec<Run>,
    /// Which runs make a block.
    blocks: Vec<Range<usize>>,
}

/// Positions one behind the other along the last axis.
#[derive(Clone, Copy, Debug)]
struct Run {
    item: usize,
    /// Place along the three spatial axes.
    at: [usize; 3],
    len: usize,
}

impl Geometry {
    pub(super) fn new(settings: &Convolution, side: Side, [x, weight, y]: [&Operand; 3]) -> Self {
        let mut axes = [Axis { x: 1, k: 1, y: 1, stride: 1, dilation: 1, low: 0 }; 3];
        let rank = settings.stride.len();
        for i in 0..rank {
            axes[3 - rank + i] = Axis {
                x: x.ty.shape[i + 2],
                k: weight.ty.shape[i + 2],
                y: y.ty.shape[i + 2],
                stride: settings.stride[i],
                dilation: settings.dilation[i],
                low: settings.padding[i].0,
            };
        }
        let (groups, items) = (settings.groups, x.ty.shape[0]);
        let of = |operand| planes(operand).unwrap_or(Planes { item: 0, channel: 0 });
        let mut geometry = Geometry {
            axes,
            groups,
            channels: weight.ty.shape[1],
            out: weight.ty.shape[0] / groups,
            positions: items * axes.iter().map(|axis| axis.y).product::<usize>(),
            x: of(x),
            y: of(y),
            runs: Vec::new(),
            blocks: Vec::new(),
        };
        geometry.divide(items, side);
        geometry
    }

    /// Divides the positions into runs, and those into blocks; if sums are over positions, into those of a sum.
    fn divide(&mut self, items: usize, side: Side) {
        let are_summed = side == Side::Weight;
        let columns = match are_summed {
            true => CHAIN,
            false => (BLOCK / self.seen().max(1)).clamp(MIN_COLUMNS, MAX_COLUMNS),
        };
        let [depth, height, width] = self.axes.map(|axis| axis.y);
        let lines = (0..items)
            .flat_map(|n| (0..depth).flat_map(move |d| (0..height).map(move |h| (n, d, h))));
        let mut taken = columns;
        for (item, d, h) in lines {
            let mut w = 0;
            while w < width {
                let room = if are_summed && taken < columns { columns - taken } else { columns };
                let len = room.min(width - w);
                if taken + len > columns {
                    self.blocks.push(self.runs.len()..self.runs.len());
                    taken = 0;
                }
                self.runs.push(Run { item, at: [d, h, w], len });
                taken += len;
                w += len;
                if let Some(block) = self.blocks.last_mut() {
                    block.end += 1;
                }
            }
        }
    }

    /// Counts what a position sees in its group.
    fn seen(&self) -> usize {
        self.channels * self.axes.iter().map(|axis| axis.k).product::<usize>()
    }

    /// Counts how many channels of the input are gathered at a time for the weight.
    fn channels_at_once(&self) -> usize {
        let taps = self.seen() / self.channels.max(1);
        (BLOCK / (CHAIN * taps.max(1))).clamp(1, self.channels.max(1))
    }

    /// Counts the positions of one item.
    fn plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.y).product()
    }

    /// Counts the positions of a block.
    fn columns(&self, block: &Range<usize>) -> usize {
        self.runs[block.clone()].iter().map(|run| run.len).sum()
    }

    fn most_columns(&self) -> usize {
        self.blocks.iter().map(|block| self.columns(block)).max().unwrap_or(0)
    }

    /// Gives the offset of a run in a channel of the output.
    fn offset_in_y(&self, run: &Run) -> usize {
        let [d, h, w] = run.at;
        run.item * self.y.item + (d * self.axes[1].y + h) * self.axes[2].y + w
    }

    /// Fills each of some channels of the output with its number of `bias`.
    fn fill<T: Number>(&self, bias: &[T], y: &mut [T]) {
        for run in &self.runs {
            for (channel, &bias) in bias.iter().enumerate() {
                let at = channel * self.y.channel + self.offset_in_y(run);
                y[at..at + run.len].fill(bias);
            }
        }
    }

    /// Counts the channels of the result, of each group, and the elements from one to the next. The weight's
    /// channels are those of the output.
    fn results(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Output => (self.out, self.y.channel),
            Side::Input => (self.channels, self.x.channel),
            Side::Weight => (self.out, self.seen()),
        }
    }

    /// Says whether the positions of all items lie one behind the other.
    fn is_joined(&self) -> bool {
        self.y.item == self.plane() || self.positions == self.plane()
    }

    /// Calls `f` for each place of a run as element `k` of the kernel in channel `channel` sees it, with its
    /// column, the columns that look within the input, and the offset where the first of them looks.
    #[inline(always)]
    fn each_view(
        &self,
        block: &Range<usize>,
        channel: usize,
        [kd, kh, kw]: [usize; 3],
        mut f: impl FnMut(Range<usize>, Range<usize>, usize),
    ) {
        let [depth, height, width] = &self.axes;
        let mut column = 0;
        for run in &self.runs[block.clone()] {
            let all = column..column + run.len;
            column = all.end;
            let (Some(d), Some(h)) = (depth.at(run.at[0], kd), height.at(run.at[1], kh)) else {
                f(all, 0..0, 0);
                continue;
            };
            let (within, w) = width.within(run.at[2], run.len, kw);
            let offset = run.item * self.x.item + channel * self.x.channel;
            f(all, within, offset + (d * height.x + h) * width.x + w);
        }
    }

    /// Calls `f` for each row that some channels have in a group's matrix: its number, counted from the first of
    /// them, its channel, its element of the kernel.
    #[inline(always)]
    fn each_row(&self, channels: Range<usize>, mut f: impl FnMut(usize, usize, [usize; 3])) {
        let [depth, height, width] = self.axes.map(|axis| axis.k);
        let mut row = 0;
        for channel in channels {
            for kd in 0..depth {
                for kh in 0..height {
                    for kw in 0..width {
                        f(row, channel, [kd, kh, kw]);
                        row += 1;
                    }
                }
            }
        }
    }

    /// Writes what the positions of a block see in some channels: a row for each channel and element of the kernel,
    /// a column for each position.
    #[inline(always)]
    fn gather<T: Number>(
        &self,
        x: &[T],
        channels: Range<usize>,
        block: &Range<usize>,
        matrix: &mut [T],
    ) {
        let columns = self.columns(block);
        let stride = self.axes[2].stride;
        self.each_row(channels, |row, channel, k| {
            let line = &mut matrix[row * columns..(row + 1) * columns];
            self.each_view(block, channel, k, |all, within, from| {
                let to = &mut line[all];
                to[..within.start].fill(T::default());
                to[within.end..].fill(T::default());
                let to = &mut to[within];
                match stride {
                    _ if to.is_empty() => {}
                    1 => to.copy_from_slice(&x[from..from + to.len()]),
                    _ => {
                        let from = x[from..].iter().step_by(stride);
                        to.iter_mut().zip(from).for_each(|(to, x)| *to = *x);
                    }
                }
            });
        });
    }

    /// Adds each number of some channels' rows of a block's matrix to what its position saw there; `x` begins
    /// with element `base` of the input.
    #[inline(always)]
    fn scatter<T: Number>(
        &self,
        matrix: &[T],
        channels: Range<usize>,
        block: &Range<usize>,
        x: &mut [T],
        base: usize,
    ) {
        let columns = self.columns(block);
        let stride = self.axes[2].stride;
        self.each_row(channels, |row, channel, k| {
            let line = &matrix[row * columns..(row + 1) * columns];
            self.each_view(block, channel, k, |all, within, to| {
                let to = to.saturating_sub(base);
                let from = &line[all][within];
                match stride {
                    _ if from.is_empty() => {}
                    1 => {
                        let to = &mut x[to..to + from.len()];
                        to.iter_mut().zip(from).for_each(|(x, &dx)| *x = *x + dx);
                    }
                    _ => {
                        let to = x[to..].iter_mut().step_by(stride);
                        to.zip(from).for_each(|(x, &dx)| *x = *x + dx);
                    }
                }
            });
        });
    }

    /// Gives a group's numbers of the output at a block's positions, and the elements from row to row: where
    /// they are, or in `scratch`.
    #[inline(always)]
    fn outputs<'a, T: Number>(
        &self,
        y: &'a [T],
        group: usize,
        block: &Range<usize>,
        scratch: &'a mut [T],
    ) -> (&'a [T], usize) {
        let start = group * self.out * self.y.channel;
        let runs = &self.runs[block.clone()];
        if self.is_joined() {
            return (&y[start + self.offset_in_y(&runs[0])..], self.y.channel);
        }
        let columns = self.columns(block);
        for row in 0..self.out {
            let mut to = &mut scratch[row * columns..(row + 1) * columns];
            for run in runs {
                let from = start + row * self.y.channel + self.offset_in_y(run);
                let (now, later) = to.split_at_mut(run.len);
                now.copy_from_slice(&y[from..from + run.len]);
                to = later;
            }
        }
        (scratch, columns)
    }
}

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
            let part = Part {
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
struct Part<'a, T> {
    kernel: &'a ConvolutionKernel<T>,
    channels: Range<usize>,
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    /// Of the result, these channels alone.
    result: &'a mut [T],
}

impl<T: Number> Part<'_, T> {
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
    part: Part<'a, T>,
    threads: usize,
}

impl<T: Number> Divisible for ForThreads<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let ForThreads { part, threads } = self;
        if threads < 2 || part.channels.len() < 2 {
            return Err(ForThreads { part, threads });
        }
        let Part { kernel, channels, a, b, bias, result } = part;
        let at = channels.start + channels.len() * (threads / 2) / threads;
        let at = at.max(channels.start + 1);
        let (upper, lower) =
            result.split_at_mut(result.len() / channels.len() * (at - channels.start));
        let of = |channels, result, threads| ForThreads {
            part: Part { kernel, channels, a, b, bias, result },
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
    part: Part<'a, T>,
    scratch: &'s mut [u8],
}

impl<T: Number> Vectorized for Directly<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Directly { direct, part: Part { channels, a, b, bias, result, .. }, scratch } = self;
        let scratch = carve::<T, 3>(scratch, direct.scratch());
        direct.run::<T, S>(channels, (a, b, bias), result, scratch);
    }
}

/// A part that one thread computes.
struct OnScratch<'a, 's, T> {
    part: Part<'a, T>,
    scratch: &'s mut [u8],
}

impl<T: Number> Vectorized for OnScratch<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let OnScratch { part: Part { kernel, channels: all, a, b, bias, result }, scratch } = self;
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
