//! The kernel of reductions.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::marker::PhantomData;
use core::ops::Range;

use super::settings::{Kind, Reduce};
use crate::cpu::kernel::Kernel;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized, dispatch};
use crate::cpu::sum::{BLOCK, Join, PARTIALS, Pairs, join_halves, join_vectors};
use crate::cpu::tile::{Input, Tile};
use crate::cpu::vector_kernel::{VectorKernel, run_vectors};
use crate::ir::shape::{Layout, Operand, Type};
use crate::ops::elementwise::pointwise::WORTH_SPLITTING;
use crate::ops::elementwise::walk::Walk;

/// How numbers are joined.
pub(super) trait Fold: Copy + Send + Sync + 'static {
    /// The number that changes nothing.
    const IDENTITY: f64;

    fn join<T: Float, S: Simd>(a: T::Lanes<S>, b: T::Lanes<S>) -> T::Lanes<S>;

    /// Joins the lanes by halves.
    #[inline(always)]
    fn join_lanes<T: Float, S: Simd>(mut x: T::Lanes<S>) -> T {
        let mut half = T::Lanes::<S>::N / 2;
        while half > 0 {
            let mut spread = [T::default(); 2 * PARTIALS];
            // SAFETY: twice PARTIALS, at least twice the lanes, leave room for a vector at `half`.
            unsafe {
                x.store(spread.as_mut_ptr());
                x = Self::join::<T, S>(x, T::Lanes::<S>::load(spread.as_ptr().add(half)));
            }
            half /= 2;
        }
        let mut joined = T::default();
        // SAFETY: there is room for one number.
        unsafe { x.store_first(&raw mut joined, 1) };
        joined
    }

    /// Joins the lanes of each vector by halves: those of vector `i` into lane `i`.
    #[inline(always)]
    fn join_each<T: Float, S: Simd>(vectors: &[T::Lanes<S>; MAX_LANES]) -> T::Lanes<S> {
        let mut joined = [T::default(); MAX_LANES];
        for (joined, &vector) in joined.iter_mut().zip(vectors).take(T::Lanes::<S>::N) {
            *joined = Self::join_lanes::<T, S>(vector);
        }
        // SAFETY: no vector has more lanes than that.
        unsafe { T::Lanes::<S>::load(joined.as_ptr()) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Add;

impl Fold for Add {
    const IDENTITY: f64 = 0.0;

    #[inline(always)]
    fn join<T: Float, S: Simd>(a: T::Lanes<S>, b: T::Lanes<S>) -> T::Lanes<S> {
        a.add(b)
    }

    #[inline(always)]
    fn join_lanes<T: Float, S: Simd>(x: T::Lanes<S>) -> T {
        x.sum()
    }

    #[inline(always)]
    fn join_each<T: Float, S: Simd>(vectors: &[T::Lanes<S>; MAX_LANES]) -> T::Lanes<S> {
        T::Lanes::<S>::sums(vectors)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Larger;

impl Fold for Larger {
    const IDENTITY: f64 = f64::NEG_INFINITY;

    #[inline(always)]
    fn join<T: Float, S: Simd>(a: T::Lanes<S>, b: T::Lanes<S>) -> T::Lanes<S> {
        // `max` gives `b` where either is NaN; a NaN in `a` must stay too.
        T::Lanes::<S>::select(a.eq(a), a.max(b), a)
    }
}

/// A vector that joins others as `F` says.
struct Folded<F, T: Float, S: Simd>(T::Lanes<S>, PhantomData<F>);

impl<F, T: Float, S: Simd> Clone for Folded<F, T, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, T: Float, S: Simd> Copy for Folded<F, T, S> {}

impl<F: Fold, T: Float, S: Simd> Folded<F, T, S> {
    #[inline(always)]
    fn new(lanes: T::Lanes<S>) -> Self {
        Folded(lanes, PhantomData)
    }
}

impl<F: Fold, T: Float, S: Simd> Join for Folded<F, T, S> {
    #[inline(always)]
    fn nothing() -> Self {
        Folded::new(T::Lanes::<S>::splat(T::from_f64(F::IDENTITY)))
    }

    #[inline(always)]
    fn join(self, later: Self) -> Self {
        Folded::new(F::join::<T, S>(self.0, later.0))
    }
}

/// Gives the partial results of `STREAMS` times `count` times [`PARTIALS`] numbers side by side, `VECTORS` vectors each.
///
/// # Safety
///
/// The numbers at `x` can be read.
#[inline(always)]
unsafe fn rounds<F: Fold, T: Float, S: Simd, const VECTORS: usize, const STREAMS: usize>(
    x: *const T,
    count: usize,
) -> [T::Lanes<S>; STREAMS] {
    let lanes = T::Lanes::<S>::N;
    let mut partials = [[Folded::<F, T, S>::nothing(); VECTORS]; STREAMS];
    for round in 0..count {
        for (stream, partials) in partials.iter_mut().enumerate() {
            for (v, partial) in partials.iter_mut().enumerate() {
                let at = (stream * count + round) * PARTIALS + v * lanes;
                // SAFETY: the caller promises that they can be read.
                let vector = unsafe { T::Lanes::<S>::load(x.wrapping_add(at)) };
                partial.0 = F::join::<T, S>(partial.0, vector);
            }
        }
    }
    let mut joined = [T::Lanes::<S>::splat(T::default()); STREAMS];
    for (joined, partials) in joined.iter_mut().zip(&partials) {
        *joined = join_vectors(partials, VECTORS).0;
    }
    joined
}

/// Does that with as many vectors as hold [`PARTIALS`] numbers.
///
/// # Safety
///
/// As for [`rounds`].
#[inline(always)]
unsafe fn streams<F: Fold, T: Float, S: Simd, const STREAMS: usize>(
    x: *const T,
    count: usize,
) -> [T::Lanes<S>; STREAMS] {
    // SAFETY: the caller's promise.
    unsafe {
        match PARTIALS / T::Lanes::<S>::N {
            1 => rounds::<F, T, S, 1, STREAMS>(x, count),
            2 => rounds::<F, T, S, 2, STREAMS>(x, count),
            _ => rounds::<F, T, S, 4, STREAMS>(x, count),
        }
    }
}

pub(super) struct ReduceKernel<T, F> {
    /// How many numbers make an output.
    len: usize,
    /// Their offsets from the first of them, in the order in which they are counted; empty if they lie side by side.
    offsets: Vec<usize>,
    /// Whether they lie side by side.
    is_contiguous: bool,
    /// Visits the first number of each output.
    outputs: Walk<1>,
    numel: usize,
    /// How many elements the input has up to the last one that is read.
    reach: usize,
    /// What the result is divided by.
    divisor: Option<f64>,
    kinds: PhantomData<(T, F)>,
}

impl<T, F> ReduceKernel<T, F> {
    pub(super) fn new(op: &Reduce, input: &Operand, output: &Operand) -> Self {
        [input, output].into_iter().for_each(Operand::assert_addressable);
        let shape = &input.ty.shape;
        // Sizes may be huge where one is 0, and then nothing is read.
        let is_read = shape.numel() > 0;
        let len = if is_read { op.axes.iter().map(|&axis| shape[axis]).product() } else { 0 };
        let mut run = 1;
        let mut axes = op.axes.iter().rev().filter(|&&axis| is_read && shape[axis] != 1);
        let is_contiguous = axes.all(|&axis| {
            let goes_on = input.layout[axis] == run;
            run *= shape[axis];
            goes_on
        });
        let mut offsets = if is_contiguous { Vec::new() } else { vec![0] };
        for &axis in &op.axes {
            let stride = input.layout[axis];
            offsets = offsets
                .iter()
                .flat_map(|start| (0..shape[axis]).map(move |i| start + i * stride))
                .collect();
        }
        let kept = Type { dtype: input.ty.dtype, shape: op.kept(shape) };
        let first = Operand { ty: kept.clone(), layout: input.layout.clone() };
        // The output's layout with the dropped axes put back.
        let mut strides = output.layout.iter();
        let mut stride_of = |axis| {
            let gone = op.dropped.contains(&axis);
            if gone { 0 } else { strides.next().copied().unwrap_or(0) }
        };
        let layout: Vec<usize> = (0..shape.rank()).map(&mut stride_of).collect();
        let result = Operand { ty: kept, layout: Layout::from(layout) };
        let outputs = Walk::new(&[first], &result);
        let numel = output.ty.shape.numel();
        assert_eq!(numel, outputs.numel, "a result has the numbers that are left");
        let last = offsets.iter().max().copied().or(len.checked_sub(1));
        ReduceKernel {
            reach: last.map_or(0, |last| outputs.reach[0] + last),
            len,
            divisor: (op.kind == Kind::Mean).then_some(len as f64),
            offsets,
            is_contiguous,
            outputs,
            numel,
            kinds: PhantomData,
        }
    }
}

impl<T: Float, F: Fold> Kernel for ReduceKernel<T, F> {
    fn run(&self, tile: &mut Tile<'_>) {
        if !tile.split() || self.numel * self.len < WORTH_SPLITTING || self.numel < 2 {
            run_vectors(self, tile);
            return;
        }
        let models = tile.models();
        let (inputs, mut outputs, _) = tile.operands();
        let (x, mut y) = (inputs.get(0), outputs.take());
        self.assert_reaches(&x);
        for model in 0..models {
            let rows = 0..self.numel / self.outputs.inner;
            let inner = 0..self.outputs.inner;
            share_out(Share { kernel: self, rows, inner, x: x.at(model), y: y.at(model) });
        }
    }

    fn table_bytes(&self) -> usize {
        size_of_val(self.offsets.as_slice())
    }
}

impl<T: Float, F: Fold> VectorKernel for ReduceKernel<T, F> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (inputs, mut outputs, _) = tile.operands();
        let (x, mut y) = (inputs.get(0), outputs.take());
        self.assert_reaches(&x);
        for model in 0..models {
            if self.numel > 0 {
                let rows = 0..self.numel / self.outputs.inner;
                self.reduce::<S>(rows, 0..self.outputs.inner, x.at(model), y.at(model));
            }
        }
    }
}

/// Some of the outputs: what one thread computes, or splits further.
struct Share<'a, T, F> {
    kernel: &'a ReduceKernel<T, F>,
    rows: Range<usize>,
    /// All of the inner loop, unless there is one row.
    inner: Range<usize>,
    x: &'a [T],
    /// Of the output, this part alone.
    y: &'a mut [T],
}

/// Outputs are shared out, never the numbers of one.
impl<T: Float, F: Fold> Divisible for Share<'_, T, F> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let is_one = self.rows.len() == 1;
        let at = match is_one {
            true => (self.inner.len() / 2).next_multiple_of(MAX_LANES).min(self.inner.len()),
            false => self.rows.len() / 2,
        };
        let is_whole = is_one && at == self.inner.len();
        if self.y.len() * self.kernel.len < WORTH_SPLITTING || is_whole {
            return Err(self);
        }
        let Share { kernel, rows, inner, x, y } = self;
        let of = |rows, inner, y| Share { kernel, rows, inner, x, y };
        if is_one {
            let (upper, lower) = y.split_at_mut(at);
            let middle = inner.start + at;
            return Ok([
                of(rows.clone(), inner.start..middle, upper),
                of(rows, middle..inner.end, lower),
            ]);
        }
        let (upper, lower) = y.split_at_mut(at * inner.len());
        let middle = rows.start + at;
        Ok([of(rows.start..middle, inner.clone(), upper), of(middle..rows.end, inner, lower)])
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T: Float, F: Fold> Vectorized for Share<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Share { kernel, rows, inner, x, y } = self;
        kernel.reduce::<S>(rows, inner, x, y);
    }
}

impl<T: Float, F: Fold> ReduceKernel<T, F> {
    /// Asserts that the input has the elements that are read.
    #[inline(always)]
    fn assert_reaches(&self, x: &Input<'_, T>) {
        assert!(x.numel() >= self.reach, "a kernel meets the operands that it was made for");
    }

    /// Computes the outputs of the inner loops `rows`, of each those `within` it: all there is in `y`.
    #[inline(always)]
    fn reduce<S: Simd>(&self, rows: Range<usize>, within: Range<usize>, x: &[T], y: &mut [T]) {
        let inner = within.len();
        assert_eq!(
            y.len(),
            rows.len() * inner,
            "outputs have the shape that the kernel was made for"
        );
        let lanes = T::Lanes::<S>::N;
        let [step] = self.outputs.steps;
        let across = step == 1 && self.outputs.inner > 1 && !self.is_contiguous;
        for (place, row) in rows.enumerate() {
            let [start] = self.outputs.row(row);
            let start = start + within.start * step;
            let first = x.as_ptr().wrapping_add(start);
            let y = y[place * inner..(place + 1) * inner].as_mut_ptr();
            let mut at = 0;
            while at < inner {
                let n = lanes.min(inner - at);
                let first = first.wrapping_add(at * step);
                // SAFETY: `outputs` visits the first number of each output and `offsets` the others,
                // all within the input, whose length the kernel asserted (`assert_reaches`); `across` takes `n` outputs
                // whose numbers lie side by side.
                let joined = unsafe {
                    if across && n == lanes {
                        self.across::<S, false>(first, n)
                    } else if across {
                        self.across::<S, true>(first, n)
                    } else {
                        self.along::<S>(first, step, n)
                    }
                };
                let joined = match self.divisor {
                    Some(n) => joined.div(T::Lanes::<S>::splat(T::from_f64(n))),
                    None => joined,
                };
                let to = y.wrapping_add(at);
                // SAFETY: `at + n ≤ inner`, the length of this part of the output.
                unsafe { if n == lanes { joined.store(to) } else { joined.store_first(to, n) } };
                at += n;
            }
        }
    }

    /// Reduces to `n` outputs, one a lane, whose first numbers lie `step` apart. The numbers of one fill the lanes.
    ///
    /// # Safety
    ///
    /// The numbers of the outputs, the first of them at `x`, can be read; `n` is at most the number of lanes.
    #[inline(always)]
    unsafe fn along<S: Simd>(&self, x: *const T, step: usize, n: usize) -> T::Lanes<S> {
        if self.len <= BLOCK {
            let mut each = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
            for (i, each) in each.iter_mut().enumerate().take(n) {
                // SAFETY: the caller promises it.
                *each = unsafe { self.block::<S>(x.wrapping_add(i * step), 0..self.len) };
            }
            return F::join_each::<T, S>(&each);
        }
        let mut joined = [T::default(); MAX_LANES];
        for (i, joined) in joined.iter_mut().enumerate().take(n) {
            let x = x.wrapping_add(i * step);
            let mut pairs = Pairs::<Folded<F, T, S>>::new();
            let join = |block| Folded::new(T::Lanes::<S>::splat(F::join_lanes::<T, S>(block)));
            let mut start = 0;
            while self.is_contiguous && start + 4 * BLOCK <= self.len {
                // SAFETY: the caller promises it.
                let four =
                    unsafe { streams::<F, T, S, 4>(x.wrapping_add(start), BLOCK / PARTIALS) };
                pairs.push_four(four.map(join));
                start += 4 * BLOCK;
            }
            while start < self.len {
                let end = self.len.min(start + BLOCK);
                // SAFETY: the caller promises it.
                pairs.push(join(unsafe { self.block::<S>(x, start..end) }));
                start = end;
            }
            // SAFETY: there is room for one number.
            unsafe { pairs.total().0.store_first(joined, 1) };
        }
        // SAFETY: no vector has more lanes than that.
        unsafe { T::Lanes::<S>::load(joined.as_ptr()) }
    }

    /// Gives the partial results of a block of an output that begins at `x`, in the lanes.
    ///
    /// # Safety
    ///
    /// These numbers of the output can be read.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, x: *const T, block: Range<usize>) -> T::Lanes<S> {
        let lanes = T::Lanes::<S>::N;
        let identity = T::from_f64(F::IDENTITY);
        // PARTIALS / lanes vectors of partial results, at most 4.
        let mut partials = [Folded::<F, T, S>::nothing(); 4];
        let vectors = PARTIALS / lanes;
        let whole = if self.is_contiguous { block.len() / PARTIALS } else { 0 };
        let beside = x.wrapping_add(if self.is_contiguous { block.start } else { 0 });
        if whole * PARTIALS == block.len() {
            // SAFETY: the caller promises that these numbers can be read.
            return unsafe { streams::<F, T, S, 1>(beside, whole) }[0];
        }
        for round in 0..whole {
            for (v, partial) in partials.iter_mut().enumerate().take(vectors) {
                let at = round * PARTIALS + v * lanes;
                // SAFETY: as above.
                let vector = unsafe { T::Lanes::<S>::load(beside.wrapping_add(at)) };
                partial.0 = F::join::<T, S>(partial.0, vector);
            }
        }
        let mut at = block.start + whole * PARTIALS;
        while at < block.end {
            let n = PARTIALS.min(block.end - at);
            let mut together = [identity; PARTIALS];
            for (i, number) in together.iter_mut().enumerate().take(n) {
                let offset = if self.is_contiguous { at + i } else { self.offsets[at + i] };
                // SAFETY: as above.
                *number = unsafe { *x.wrapping_add(offset) };
            }
            for (v, partial) in partials.iter_mut().enumerate().take(vectors) {
                // SAFETY: there are PARTIALS numbers.
                let vector = unsafe { T::Lanes::<S>::load(together.as_ptr().add(v * lanes)) };
                partial.0 = F::join::<T, S>(partial.0, vector);
            }
            at += n;
        }
        join_vectors(&partials, vectors).0
    }

    /// Reduces to `n` outputs, one a lane, whose numbers lie side by side.
    ///
    /// # Safety
    ///
    /// `n` numbers from each of `offsets` behind `x` can be read; `n` is the number of lanes unless
    /// `PART`.
    #[inline(always)]
    unsafe fn across<S: Simd, const PART: bool>(&self, x: *const T, n: usize) -> T::Lanes<S> {
        if self.len <= BLOCK {
            // SAFETY: as the caller promises.
            return unsafe { self.block_across::<S, PART>(x, n, &self.offsets) };
        }
        let mut pairs = Pairs::<Folded<F, T, S>>::new();
        for offsets in self.offsets.chunks(BLOCK) {
            // SAFETY: as the caller promises.
            let block = unsafe { self.block_across::<S, PART>(x, n, offsets) };
            pairs.push(Folded::new(block));
        }
        pairs.total().0
    }

    /// Reduces the numbers at these offsets as [`across`](Self::across) does.
    ///
    /// # Safety
    ///
    /// As for [`across`](Self::across).
    #[inline(always)]
    unsafe fn block_across<S: Simd, const PART: bool>(
        &self,
        x: *const T,
        n: usize,
        offsets: &[usize],
    ) -> T::Lanes<S> {
        let load = |offset: usize| {
            let x = x.wrapping_add(offset);
            // SAFETY: the caller promises that they can be read.
            unsafe { if PART { T::Lanes::<S>::load_first(x, n) } else { T::Lanes::<S>::load(x) } }
        };
        let mut partials = [Folded::<F, T, S>::nothing(); PARTIALS];
        let rounds = offsets.chunks_exact(PARTIALS);
        let rest = rounds.remainder();
        for offsets in rounds {
            for i in 0..PARTIALS {
                partials[i].0 = F::join::<T, S>(partials[i].0, load(offsets[i]));
            }
        }
        for i in 0..PARTIALS {
            if i < rest.len() {
                partials[i].0 = F::join::<T, S>(partials[i].0, load(rest[i]));
            }
        }
        join_halves(partials).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{InstructionSet, dispatch_to};
    use crate::cpu::sum::{LENGTHS, in_order};
    use crate::ir::dtype::Dtype;

    const COLUMNS: usize = 21;

    /// Reduces the columns of a matrix.
    fn reduced<F: Fold>(set: InstructionSet, kind: Kind, x: &Operand, numbers: &[f32]) -> Vec<f32> {
        let op = Reduce { kind, axes: vec![0], dropped: vec![0] };
        let output = Operand::row_major(Type::new(Dtype::F32, [COLUMNS]));
        let kernel = ReduceKernel::<f32, F>::new(&op, x, &output);
        let mut y = vec![0.0; COLUMNS];
        let (rows, inner) = (0..COLUMNS / kernel.outputs.inner, 0..kernel.outputs.inner);
        dispatch_to(set, Share { kernel: &kernel, rows, inner, x: numbers, y: &mut y });
        y
    }

    /// The columns of `n` rows, whose numbers lie apart or side by side.
    fn both<F: Fold>(kind: Kind, n: usize, number: impl Fn(usize, usize) -> f32) -> Vec<Vec<f32>> {
        let ty = Type::new(Dtype::F32, [n, COLUMNS]);
        let apart = Operand::row_major(ty.clone());
        let beside = Operand { layout: ty.shape.ordered(&[1, 0]), ty };
        let rows = (0..n * COLUMNS).map(|i| number(i / COLUMNS, i % COLUMNS)).collect::<Vec<_>>();
        let lines = (0..n * COLUMNS).map(|i| number(i % n, i / n)).collect::<Vec<_>>();
        let sets = InstructionSet::available().into_iter();
        let of = |set| {
            [(&apart, &rows), (&beside, &lines)]
                .map(|(operand, numbers)| reduced::<F>(set, kind, operand, numbers))
        };
        sets.flat_map(of).collect()
    }

    #[test]
    fn sums_have_one_order_in_every_layout_and_on_every_instruction_set() {
        for n in LENGTHS.into_iter().filter(|&n| n > 0) {
            let number = |row: usize, column: usize| (0.7 * (row * 3 + column) as f32).sin() + 0.1;
            let expected: Vec<f32> = (0..COLUMNS)
                .map(|column| in_order(n, |p: f32, row| p + number(row, column)))
                .collect();
            for found in both::<Add>(Kind::Sum, n, number) {
                assert_eq!(found, expected, "{n} rows");
            }
        }
    }

    #[test]
    fn maxima_are_the_same_bits_in_every_layout_and_on_every_instruction_set() {
        for n in [2, 17, 40, 300] {
            let number = |row: usize, column: usize| match (row * 5 + column) % 7 {
                _ if column == 3 && row == n / 2 => f32::NAN,
                0 => 0.0,
                1 => -0.0,
                _ => -1.0,
            };
            let bits = |found: Vec<f32>| found.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let all: Vec<_> = both::<Larger>(Kind::Amax, n, number).into_iter().map(bits).collect();
            assert!(all.iter().all(|found| *found == all[0]), "{n} rows: {all:?}");
            assert!(f32::from_bits(all[0][3]).is_nan());
        }
    }
}
