//! Convolutions without a matrix of what positions see: a copy of an item's channels, with the zeros around them,
//! is read where it lies.
//!
//! In that copy all positions of the output lie one behind the other, with some between the lines that belong to
//! nobody; element `k` of the kernel sees them all at one distance. So a register tile takes vectors of positions,
//! and the numbers that they see are as many places to read from as there are channels and elements of the kernel.
//! For the weight, vectors run along the output's channels, and each of the numbers seen is a row.
//!
//! **Order of sums.** That of [`crate::cpu::gemm`]: over what a position sees, and over the positions of all items, one
//! behind the other. A chain that an item does not end waits for the next one.
#![expect(unsafe_code, reason = "register tiles read and write through pointers")]

use core::array;
use core::ops::Range;

use super::Side;
use super::axes::{Axis, Planes};
use super::kernel::Geometry;
use crate::cpu::gemm::{CHAIN, GROUP};
use crate::cpu::simd::{Lanes, MAX_LANES, Simd};
use crate::cpu::transpose::transpose;
use crate::ops::elementwise::number::Number;

/// Numbers of an item that may be copied: 1 MiB of singles, a half of the second cache.
const MOST: usize = 1 << 18;

/// Vectors of a register tile along positions.
const VECTORS: usize = 2;

/// How one side of a convolution is computed in this way.
#[derive(Debug)]
pub(super) struct Direct {
    side: Side,
    items: usize,
    groups: usize,
    /// Channels in a group that are read with zeros around them.
    from: usize,
    /// Channels in a group of the other factor, or of the result.
    to: usize,
    /// Where the former lie.
    from_planes: Planes,
    /// Where the latter lie.
    to_planes: Planes,
    /// Sizes of the spatial axes of the former.
    from_sizes: [usize; 3],
    /// Sizes of the spatial axes of the latter.
    to_sizes: [usize; 3],
    /// Zeros before each axis; less than 0 if numbers are left out.
    low: [isize; 3],
    /// Sizes with the zeros.
    padded: [usize; 3],
    /// Elements of the input from one position to the next.
    stride: [usize; 3],
    /// Where each channel and element of the kernel sees the first position.
    offsets: Vec<usize>,
    /// Elements of the kernel.
    taps: usize,
}

impl Direct {
    /// Takes a side of a convolution; `None` if it is better computed by matrices.
    pub(super) fn new(geometry: &Geometry, side: Side) -> Option<Self> {
        let Geometry { axes, groups, channels, out, x, y, .. } = geometry;
        let of = |f: fn(&Axis) -> usize| axes.each_ref().map(f);
        let (sizes_x, sizes_y, kernel) = (of(|a| a.x), of(|a| a.y), of(|a| a.k));
        let (stride, dilation) = (of(|a| a.stride), of(|a| a.dilation));
        let reach: [usize; 3] = array::from_fn(|i| dilation[i] * kernel[i].saturating_sub(1));
        let low = of(|a| a.low).map(|low| low as isize);
        let is_input = side == Side::Input;
        let to_sizes = if is_input { sizes_x } else { sizes_y };
        let padded: [usize; 3] = array::from_fn(|i| {
            to_sizes[i].saturating_sub(1).saturating_mul(stride[i]).saturating_add(reach[i] + 1)
        });
        let (from, to) = if is_input { (*out, *channels) } else { (*channels, *out) };
        let plane = padded.iter().try_fold(1_usize, |n, &size| n.checked_mul(size))?;
        let positions: usize = to_sizes.iter().product();
        let copied =
            plane.checked_mul(from)?.max(positions.checked_mul(to.next_multiple_of(MAX_LANES))?);
        let taps: usize = kernel.iter().product();
        if copied > MOST || from * taps == 0 || positions == 0 || to == 0 {
            return None;
        }
        if side != Side::Weight && from * taps > GROUP {
            return None;
        }
        if side != Side::Weight && stride != [1; 3] {
            return None;
        }
        let mut offsets = Vec::with_capacity(from * taps);
        for channel in 0..from {
            for d in 0..kernel[0] {
                for h in 0..kernel[1] {
                    for w in 0..kernel[2] {
                        let line = (d * dilation[0]) * padded[1] + h * dilation[1];
                        offsets.push(channel * plane + line * padded[2] + w * dilation[2]);
                    }
                }
            }
        }
        let items = geometry.positions / sizes_y.iter().product::<usize>().max(1);
        Some(Direct {
            side,
            items,
            groups: *groups,
            from,
            to,
            from_planes: if is_input { *y } else { *x },
            to_planes: if is_input { *x } else { *y },
            from_sizes: if is_input { sizes_y } else { sizes_x },
            to_sizes,
            low: if is_input { array::from_fn(|i| reach[i] as isize - low[i]) } else { low },
            padded,
            stride,
            offsets,
            taps,
        })
    }

    /// Counts the elements of scratch memory: for the channels with zeros around them, for rows of results or the
    /// transposed output, for the turned weight or its sums.
    pub(super) fn scratch(&self) -> [usize; 3] {
        let copy = self.from * self.plane() + VECTORS * MAX_LANES;
        match self.side {
            Side::Output => [copy, MAX_ROWS * self.row(), 0],
            Side::Input => [copy, MAX_ROWS * self.row(), self.to * self.offsets.len()],
            Side::Weight => {
                let width = self.to.next_multiple_of(MAX_LANES);
                [copy, self.positions() * width, 3 * self.offsets.len() * width]
            }
        }
    }

    /// Counts the numbers of a channel with zeros around them.
    fn plane(&self) -> usize {
        self.padded.iter().product()
    }

    fn positions(&self) -> usize {
        self.to_sizes.iter().product()
    }

    /// Counts the positions from the first to the last, those that belong to nobody among them, in whole vectors.
    fn row(&self) -> usize {
        let [depth, height, width] = self.to_sizes;
        let last = ((depth - 1) * self.padded[1] + height - 1) * self.padded[2] + width;
        last.next_multiple_of(VECTORS * MAX_LANES)
    }

    /// Calls `f` for each line of positions, with the number of the first and where it lies in the copy.
    #[inline(always)]
    fn each_line(&self, mut f: impl FnMut(usize, usize)) {
        let [depth, height, width] = self.to_sizes;
        let mut position = 0;
        for d in 0..depth {
            for h in 0..height {
                let line = d * self.stride[0] * self.padded[1] + h * self.stride[1];
                f(position, line * self.padded[2]);
                position += width;
            }
        }
    }

    /// Copies the channels of a group of an item into `to`, whose zeros are there already.
    #[inline(always)]
    fn copy<T: Number>(&self, x: &[T], (item, group): (usize, usize), to: &mut [T]) {
        // Along each axis, which of the padded places are within the input.
        let [d, h, w] = array::from_fn(|i| {
            let start = self.low[i].clamp(0, self.padded[i] as isize);
            let end = self.low[i].saturating_add_unsigned(self.from_sizes[i]);
            start as usize..end.clamp(start, self.padded[i] as isize) as usize
        });
        let source = |axis: usize, place: usize| (place as isize - self.low[axis]) as usize;
        let [_, height, width] = self.from_sizes;
        if w.is_empty() {
            return;
        }
        for channel in 0..self.from {
            let start = item * self.from_planes.item
                + (group * self.from + channel) * self.from_planes.channel;
            for d in d.clone() {
                for h in h.clone() {
                    let line = (source(0, d) * height + source(1, h)) * width + source(2, w.start);
                    let at = channel * self.plane() + (d * self.padded[1] + h) * self.padded[2];
                    let from = &x[start + line..][..w.len()];
                    to[at + w.start..at + w.end].copy_from_slice(from);
                }
            }
        }
    }

    /// Computes some channels of the result, counted over all groups, which are all that `result` holds.
    #[inline(always)]
    pub(super) fn run<T: Number, S: Simd>(
        &self,
        channels: Range<usize>,
        (a, b, bias): (&[T], &[T], Option<&[T]>),
        result: &mut [T],
        [copy, rows, weights]: [&mut [T]; 3],
    ) {
        copy.fill(T::default());
        let (seen, taps) = (self.offsets.len(), self.taps);
        for group in 0..self.groups {
            let first = group * self.to;
            let own = channels.start.max(first)..channels.end.min(first + self.to);
            if own.is_empty() {
                continue;
            }
            let (n, before) = (own.len(), own.start - channels.start);
            if self.side == Side::Weight {
                let of_group = &mut result[before * seen..][..n * seen];
                self.weight::<T, S>(
                    a,
                    b,
                    (group, own),
                    of_group,
                    [&mut *copy, &mut *rows, &mut *weights],
                );
                continue;
            }
            let factors = match self.side {
                Side::Output => &b[own.start * seen..own.end * seen],
                _ => {
                    // Channels change places, and the kernel is turned around.
                    let of_group = &b[group * self.from * self.to * taps..];
                    for (row, channel) in weights.chunks_exact_mut(seen).zip(own.start - first..) {
                        for (other, row) in row.chunks_exact_mut(taps).enumerate().take(self.from) {
                            let from = &of_group[(other * self.to + channel) * taps..][..taps];
                            row.iter_mut().zip(from.iter().rev()).for_each(|(to, w)| *to = *w);
                        }
                        if channel + 1 == own.end - first {
                            break;
                        }
                    }
                    &*weights
                }
            };
            let bias = bias.map(|bias| &bias[own.clone()]);
            for item in 0..self.items {
                self.copy(a, (item, group), copy);
                let mut row = 0;
                while row < n {
                    let tile = match n - row {
                        rest if rest >= S::GEMM_ROWS => S::GEMM_ROWS.min(MAX_ROWS),
                        4.. => 4,
                        2.. => 2,
                        _ => 1,
                    };
                    let factors = &factors[row * seen..(row + tile) * seen];
                    match tile {
                        8 => self.rows::<T, S, 8>(factors, copy, rows),
                        6 => self.rows::<T, S, 6>(factors, copy, rows),
                        4 => self.rows::<T, S, 4>(factors, copy, rows),
                        2 => self.rows::<T, S, 2>(factors, copy, rows),
                        _ => self.rows::<T, S, 1>(factors, copy, rows),
                    }
                    for (number, sums) in rows.chunks_exact(self.row()).enumerate().take(tile) {
                        let channel = before + row + number;
                        let start = channel * self.to_planes.channel + item * self.to_planes.item;
                        let to = &mut result[start..][..self.positions()];
                        let bias = bias.map(|bias| bias[row + number]);
                        let width = self.to_sizes[2];
                        self.each_line(|position, at| {
                            let (to, sums) = (&mut to[position..][..width], &sums[at..][..width]);
                            match bias {
                                Some(bias) => {
                                    to.iter_mut().zip(sums).for_each(|(y, &sum)| *y = sum + bias);
                                }
                                None => to.copy_from_slice(sums),
                            }
                        });
                    }
                    row += tile;
                }
            }
        }
    }

    /// Computes `ROWS` channels of the result at all positions of an item, one a row of `to`.
    #[inline(always)]
    fn rows<T: Number, S: Simd, const ROWS: usize>(&self, a: &[T], x: &[T], to: &mut [T]) {
        let (lanes, row, seen) = (T::Lanes::<S>::N, self.row(), self.offsets.len());
        let reach = self.offsets.last().copied().unwrap_or(0);
        assert!(a.len() >= ROWS * seen && to.len() >= ROWS * row, "rows are whole");
        assert!(x.len() >= reach + row, "the copy holds what positions see");
        let mut at = 0;
        while at < row {
            let mut start = 0;
            while start < seen {
                let end = seen.min(start + CHAIN);
                let mut sums = [[T::Lanes::<S>::splat(T::default()); VECTORS]; ROWS];
                let mut factors = a.as_ptr().wrapping_add(start);
                for &offset in &self.offsets[start..end] {
                    // SAFETY: `offset + at` and two vectors from there on are within the copy, whose channels end
                    // with as many numbers more; all rows of `a` have `seen` elements.
                    unsafe {
                        let x = x.as_ptr().add(offset + at);
                        let x = [T::Lanes::<S>::load(x), T::Lanes::<S>::load(x.add(lanes))];
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let factor = T::Lanes::<S>::splat(*factors.add(i * seen));
                            for (sum, &x) in sums.iter_mut().zip(&x) {
                                *sum = factor.mul_add(x, *sum);
                            }
                        }
                    }
                    factors = factors.wrapping_add(1);
                }
                for (i, sums) in sums.iter().enumerate() {
                    let to = to.as_mut_ptr().wrapping_add(i * row + at);
                    // SAFETY: a row of `to` has whole pairs of vectors.
                    unsafe { add_vectors::<T, S, VECTORS>(sums, to, start > 0) };
                }
                start = end;
            }
            at += VECTORS * lanes;
        }
    }

    /// Computes some channels of the weight, those of `own` of a group.
    #[inline(always)]
    fn weight<T: Number, S: Simd>(
        &self,
        x: &[T],
        y: &[T],
        (group, own): (usize, Range<usize>),
        weight: &mut [T],
        [copy, turned, sums]: [&mut [T]; 3],
    ) {
        let (seen, n, positions) = (self.offsets.len(), own.len(), self.positions());
        let width = n.next_multiple_of(MAX_LANES);
        let (sums, rest) = sums.split_at_mut(seen * width);
        let (group_sums, chains) = rest.split_at_mut(seen * width);
        let mut sums = [sums, group_sums, &mut chains[..seen * width]];
        if self.items == 0 {
            sums[0].fill(T::default());
        }
        for item in 0..self.items {
            self.copy(x, (item, group), copy);
            let start = own.start * self.to_planes.channel + item * self.to_planes.item;
            let turned = &mut turned[..positions * width];
            transpose::<T, S>(&y[start..], self.to_planes.channel, turned, width, n, positions);
            let lanes = T::Lanes::<S>::N;
            let mut column = 0;
            while column < n {
                let two = n - column > lanes;
                let mut row = 0;
                while row < seen {
                    let of = Turned { y: turned, width, column, item };
                    let rest = seen - row;
                    row += match two {
                        true if rest >= 8 && S::GEMM_ROWS == 8 => {
                            self.seen::<T, S, 8, 2>(row, copy, &of, &mut sums)
                        }
                        true if rest >= 4 => self.seen::<T, S, 4, 2>(row, copy, &of, &mut sums),
                        true => self.seen::<T, S, 1, 2>(row, copy, &of, &mut sums),
                        false if rest >= 8 => self.seen::<T, S, 8, 1>(row, copy, &of, &mut sums),
                        false if rest >= 4 => self.seen::<T, S, 4, 1>(row, copy, &of, &mut sums),
                        false => self.seen::<T, S, 1, 1>(row, copy, &of, &mut sums),
                    };
                }
                column += if two { 2 * lanes } else { lanes };
            }
        }
        transpose::<T, S>(sums[0], width, weight, seen, seen, n);
    }

    /// Takes an item's positions into the sums of the weight's elements from `row` on; gives how many there were.
    #[inline(always)]
    fn seen<T: Number, S: Simd, const ROWS: usize, const N: usize>(
        &self,
        row: usize,
        x: &[T],
        of: &Turned<'_, T>,
        sums: &mut [&mut [T]; 3],
    ) -> usize {
        let lanes = T::Lanes::<S>::N;
        let places: [*const T; ROWS] = array::from_fn(|i| x[self.offsets[row + i]..].as_ptr());
        let own_sums =
            row * of.width + of.column..(row + ROWS - 1) * of.width + of.column + N * lanes;
        let [sums, group_sums, chains] =
            sums.each_mut().map(|sums| sums[own_sums.clone()].as_mut_ptr());
        let [depth, height, width] = self.to_sizes;
        let positions = depth * height * width;
        assert!(of.y.len() >= positions * of.width, "there is a row for each position");
        let all = self.items * positions;
        let mut y = of.y.as_ptr().wrapping_add(of.column);
        let (mut at, end) = (of.item * positions, (of.item + 1) * positions);
        let (mut place, mut w, mut h) = (0, 0, 0);
        // From behind a line of positions to the next one, and what is more at the end of a plane.
        let next_line = (self.stride[1] * self.padded[2]).wrapping_sub(width * self.stride[2]);
        let next_plane = (self.stride[0] * self.padded[1]).wrapping_sub(height * self.stride[1]);
        let next_plane = next_plane.wrapping_mul(self.padded[2]);
        while at < end {
            let begun = at % CHAIN;
            let mut left = (CHAIN - begun).min(end - at);
            at += left;
            let mut own = [[T::Lanes::<S>::splat(T::default()); N]; ROWS];
            if begun > 0 {
                for (i, own) in own.iter_mut().enumerate() {
                    // SAFETY: the sums of `ROWS` rows are there, cut out above.
                    *own = unsafe { load_vectors::<T, S, N>(chains.wrapping_add(i * of.width)) };
                }
            }
            while left > 0 {
                let n = left.min(width - w);
                for _ in 0..n {
                    // SAFETY: `place` is that of a position, which each element of the kernel sees within the
                    // copy; rows of `y` are whole vectors wide.
                    unsafe {
                        let mut vectors = [T::Lanes::<S>::splat(T::default()); N];
                        for (v, vector) in vectors.iter_mut().enumerate() {
                            *vector = T::Lanes::<S>::load(y.add(v * lanes));
                        }
                        for (sums, x) in own.iter_mut().zip(&places) {
                            let factor = T::Lanes::<S>::splat(*x.add(place));
                            for (sum, &y) in sums.iter_mut().zip(&vectors) {
                                *sum = factor.mul_add(y, *sum);
                            }
                        }
                    }
                    place += self.stride[2];
                    y = y.wrapping_add(of.width);
                }
                (left, w) = (left - n, w + n);
                if w == width {
                    (w, h, place) = (0, h + 1, place.wrapping_add(next_line));
                }
                if h == height {
                    (h, place) = (0, place.wrapping_add(next_plane));
                }
            }
            // Which places hold the sums so far of which the block that ends here is a part.
            let ends_block = at == all || at.is_multiple_of(CHAIN);
            let ends_group = at == all || at.is_multiple_of(GROUP);
            let in_group = (at - 1) % GROUP >= CHAIN;
            for (i, own) in own.iter().enumerate() {
                let of_row = i * of.width;
                // SAFETY: as above.
                unsafe {
                    match ends_block {
                        false => add_vectors::<T, S, N>(own, chains.wrapping_add(of_row), false),
                        true => {
                            let group_sums = group_sums.wrapping_add(of_row);
                            add_vectors::<T, S, N>(own, group_sums, in_group);
                            if ends_group {
                                let own = load_vectors::<T, S, N>(group_sums);
                                let sums = sums.wrapping_add(of_row);
                                add_vectors::<T, S, N>(&own, sums, at > GROUP);
                            }
                        }
                    }
                }
            }
        }
        ROWS
    }
}

/// Writes vectors, added to what is there if `adds`.
///
/// # Safety
///
/// At `to` there are as many numbers to be read and written.
#[inline(always)]
unsafe fn add_vectors<T: Number, S: Simd, const N: usize>(
    vectors: &[T::Lanes<S>; N],
    to: *mut T,
    adds: bool,
) {
    for (i, vector) in vectors.iter().enumerate() {
        let to = to.wrapping_add(i * T::Lanes::<S>::N);
        // SAFETY: as the caller promises.
        unsafe {
            let sum = if adds { T::Lanes::<S>::load(to).add(*vector) } else { *vector };
            sum.store(to);
        }
    }
}

/// Reads vectors.
///
/// # Safety
///
/// At `from` there are as many numbers.
#[inline(always)]
unsafe fn load_vectors<T: Number, S: Simd, const N: usize>(from: *const T) -> [T::Lanes<S>; N] {
    let mut vectors = [T::Lanes::<S>::splat(T::default()); N];
    for (i, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: as the caller promises.
        *vector = unsafe { T::Lanes::<S>::load(from.wrapping_add(i * T::Lanes::<S>::N)) };
    }
    vectors
}

/// The output's numbers of an item, a row for each position, from a column on.
struct Turned<'a, T> {
    y: &'a [T],
    width: usize,
    column: usize,
    /// Its number.
    item: usize,
}

/// Rows of a register tile at most.
const MAX_ROWS: usize = 8;
