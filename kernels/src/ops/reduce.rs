//! Sums, means and maxima over axes.
//!
//! The reduced numbers of an output are counted in the order of their axes, row-major; number `i` goes
//! to partial result `i mod 16`, and the 16 partial results are joined by halves: `i` with `i + 8`, then
//! `i` with `i + 4`, and so on. That order holds for every layout and instruction set, so the bits do
//! too; it keeps a vector of 16, 8 or 4 lanes busy without a chain of dependent additions.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::fmt::Debug;
use core::marker::PhantomData;

use super::elementwise::{Formula, Walk, computes, pointwise};
use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::dtype::Dtype;
use crate::op::{GradientAt, Kernel, Op, OpError};
use crate::program::trace::Var;
use crate::shape::{Layout, Operand, Shape, Type};

/// Partial results of one output.
const PARTIALS: usize = 16;

/// How numbers are joined.
trait Fold: Copy + Send + Sync + 'static {
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
}

#[derive(Clone, Copy)]
struct Add;

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
}

#[derive(Clone, Copy)]
struct Larger;

impl Fold for Larger {
    const IDENTITY: f64 = f64::NEG_INFINITY;

    #[inline(always)]
    fn join<T: Float, S: Simd>(a: T::Lanes<S>, b: T::Lanes<S>) -> T::Lanes<S> {
        // `max` gives `b` where either is NaN; a NaN in `a` must stay too.
        T::Lanes::<S>::select(a.eq(a), a.max(b), a)
    }
}

/// What becomes of the losses of a batch's items.
///
/// Source: the argument `reduction` of torch's losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reduction {
    /// They stay as they are: `'none'`.
    None,
    /// They are averaged: `'mean'`.
    #[default]
    Mean,
    /// They are added up: `'sum'`.
    Sum,
}

impl Reduction {
    /// Gives torch's name.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::None => "none",
            Reduction::Mean => "mean",
            Reduction::Sum => "sum",
        }
    }

    /// Records the reduction of `losses`.
    pub(crate) fn apply(self, losses: Var) -> Var {
        match self {
            Reduction::None => losses,
            Reduction::Mean => losses.mean(&[], false),
            Reduction::Sum => losses.sum(&[], false),
        }
    }
}

/// What a [`Reduce`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sum,
    Mean,
    Amax,
}

/// Reduces some axes.
#[derive(Clone, Debug)]
struct Reduce {
    kind: Kind,
    /// The axes, ascending.
    axes: Vec<usize>,
    /// Those of them that the result does not have; it has the others with size 1.
    dropped: Vec<usize>,
}

impl Reduce {
    /// Gives the shape with size 1 along the reduced axes.
    fn kept(&self, shape: &Shape) -> Shape {
        (0..shape.rank())
            .map(|axis| if self.axes.contains(&axis) { 1 } else { shape[axis] })
            .collect()
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Mean => "mean",
            Kind::Amax => "amax",
        }
    }

    fn attributes(&self) -> String {
        let keepdim = if self.dropped.is_empty() { " keepdim" } else { "" };
        format!("dim={:?}{keepdim}", self.axes)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!(
                "{}: expected 1 input, got {}",
                self.name(),
                inputs.len()
            )));
        };
        computes(self.name(), x)?;
        if let Some(axis) = self.axes.iter().find(|&&axis| axis >= x.shape.rank()) {
            return Err(no_such_axis(*axis as isize, &x.shape));
        }
        let empty = self.axes.iter().find(|&&axis| x.shape[axis] == 0);
        if let (Kind::Amax, Some(axis)) = (self.kind, empty) {
            return Err(OpError(format!(
                "amax(): Expected reduction dim {axis} to have non-zero size."
            )));
        }
        let kept = self.kept(&x.shape);
        let shape: Shape = (0..kept.rank())
            .filter(|axis| !self.dropped.contains(axis))
            .map(|axis| kept[axis])
            .collect();
        Ok(vec![Type { dtype: x.dtype, shape }])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let order = inputs[0].layout.order(&inputs[0].ty.shape);
        let left = |axis: usize| axis - self.dropped.iter().filter(|&&gone| gone < axis).count();
        let order: Vec<_> =
            order.into_iter().filter(|axis| !self.dropped.contains(axis)).map(left).collect();
        vec![outputs[0].shape.ordered(&order)]
    }

    fn kernel(&self, inputs: &[Operand], outputs: &[Operand]) -> Box<dyn Kernel> {
        match (outputs[0].ty.dtype, self.kind) {
            (Dtype::F64, Kind::Amax) => {
                Box::new(ReduceKernel::<f64, Larger>::new(self, &inputs[0], &outputs[0]))
            }
            (Dtype::F64, _) => {
                Box::new(ReduceKernel::<f64, Add>::new(self, &inputs[0], &outputs[0]))
            }
            (_, Kind::Amax) => {
                Box::new(ReduceKernel::<f32, Larger>::new(self, &inputs[0], &outputs[0]))
            }
            _ => Box::new(ReduceKernel::<f32, Add>::new(self, &inputs[0], &outputs[0])),
        }
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, y) = (&at.inputs[0], &at.outputs[0]);
        let Some(dy) = &at.gradients[0] else {
            return vec![None];
        };
        let kept = self.kept(x.shape());
        let n = x.shape().numel() / kept.numel().max(1);
        let dy = dy.reshape(kept.clone());
        let dx = match self.kind {
            Kind::Sum => dy.expand(x.shape().clone()),
            Kind::Mean => (dy / n as f64).expand(x.shape().clone()),
            Kind::Amax => {
                // As in torch, equal maxima share the gradient equally.
                let is_largest = pointwise(IsEqual, [x, &y.reshape(kept)]);
                let axes: Vec<_> = self.axes.iter().map(|&axis| axis as isize).collect();
                let count = is_largest.sum(&axes, true);
                is_largest * (dy / count)
            }
        };
        vec![Some(dx)]
    }
}

/// 1 where `a == b`, else 0.
#[derive(Clone, Copy, Debug)]
struct IsEqual;

impl Formula<2, 1> for IsEqual {
    fn name(&self) -> &'static str {
        "is_equal"
    }

    #[inline(always)]
    fn apply<T: Float, S: Simd>(self, [a, b]: [T::Lanes<S>; 2]) -> [T::Lanes<S>; 1] {
        let c = |c| T::Lanes::<S>::splat(T::from_f64(c));
        [T::Lanes::<S>::select(a.eq(b), c(1.0), c(0.0))]
    }
}

/// Says in torch's words that a shape has no such axis.
pub(crate) fn no_such_axis(axis: isize, shape: &Shape) -> OpError {
    // torch counts [] as if it had one axis.
    let rank = shape.rank().max(1) as isize;
    OpError(format!(
        "Dimension out of range (expected to be in range of [{}, {}], but got {axis})",
        -rank,
        rank - 1
    ))
}

/// Resolves a list of axes; an empty one means all of them.
///
/// # Errors
///
/// If there is no such axis, or one comes twice.
fn resolve(axes: &[isize], shape: &Shape) -> Result<Vec<usize>, OpError> {
    if axes.is_empty() {
        return Ok((0..shape.rank()).collect());
    }
    let mut resolved = Vec::with_capacity(axes.len());
    for &axis in axes {
        let axis = shape.axis(axis).ok_or_else(|| no_such_axis(axis, shape))?;
        if resolved.contains(&axis) {
            return Err(OpError(format!("dim {axis} appears multiple times in the list of dims")));
        }
        resolved.push(axis);
    }
    resolved.sort_unstable();
    Ok(resolved)
}

impl Var {
    /// Adds up along `axes`, all of them if none are given; `keepdim` leaves them with size 1.
    ///
    /// Source: `torch.sum`.
    #[must_use]
    pub fn sum(&self, axes: &[isize], keepdim: bool) -> Var {
        self.reduce(Kind::Sum, axes, keepdim)
    }

    /// Averages along `axes`, all of them if none are given; `keepdim` leaves them with size 1. The mean
    /// of no numbers is NaN.
    ///
    /// Source: `torch.mean`.
    #[must_use]
    pub fn mean(&self, axes: &[isize], keepdim: bool) -> Var {
        self.reduce(Kind::Mean, axes, keepdim)
    }

    /// Gives the largest number along `axes`, all of them if none are given; NaN if one is NaN.
    /// `keepdim` leaves the axes with size 1. Equal maxima share the gradient equally.
    ///
    /// Source: `torch.amax`.
    #[must_use]
    pub fn amax(&self, axes: &[isize], keepdim: bool) -> Var {
        self.reduce(Kind::Amax, axes, keepdim)
    }

    /// Adds up along those axes along which `shape` would have to be broadcast to this value's shape:
    /// the gradient of broadcasting.
    ///
    /// Source: `torch.Tensor.sum_to_size`.
    #[must_use]
    pub fn sum_to(&self, shape: &Shape) -> Var {
        if self.shape() == shape {
            return self.clone();
        }
        if shape.broadcast(self.shape()).as_ref() != Some(self.shape()) {
            return self
                .trace()
                .fail(format!("size {shape} is not expandable to size {}", self.shape()));
        }
        let new = self.shape().rank() - shape.rank();
        let axes = (0..self.shape().rank())
            .filter(|&axis| axis < new || shape[axis - new] != self.shape()[axis])
            .collect();
        let reduce = Reduce { kind: Kind::Sum, axes, dropped: (0..new).collect() };
        self.trace().apply(reduce, &[self])
    }

    fn reduce(&self, kind: Kind, axes: &[isize], keepdim: bool) -> Var {
        match resolve(axes, self.shape()) {
            Ok(axes) => {
                let dropped = if keepdim { Vec::new() } else { axes.clone() };
                self.trace().apply(Reduce { kind, axes, dropped }, &[self])
            }
            Err(error) => self.trace().fail(error.0),
        }
    }
}

/// Adds up numbers that lie side by side, in the order of this module; the sum is in every lane.
#[inline(always)]
pub(super) fn sum_of<T: Float, S: Simd>(x: &[T]) -> T::Lanes<S> {
    let lanes = T::Lanes::<S>::N;
    let mut partials = [T::Lanes::<S>::splat(T::default()); 4];
    for block in x.chunks(PARTIALS) {
        for (v, part) in block.chunks(lanes).enumerate() {
            // SAFETY: `part` has at most as many numbers as there are lanes.
            let vector = unsafe { T::Lanes::<S>::load_first(part.as_ptr(), part.len()) };
            partials[v] = partials[v].add(vector);
        }
    }
    join_partials::<Add, T, S>(partials)
}

/// Joins the partial results of one output, which fill the lanes of the first vectors, into lane 0.
#[inline(always)]
fn join_partials<F: Fold, T: Float, S: Simd>(mut partials: [T::Lanes<S>; 4]) -> T::Lanes<S> {
    let mut half = PARTIALS / T::Lanes::<S>::N / 2;
    while half > 0 {
        for v in 0..half {
            partials[v] = F::join::<T, S>(partials[v], partials[v + half]);
        }
        half /= 2;
    }
    F::join_lanes::<T, S>(partials[0])
}

struct ReduceKernel<T, F> {
    /// Offsets of the numbers of one output from its first, in the order in which they are counted.
    reduced: Vec<usize>,
    /// Whether these are 0, 1, 2, …
    is_contiguous: bool,
    /// Visits the first number of each output.
    outputs: Walk<1>,
    numel: usize,
    /// What the result is divided by.
    divisor: Option<f64>,
    kinds: PhantomData<(T, F)>,
}

impl<T, F> ReduceKernel<T, F> {
    fn new(op: &Reduce, input: &Operand, output: &Operand) -> Self {
        let shape = &input.ty.shape;
        let mut reduced = vec![0];
        for &axis in &op.axes {
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
        ReduceKernel {
            is_contiguous: reduced.iter().enumerate().all(|(i, &offset)| i == offset),
            divisor: (op.kind == Kind::Mean).then_some(reduced.len() as f64),
            reduced,
            outputs: Walk::new(&[first], &result),
            numel: output.ty.shape.numel(),
            kinds: PhantomData,
        }
    }
}

impl<T: Float, F: Fold> Kernel for ReduceKernel<T, F> {
    fn run(&self, tile: &mut Tile<'_>) {
        dispatch(OverTile { kernel: self, tile });
    }
}

struct OverTile<'k, 't, 'a, T, F> {
    kernel: &'k ReduceKernel<T, F>,
    tile: &'t mut Tile<'a>,
}

impl<T: Float, F: Fold> Vectorized for OverTile<'_, '_, '_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for model in 0..self.tile.models() {
            let (inputs, mut outputs, _) = self.tile.model(model).split();
            self.kernel.reduce::<S>(inputs.get(0), outputs.take());
        }
    }
}

impl<T: Float, F: Fold> ReduceKernel<T, F> {
    #[inline(always)]
    fn reduce<S: Simd>(&self, x: &[T], y: &mut [T]) {
        if self.numel == 0 {
            return;
        }
        assert_eq!(y.len(), self.numel, "outputs have the shape that the kernel was made for");
        let lanes = T::Lanes::<S>::N;
        let (inner, [step]) = (self.outputs.inner, self.outputs.steps);
        let across = step == 1 && inner > 1 && !self.is_contiguous;
        let last = self.reduced.last().copied().unwrap_or(0);
        for row in 0..self.numel / inner {
            let [start] = self.outputs.row(row);
            debug_assert!(self.reduced.is_empty() || start + (inner - 1) * step + last < x.len());
            let first = x.as_ptr().wrapping_add(start);
            let y = y[row * inner..(row + 1) * inner].as_mut_ptr();
            let mut at = 0;
            while at < inner {
                let n = if across { lanes.min(inner - at) } else { 1 };
                let first = first.wrapping_add(at * step);
                // SAFETY: `outputs` visits the first number of each output and `reduced` the others,
                // all within the input (asserted above in debug builds); `across` takes `n` outputs
                // whose numbers lie side by side.
                let joined = unsafe {
                    if across && n == lanes {
                        self.across::<S, false>(first, n)
                    } else if across {
                        self.across::<S, true>(first, n)
                    } else {
                        self.along::<S>(first)
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

    /// Reduces to one output, in lane 0: its numbers fill the lanes.
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
        for (block, offsets) in self.reduced.chunks(PARTIALS).enumerate() {
            let mut together = [identity; PARTIALS];
            let numbers = if self.is_contiguous && offsets.len() == PARTIALS {
                x.wrapping_add(block * PARTIALS)
            } else {
                for (number, &offset) in together.iter_mut().zip(offsets) {
                    // SAFETY: the caller promises that it can be read.
                    *number = unsafe { *x.wrapping_add(offset) };
                }
                together.as_ptr()
            };
            for (v, partial) in partials.iter_mut().enumerate().take(PARTIALS / lanes) {
                // SAFETY: there are PARTIALS numbers.
                let vector = unsafe { T::Lanes::<S>::load(numbers.wrapping_add(v * lanes)) };
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
