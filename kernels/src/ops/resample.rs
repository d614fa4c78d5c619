//! Linear maps along axes, one axis after the other: `resample`. Padding, pooling by averages, upsampling in
//! every mode, unfolding and folding are such maps, and so are their gradients.
//!
//! Axes that shrink most come first, equals in their order. Each number is the sum of its terms, which [`Taps`] lists, in
//! the [order of sums](crate::cpu::sum).
//!
//! Source: the separable form of `torch.nn.functional.interpolate`, `avg_pool2d`, `pad`, `unfold` and their kin.

mod taps;

pub use taps::Taps;

use crate::cpu::kernel::Cpu;
use crate::cpu::simd::Simd;
use crate::cpu::sum::{join_few, sum_of};
use crate::cpu::tile::{Tile, VectorKernel, vector_kernel};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::{Var, has_room};
use crate::memory::check_room;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::computes;
use crate::ops::index::scatter::sum_rows;
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// What happens along one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Along {
    /// The axis.
    pub axis: usize,
    /// How its numbers are made.
    pub taps: Taps,
    /// How the gradient's are: the transposed taps, but where torch takes others.
    pub adjoint: Taps,
}

impl Along {
    /// Joins an axis and its taps.
    pub fn new(axis: usize, taps: Taps) -> Self {
        let adjoint = taps.transposed();
        Along { axis, taps, adjoint }
    }

    fn is_identity(&self) -> bool {
        self.taps.is_identity() && self.adjoint.is_identity()
    }
}

#[derive(Clone, Debug)]
struct Resample {
    /// In the order in which they are applied.
    along: Vec<Along>,
}

impl Resample {
    fn adjoint(&self) -> Self {
        let swapped = self.along.iter().map(|of| Along {
            axis: of.axis,
            taps: of.adjoint.clone(),
            adjoint: of.taps.clone(),
        });
        Resample { along: ordered(swapped.collect()) }
    }
}

/// Puts the axes that shrink most first.
fn ordered(mut along: Vec<Along>) -> Vec<Along> {
    along.sort_by(|a, b| {
        let (a_side, b_side) =
            (a.taps.outputs() * b.taps.inputs().max(1), b.taps.outputs() * a.taps.inputs().max(1));
        a_side.cmp(&b_side).then(a.axis.cmp(&b.axis))
    });
    along
}

impl Op for Resample {
    fn name(&self) -> &'static str {
        "resample"
    }

    fn attributes(&self) -> String {
        let of = |of: &Along| format!("dim={} {}", of.axis, of.taps);
        self.along.iter().map(of).collect::<Vec<_>>().join(" ")
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("resample: expected 1 input, got {}", inputs.len())));
        };
        computes("resample", x)?;
        let mut sizes = x.shape.to_vec();
        for Along { axis, taps, adjoint } in &self.along {
            let size = sizes.get_mut(*axis).filter(|size| **size == taps.inputs());
            let fits = (taps.inputs(), taps.outputs()) == (adjoint.outputs(), adjoint.inputs());
            match size {
                Some(size) if fits && taps.are_within() => *size = taps.outputs(),
                _ => {
                    return Err(OpError(format!(
                        "resample: taps of {} numbers do not fit axis {axis} of {}",
                        taps.inputs(),
                        x.shape
                    )));
                }
            }
        }
        Ok(vec![Type::new(x.dtype, sizes)])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.ordered(&inputs[0].layout.order(&inputs[0].ty.shape))]
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        let widest = self.along.iter().map(|of| of.taps.terms() / of.taps.outputs().max(1)).max();
        (inputs[0].shape.numel() + outputs[0].shape.numel()) * widest.unwrap_or(1).max(1)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let order = inputs[0].layout.order(&inputs[0].ty.shape);
            match inputs[0].ty.dtype {
                Dtype::F64 => vector_kernel(ResampleKernel::<f64>::new(self, &inputs[0], &order)),
                _ => vector_kernel(ResampleKernel::<f32>::new(self, &inputs[0], &order)),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| dy.trace().apply(self.adjoint(), &[dy]))]
    }
}

/// One axis after another.
struct ResampleKernel<T> {
    passes: Vec<Pass<T>>,
    /// Numbers between passes.
    between: usize,
}

impl<T: Number> ResampleKernel<T> {
    /// `order` lists the axes from the slowest to the fastest in memory.
    fn new(op: &Resample, x: &Operand, order: &[usize]) -> Self {
        let mut sizes = x.ty.shape.to_vec();
        let mut passes = Vec::with_capacity(op.along.len());
        for along in &op.along {
            let place = order.iter().position(|&axis| axis == along.axis);
            let (slower, faster) = order.split_at(place.unwrap_or(order.len()));
            let size = |axes: &[usize]| axes.iter().map(|&axis| sizes[axis]).product();
            let (outer, inner) = (size(slower), size(faster.get(1..).unwrap_or(&[])));
            passes.push(Pass::new(outer, inner, &along.taps));
            sizes[along.axis] = along.taps.outputs();
        }
        let between = passes.iter().rev().skip(1).map(Pass::numel).sum();
        ResampleKernel { passes, between }
    }
}

impl<T: Number> VectorKernel for ResampleKernel<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let [mut between] = carve::<T, 1>(scratch, [self.between]);
            let mut from: &[T] = inputs.get(0);
            let [passes @ .., last] = self.passes.as_slice() else { return };
            for pass in passes {
                let (to, rest) = between.split_at_mut(pass.numel());
                pass.run(from, to);
                (from, between) = (to, rest);
            }
            last.run(from, outputs.take());
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.between])
    }
}

/// One axis of a dense array: `[outer, inputs, inner]` becomes `[outer, outputs, inner]`.
struct Pass<T> {
    outer: usize,
    inner: usize,
    inputs: usize,
    outputs: usize,
    /// Where the terms of each output end in `terms`.
    ends: Vec<usize>,
    terms: Vec<(usize, T)>,
}

impl<T: Number> Pass<T> {
    fn new(outer: usize, inner: usize, taps: &Taps) -> Self {
        let (mut ends, mut terms) = (Vec::with_capacity(taps.outputs()), Vec::new());
        for row in taps.rows() {
            terms.extend(row.iter().map(|&(from, weight)| (from, T::from_f64(weight))));
            ends.push(terms.len());
        }
        let (inputs, outputs) = (taps.inputs(), taps.outputs());
        Pass { outer, inner, inputs, outputs, ends, terms }
    }

    fn numel(&self) -> usize {
        self.outer * self.outputs * self.inner
    }

    #[inline(always)]
    fn run(&self, x: &[T], y: &mut [T]) {
        let inner = self.inner;
        if y.is_empty() {
            return;
        }
        for (outer, y) in y.chunks_exact_mut(self.outputs * inner).enumerate() {
            let x = &x[outer * self.inputs * inner..][..self.inputs * inner];
            let mut start = 0;
            for (y, &end) in y.chunks_exact_mut(inner).zip(&self.ends) {
                sum(&self.terms[start..end], x, y);
                start = end;
            }
        }
    }
}

/// Adds up the terms of one number for all numbers beside it.
#[inline(always)]
fn sum<T: Number>(terms: &[(usize, T)], x: &[T], y: &mut [T]) {
    let inner = y.len();
    match terms.len() {
        0 => y.fill(T::default()),
        1 => few::<T, 1>(terms, x, y),
        2 => few::<T, 2>(terms, x, y),
        3 => few::<T, 3>(terms, x, y),
        4 => few::<T, 4>(terms, x, y),
        _ if inner == 1 => y[0] = sum_of(terms, |(from, weight)| x[from] * weight),
        _ => {
            let row = |&(from, weight): &(usize, T)| (&x[from * inner..][..inner], weight);
            sum_rows(terms.iter().map(row), y);
        }
    }
}

/// Adds up `N` terms, no more than four. One is what it is, even if it is -0.
#[inline(always)]
fn few<T: Number, const N: usize>(terms: &[(usize, T)], x: &[T], y: &mut [T]) {
    let inner = y.len();
    let rows: [(&[T], T); N] = core::array::from_fn(|i| {
        let (from, weight) = terms[i];
        (&x[from * inner..][..inner], weight)
    });
    for (place, y) in y.iter_mut().enumerate() {
        let mut products = rows.map(|(row, weight)| row[place] * weight);
        let sum = join_few(&mut products);
        *y = if N > 1 { sum + T::default() } else { sum };
    }
}

/// What a number of an axis takes in lists such as [`Taps`], in bytes.
const LISTED_BYTES: usize = 64;

impl Var {
    /// Checks that this value, with axes of `sizes` from axis `first` on, fits the machine's memory, and so do lists
    /// that are as long as these axes: before the lists are made.
    pub(in crate::ops) fn has_room_for(&self, first: usize, sizes: &[usize]) -> Result<(), String> {
        let shape = self.shape()[..first].iter().chain(sizes).map(|&size| size.max(1));
        has_room(&Type::new(self.dtype(), shape.collect::<Shape>())).map_err(|error| error.0)?;
        let longest = sizes.iter().copied().max().unwrap_or(0);
        check_room(longest.saturating_mul(LISTED_BYTES)).map_err(|error| error.to_string())
    }

    /// Makes the numbers along some axes, each named once, of weighted sums of what was there.
    ///
    /// # Shape
    ///
    /// The size of each axis is that of its [`Taps`]; the other axes stay.
    #[must_use]
    pub fn resample(&self, along: impl IntoIterator<Item = Along>) -> Var {
        let along: Vec<_> = along.into_iter().filter(|of| !of.is_identity()).collect();
        let repeats = |of: &Along| along.iter().filter(|other| other.axis == of.axis).count() > 1;
        if self.id().is_none() || along.is_empty() {
            return self.clone();
        }
        if along.iter().any(repeats) {
            return self
                .trace()
                .fail("resample: an axis appears multiple times in the list of axes");
        }
        self.trace().apply(Resample { along: ordered(along) }, &[self])
    }
}
