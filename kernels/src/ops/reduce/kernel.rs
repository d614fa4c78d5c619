//! The kernel of reductions, with the order of [the module above](super).
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::marker::PhantomData;
use core::ops::Range;

use super::{Kind, Reduce};
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized, dispatch};
use crate::cpu::tile::{Input, Tile, VectorKernel, run_vectors};
use crate::op::Kernel;
use crate::ops::elementwise::{WORTH_SPLITTING, Walk};
use crate::shape::{Layout, Operand, Type};

/// Partial results of one output.
const PARTIALS: usize = 16;

/// How numbers are joined.
pub(super) trait Fold: Copy + Send + Sync + 'static {
    /// The number that changes nothing.
    const IDENTITY: f64;

    fn join<T: Float, S: Simd>(a: T::Lanes<S>, b: T::Lanes<S>) -> T::Lanes<S>;

    /// Joins the lanes by halves into lane 0.
    #[inline(always)]
    fn join_lanes<T: Float, S: Simd>(mut x: T::Lanes<S>) -> T::Lanes<S> {
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
        x
    }

    /// Joins the lanes of each vector by halves: those of vector `i` into lane `i`.
    #[inline(always)]
    fn join_each<T: Float, S: Simd>(vectors: &[T::Lanes<S>; MAX_LANES]) -> T::Lanes<S> {
        let mut joined = [T::default(); MAX_LANES];
        for (joined, &vector) in joined.iter_mut().zip(vectors).take(T::Lanes::<S>::N) {
            // SAFETY: there is room for one number.
            unsafe { Self::join_lanes::<T, S>(vector).store_first(joined, 1) };
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
    fn join_lanes<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
        T::Lanes::<S>::splat(x.sum())
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

/// Adds up numbers that lie side by side, in the order of this module; the sum is in every lane.
#[inline(always)]
pub(in crate::ops) fn sum_of<T: Float, S: Simd>(x: &[T]) -> T::Lanes<S> {
    let lanes = T::Lanes::<S>::N;
    let mut partials = [T::Lanes::<S>::splat(T::default()); 4];
    for block in x.chunks(PARTIALS) {
        for (v, part) in block.chunks(lanes).enumerate() {
            // SAFETY: `part` has at most as many numbers as there are lanes.
            let vector = unsafe { T::Lanes::<S>::load_first(part.as_ptr(), part.len()) };
            partials[v] = partials[v].add(vector);
        }
    }
    Add::join_lanes::<T, S>(join_partials::<Add, T, S>(partials))
}

/// Joins the partial results of one output, which fill the lanes of the first vectors, into the lanes of
/// one.
#[inline(always)]
fn join_partials<F: Fold, T: Float, S: Simd>(mut partials: [T::Lanes<S>; 4]) -> T::Lanes<S> {
    let mut half = PARTIALS / T::Lanes::<S>::N / 2;
    while half > 0 {
        for v in 0..half {
            partials[v] = F::join::<T, S>(partials[v], partials[v + half]);
        }
        half /= 2;
    }
    partials[0]
}

/// Gives the partial results of `count` blocks of [`PARTIALS`] numbers side by side, `VECTORS` vectors each.
///
/// # Safety
///
/// The blocks at `x` can be read.
#[inline(always)]
unsafe fn blocks<F: Fold, T: Float, S: Simd, const VECTORS: usize>(
    x: *const T,
    count: usize,
) -> T::Lanes<S> {
    let lanes = T::Lanes::<S>::N;
    let mut partials = [T::Lanes::<S>::splat(T::from_f64(F::IDENTITY)); VECTORS];
    for block in 0..count {
        for (v, partial) in partials.iter_mut().enumerate() {
            let at = block * PARTIALS + v * lanes;
            // SAFETY: the caller promises that the block can be read.
            let vector = unsafe { T::Lanes::<S>::load(x.wrapping_add(at)) };
            *partial = F::join::<T, S>(*partial, vector);
        }
    }
    let mut half = VECTORS / 2;
    while half > 0 {
        for v in 0..half {
            partials[v] = F::join::<T, S>(partials[v], partials[v + half]);
        }
        half /= 2;
    }
    partials[0]
}

pub(super) struct ReduceKernel<T, F> {
    /// Offsets of the numbers of one output from its first, in the order in which they are counted.
    reduced: Vec<usize>,
    /// Whether these are 0, 1, 2, …
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
        let mut reduced = vec![0];
        // No list is longer than the input, whose sizes may be huge where one is 0.
        if shape.numel() == 0 {
            let is_empty = op.axes.iter().any(|&axis| shape[axis] == 0);
            reduced.truncate(usize::from(!is_empty));
        }
        for &axis in op.axes.iter().filter(|_| shape.numel() > 0) {
            let along = (0..shape[axis]).map(|i| i * input.layout[axis]);
            let along: Vec<_> = along.collect();
            reduced =
                reduced.iter().flat_map(|start| along.iter().map(move |i| start + i)).collect();
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
        let last = reduced.iter().max().map_or(0, |last| outputs.reach[0] + last);
        ReduceKernel {
            reach: last,
            is_contiguous: reduced.iter().enumerate().all(|(i, &offset)| i == offset),
            divisor: (op.kind == Kind::Mean).then_some(reduced.len() as f64),
            reduced,
            outputs,
            numel,
            kinds: PhantomData,
        }
    }
}

impl<T: Float, F: Fold> Kernel for ReduceKernel<T, F> {
    fn run(&self, tile: &mut Tile<'_>) {
        if !tile.split() || self.numel * self.reduced.len() < WORTH_SPLITTING || self.numel < 2 {
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
            share_out(Part { kernel: self, rows, inner, x: x.at(model), y: y.at(model) });
        }
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
struct Part<'a, T, F> {
    kernel: &'a ReduceKernel<T, F>,
    rows: Range<usize>,
    /// All of the inner loop, unless there is one row.
    inner: Range<usize>,
    x: &'a [T],
    /// Of the output, this part alone.
    y: &'a mut [T],
}

/// Outputs are shared out, never the numbers of one.
impl<T: Float, F: Fold> Divisible for Part<'_, T, F> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let is_one = self.rows.len() == 1;
        let at = match is_one {
            true => (self.inner.len() / 2).next_multiple_of(MAX_LANES).min(self.inner.len()),
            false => self.rows.len() / 2,
        };
        let is_whole = is_one && at == self.inner.len();
        if self.y.len() * self.kernel.reduced.len() < WORTH_SPLITTING || is_whole {
            return Err(self);
        }
        let Part { kernel, rows, inner, x, y } = self;
        let of = |rows, inner, y| Part { kernel, rows, inner, x, y };
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

impl<T: Float, F: Fold> Vectorized for Part<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Part { kernel, rows, inner, x, y } = self;
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
                // SAFETY: `outputs` visits the first number of each output and `reduced` the others,
                // all within the input, whose length the kernel asserted (`assert_reaches`); `across` takes `n` outputs
                // whose numbers lie side by side.
                let joined = unsafe {
                    if across && n == lanes {
                        self.across::<S, false>(first, n)
                    } else if across {
                        self.across::<S, true>(first, n)
                    } else {
                        let mut each = [T::Lanes::<S>::splat(T::default()); MAX_LANES];
                        for (i, each) in each.iter_mut().enumerate().take(n) {
                            *each = self.along::<S>(first.wrapping_add(i * step));
                        }
                        F::join_each::<T, S>(&each)
                    }
                };
                let joined = match self.divisor {
                    Some(n) => joined.div(T::Lanes::<S>::splat(T::from_f64(n))),
                    None => joined,
                };
                // SAFETY: `at + n ≤ inner`, the length of this part of the output.
                unsafe { joined.store_first(y.wrapping_add(at), n) };
                at += n;
            }
        }
    }

    /// Gives the partial results of one output, in the lanes: its numbers fill them.
    ///
    /// # Safety
    ///
    /// The numbers `reduced` behind `x` can be read.
    #[inline(always)]
    unsafe fn along<S: Simd>(&self, x: *const T) -> T::Lanes<S> {
        let lanes = T::Lanes::<S>::N;
        let identity = T::from_f64(F::IDENTITY);
        // PARTIALS / lanes vectors of partial results, at most 4.
        let mut partials = [T::Lanes::<S>::splat(identity); 4];
        let vectors = PARTIALS / lanes;
        let beside = if self.is_contiguous { self.reduced.len() / PARTIALS } else { 0 };
        if beside * PARTIALS == self.reduced.len() {
            // SAFETY: the caller promises that these blocks can be read.
            return unsafe {
                match vectors {
                    1 => blocks::<F, T, S, 1>(x, beside),
                    2 => blocks::<F, T, S, 2>(x, beside),
                    _ => blocks::<F, T, S, 4>(x, beside),
                }
            };
        }
        for block in 0..beside {
            for (v, partial) in partials.iter_mut().enumerate().take(vectors) {
                let at = block * PARTIALS + v * lanes;
                // SAFETY: the caller promises that the block can be read.
                let vector = unsafe { T::Lanes::<S>::load(x.wrapping_add(at)) };
                *partial = F::join::<T, S>(*partial, vector);
            }
        }
        for offsets in self.reduced[beside * PARTIALS..].chunks(PARTIALS) {
            let mut together = [identity; PARTIALS];
            for (number, &offset) in together.iter_mut().zip(offsets) {
                // SAFETY: the caller promises that it can be read.
                *number = unsafe { *x.wrapping_add(offset) };
            }
            for (v, partial) in partials.iter_mut().enumerate().take(vectors) {
                // SAFETY: there are PARTIALS numbers.
                let vector = unsafe { T::Lanes::<S>::load(together.as_ptr().add(v * lanes)) };
                *partial = F::join::<T, S>(*partial, vector);
            }
        }
        join_partials::<F, T, S>(partials)
    }

    /// Reduces to `n` outputs, one a lane, whose numbers lie side by side.
    ///
    /// # Safety
    ///
    /// `n` numbers from each of `reduced` behind `x` can be read; `n` is the number of lanes unless
    /// `PART`.
    #[inline(always)]
    unsafe fn across<S: Simd, const PART: bool>(&self, x: *const T, n: usize) -> T::Lanes<S> {
        let load = |offset: usize| {
            let x = x.wrapping_add(offset);
            // SAFETY: the caller promises that they can be read.
            unsafe { if PART { T::Lanes::<S>::load_first(x, n) } else { T::Lanes::<S>::load(x) } }
        };
        let mut partials = [T::Lanes::<S>::splat(T::from_f64(F::IDENTITY)); PARTIALS];
        let blocks = self.reduced.chunks_exact(PARTIALS);
        let rest = blocks.remainder();
        for offsets in blocks {
            for i in 0..PARTIALS {
                partials[i] = F::join::<T, S>(partials[i], load(offsets[i]));
            }
        }
        for i in 0..PARTIALS {
            if i < rest.len() {
                partials[i] = F::join::<T, S>(partials[i], load(rest[i]));
            }
        }
        let mut half = PARTIALS / 2;
        while half > 0 {
            for i in 0..half {
                partials[i] = F::join::<T, S>(partials[i], partials[i + half]);
            }
            half /= 2;
        }
        partials[0]
    }
}
