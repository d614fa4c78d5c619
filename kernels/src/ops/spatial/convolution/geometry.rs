//! Sizes and places of a convolution: what each position sees, and which positions make a block.

use core::ops::Range;

use super::axes::{Axis, Planes, planes};
use super::settings::{Convolution, Side};
use crate::cpu::gemm::CHAIN;
use crate::ir::shape::Operand;
use crate::ops::elementwise::number::Number;

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
    pub(super) runs: Vec<Run>,
    /// Which runs make a block.
    pub(super) blocks: Vec<Range<usize>>,
}

/// Positions one behind the other along the last axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
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
    pub(super) fn divide(&mut self, items: usize, side: Side) {
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
    pub(super) fn seen(&self) -> usize {
        self.channels * self.axes.iter().map(|axis| axis.k).product::<usize>()
    }

    /// Counts how many channels of the input are gathered at a time for the weight.
    pub(super) fn channels_at_once(&self) -> usize {
        let taps = self.seen() / self.channels.max(1);
        (BLOCK / (CHAIN * taps.max(1))).clamp(1, self.channels.max(1))
    }

    /// Counts the positions of one item.
    pub(super) fn plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.y).product()
    }

    /// Counts the positions of a block.
    pub(super) fn columns(&self, block: &Range<usize>) -> usize {
        self.runs[block.clone()].iter().map(|run| run.len).sum()
    }

    pub(super) fn most_columns(&self) -> usize {
        self.blocks.iter().map(|block| self.columns(block)).max().unwrap_or(0)
    }

    /// Gives the offset of a run in a channel of the output.
    pub(super) fn offset_in_y(&self, run: &Run) -> usize {
        let [d, h, w] = run.at;
        run.item * self.y.item + (d * self.axes[1].y + h) * self.axes[2].y + w
    }

    /// Fills each of some channels of the output with its number of `bias`.
    pub(super) fn fill<T: Number>(&self, bias: &[T], y: &mut [T]) {
        for run in &self.runs {
            for (channel, &bias) in bias.iter().enumerate() {
                let at = channel * self.y.channel + self.offset_in_y(run);
                y[at..at + run.len].fill(bias);
            }
        }
    }

    /// Counts the channels of the result, of each group, and the elements from one to the next. The weight's
    /// channels are those of the output.
    pub(super) fn results(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Output => (self.out, self.y.channel),
            Side::Input => (self.channels, self.x.channel),
            Side::Weight => (self.out, self.seen()),
        }
    }

    /// Says whether the positions of all items lie one behind the other.
    pub(super) fn is_joined(&self) -> bool {
        self.y.item == self.plane() || self.positions == self.plane()
    }

    /// Calls `f` for each place of a run as element `k` of the kernel in channel `channel` sees it, with its
    /// column, the columns that look within the input, and the offset where the first of them looks.
    #[inline(always)]
    pub(super) fn each_view(
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
    pub(super) fn each_row(
        &self,
        channels: Range<usize>,
        mut f: impl FnMut(usize, usize, [usize; 3]),
    ) {
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
    pub(super) fn gather<T: Number>(
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
    pub(super) fn scatter<T: Number>(
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
    pub(super) fn outputs<'a, T: Number>(
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
