//! Elementwise ops: a [`Formula`] for one vector becomes an op and a kernel over operands of any layout.
//!
//! Operands broadcast as in torch. Where all lie alike, the kernel is one loop over all elements;
//! elsewhere axes are joined as far as they can be, and the output's fastest axis is the inner loop. A
//! formula sees the same numbers in whatever layout they lie, so results are the same bits.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::any::Any;
use core::fmt::Debug;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

use crate::arithmetic::Arithmetic;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::vector::Vector;
use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use crate::cpu::tile::{Input, Output, Tile};
use crate::device::code::{Cuda, Definition};
use crate::device::formula;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::on_device;
use crate::ops::elementwise::walk::Walk;
use crate::text::record::{Double, Single};
use crate::text::{Expression, Text};

/// What an elementwise op computes: `OUT` numbers from `IN` numbers, whatever kind of numbers that is.
///
/// [`Pointwise`] makes an [`Op`] of it.
pub trait Formula<const IN: usize, const OUT: usize>: Any + Copy + Debug + Send + Sync {
    /// See [`Op::keeps_halves`].
    const KEEPS_HALVES: bool = false;

    /// Gives the name under which the op is printed.
    fn name(&self) -> &'static str;

    /// Gives the settings that are not inputs, as printed after the name.
    fn attributes(&self) -> String {
        String::new()
    }

    /// Computes each output. Implementations are `#[inline(always)]`.
    fn apply<A: Arithmetic>(self, x: [A; IN]) -> [A; OUT];

    /// Records the gradient of each input in the shape of the outputs; [`Pointwise`] sums it over the
    /// axes along which the input was broadcast. As in [`Op::gradient`], a gradient of 0 is stated by
    /// [`GradientAt::zero`], and `None` says that there is no rule.
    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>>;
}

/// The op that applies a [`Formula`] to each element of its inputs, broadcast against each other.
///
/// All inputs and outputs have one floating-point dtype.
#[derive(Clone, Copy, Debug)]
pub struct Pointwise<F, const IN: usize, const OUT: usize>(
    /// What is computed.
    pub F,
);

impl<F: Formula<IN, OUT>, const IN: usize, const OUT: usize> Pointwise<F, IN, OUT> {
    /// Gives the formula of `op`, if it is of this type.
    pub fn of(op: &dyn Op) -> Option<F> {
        (op as &dyn Any).downcast_ref::<Self>().map(|op| op.0)
    }
}

impl<F: Formula<IN, OUT>, const IN: usize, const OUT: usize> Op for Pointwise<F, IN, OUT> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn mixing(&self) -> Mixing {
        Mixing::Arithmetic
    }

    fn keeps_halves(&self) -> bool {
        F::KEEPS_HALVES
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [first, others @ ..] = inputs else {
            return Err(OpError(format!("{}: expected {IN} inputs, got 0", self.name())));
        };
        if inputs.len() != IN {
            let got = inputs.len();
            return Err(OpError(format!("{}: expected {IN} inputs, got {got}", self.name())));
        }
        computes(self.name(), first)?;
        let mut shape = first.shape.clone();
        for other in others {
            same_dtype(self.name(), first, other)?;
            shape = broadcast(&shape, &other.shape)?;
        }
        Ok(vec![Type { dtype: first.dtype, shape }; OUT])
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(inputs, &outputs[0].shape); OUT]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            outputs.iter().for_each(Operand::assert_addressable);
            let walk = Walk::new(inputs, &outputs[0]);
            match outputs[0].ty.dtype {
                Dtype::F64 => Box::new(Elementwise::<f64, F, IN, OUT>::new(self.0, walk)),
                _ => Box::new(Elementwise::<f32, F, IN, OUT>::new(self.0, walk)),
            }
        })
        .give::<Text>(|_, _| Box::new(*self))
        .give::<Cuda>(|inputs, outputs| {
            let functions = self.functions(outputs[0].ty.dtype == Dtype::F64);
            Box::new(on_device::code::<IN>(functions, inputs, outputs))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let gradients = self.0.gradient(at).into_iter().zip(at.inputs.iter().zip(at.needs));
        gradients
            .map(|(gradient, (input, &needed))| {
                gradient.filter(|_| needed).map(|gradient| gradient.sum_to(input.shape()))
            })
            .collect()
    }
}

impl<F: Formula<IN, OUT>, const IN: usize, const OUT: usize> Expression for Pointwise<F, IN, OUT> {
    fn singles(&self, x: &[Single]) -> Vec<Single> {
        self.0.apply(core::array::from_fn(|i| x[i])).to_vec()
    }

    fn doubles(&self, x: &[Double]) -> Vec<Double> {
        self.0.apply(core::array::from_fn(|i| x[i])).to_vec()
    }
}

/// Records the op that applies `formula` to `inputs`.
pub fn pointwise<F: Formula<IN, 1>, const IN: usize>(formula: F, inputs: [&Var; IN]) -> Var {
    const { assert!(IN > 0, "a formula has inputs, whose recording keeps the op") };
    inputs[0].trace().apply(Pointwise::<F, IN, 1>(formula), &inputs)
}

/// Checks that numbers of this type can be computed with.
pub(crate) fn computes(op: &str, ty: &Type) -> Result<(), OpError> {
    match ty.dtype {
        Dtype::F32 | Dtype::F64 => Ok(()),
        dtype => Err(OpError(format!("\"{op}\" not implemented for '{dtype}'"))),
    }
}

/// Checks that two values have the same dtype: nothing is promoted.
pub(crate) fn same_dtype(op: &str, a: &Type, b: &Type) -> Result<(), OpError> {
    if a.dtype == b.dtype {
        return Ok(());
    }
    Err(OpError(format!("{op}: expected both to have the same dtype, but got: {a} and {b}")))
}

/// Broadcasts two shapes, or says in torch's words why they do not.
pub(crate) fn broadcast(a: &Shape, b: &Shape) -> Result<Shape, OpError> {
    a.broadcast(b).ok_or_else(|| {
        let rank = a.rank().max(b.rank());
        let size = |shape: &Shape, axis: usize| {
            (axis + shape.rank()).checked_sub(rank).map_or(1, |axis| shape[axis])
        };
        let differ = |&axis: &usize| {
            let (a, b) = (size(a, axis), size(b, axis));
            a != b && a != 1 && b != 1
        };
        // torch looks from the last axis on.
        let axis = (0..rank).rev().find(differ).unwrap_or(0);
        OpError(format!(
            "The size of tensor a ({}) must match the size of tensor b ({}) at non-singleton \
             dimension {axis}",
            size(a, axis),
            size(b, axis),
        ))
    })
}

/// Chooses the layout of an elementwise output: that of the first input that has its shape.
pub(crate) fn layout_like(inputs: &[Operand], shape: &Shape) -> Layout {
    match inputs.iter().find(|input| input.ty.shape == *shape) {
        Some(input) => shape.ordered(&input.layout.order(shape)),
        None => shape.row_major(),
    }
}

impl<F: Formula<IN, OUT>, const IN: usize, const OUT: usize> Pointwise<F, IN, OUT> {
    /// Prints the functions of a device that compute the outputs; gives them with their names.
    fn functions(&self, is_double: bool) -> (Vec<Definition>, Vec<String>) {
        let name = self.0.name();
        match is_double {
            true => formula::functions::<true>(name, IN, |x| self.doubles(x)),
            false => formula::functions::<false>(name, IN, |x| self.singles(x)),
        }
    }
}

/// The kernel of an elementwise op.
struct Elementwise<T, F, const IN: usize, const OUT: usize> {
    formula: F,
    walk: Walk<IN>,
    element: PhantomData<T>,
}

impl<T, F, const IN: usize, const OUT: usize> Elementwise<T, F, IN, OUT> {
    fn new(formula: F, walk: Walk<IN>) -> Self {
        Elementwise { formula, walk, element: PhantomData }
    }
}

impl<T: Float, F: Formula<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for Elementwise<T, F, IN, OUT>
{
    fn run(&self, tile: &mut Tile<'_>) {
        let (formula, walk) = (self.formula, &self.walk);
        let is_split = tile.split() && walk.numel >= WORTH_SPLITTING;
        let models = tile.models();
        let (inputs, mut outputs, _) = tile.operands();
        let x: [Input<'_, T>; IN] = core::array::from_fn(|i| inputs.get(i));
        let mut y: [Output<'_, T>; OUT] = core::array::from_fn(|_| outputs.take());
        walk.assert_in_tile(&x);
        if !is_split {
            dispatch((formula, Work::Models { walk, x, y, models: 0..models }));
            return;
        }
        for model in 0..models {
            let x = core::array::from_fn(|i| x[i].at(model));
            let mut y = y.iter_mut().map(|y| y.at(model));
            let y = core::array::from_fn(|_| y.next().unwrap_or_default());
            apply_split(formula, walk, x, y);
        }
    }
}

/// Applies `formula` as [`apply`] does, on the threads of the pool if there are many elements.
pub(in crate::ops) fn apply_split<T, F, const IN: usize, const OUT: usize>(
    formula: F,
    walk: &Walk<IN>,
    x: [&[T]; IN],
    y: [&mut [T]; OUT],
) where
    T: Float,
    F: Formula<IN, OUT>,
{
    assert!(y.iter().all(|y| y.len() == walk.numel), "outputs have the shape of the walk");
    walk.assert_within(&x);
    let y = Pieces(y.map(<[T]>::as_mut_ptr));
    Visits::all(walk).split(0, &|visits, first| {
        // SAFETY: `split` gives each element of the outputs, which have `walk.numel`, to one part.
        let y = unsafe { y.of(first, visits.numel()) };
        dispatch((formula, Work::Part { visits, x, y: Some(y) }));
    });
}

/// What is left to be computed with one formula. One type for whole tiles and for parts of a model, so that the loops
/// over elements are compiled once; beside the formula, because the compiler puts a tuple's code beside its first type.
enum Work<'a, T, const IN: usize, const OUT: usize> {
    /// Some models of a tile.
    Models {
        walk: &'a Walk<IN>,
        x: [Input<'a, T>; IN],
        y: [Output<'a, T>; OUT],
        models: Range<usize>,
    },
    /// A part of one model.
    Part { visits: Visits<'a, IN>, x: [&'a [T]; IN], y: Option<[&'a mut [T]; OUT]> },
}

impl<T: Float, F: Formula<IN, OUT>, const IN: usize, const OUT: usize> Vectorized
    for (F, Work<'_, T, IN, OUT>)
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (formula, mut work) = self;
        loop {
            let (visits, x, y) = match &mut work {
                Work::Models { walk, x, y, models } => {
                    let Some(model) = models.next() else { return };
                    let mut y = y.iter_mut().map(|y| y.at(model));
                    let y = core::array::from_fn(|_| y.next().unwrap_or_default());
                    (Visits::all(walk), core::array::from_fn(|i| x[i].at(model)), y)
                }
                Work::Part { visits, x, y } => {
                    let Some(y) = y.take() else { return };
                    (visits.clone(), *x, y)
                }
            };
            // SAFETY: whoever made the work asserted that inputs have what the walk visits: `Elementwise::run` for all
            // models of a tile, `apply_split` for one.
            unsafe { visit::<T, S, F, IN, OUT>(formula, &visits, x, y) };
        }
    }
}

/// The outputs of one model, whose parts threads write.
struct Pieces<T, const OUT: usize>([*mut T; OUT]);

// SAFETY: the pointers are used by `of` alone, whose callers write different parts.
unsafe impl<T: Send, const OUT: usize> Sync for Pieces<T, OUT> {}

impl<T, const OUT: usize> Pieces<T, OUT> {
    /// Returns `n` elements of each output from `first` on.
    ///
    /// # Safety
    ///
    /// The outputs have them, and nobody else uses them while the slices live.
    unsafe fn of<'a>(&self, first: usize, n: usize) -> [&'a mut [T]; OUT] {
        // SAFETY: as this function's.
        core::array::from_fn(|i| unsafe {
            core::slice::from_raw_parts_mut(self.0[i].add(first), n)
        })
    }
}

/// From this many elements on (some microseconds), one model's work is split over threads.
pub(in crate::ops) const WORTH_SPLITTING: usize = 1 << 16;

/// Some of the inner loops of a walk, or a part of one.
#[derive(Clone)]
struct Visits<'a, const IN: usize> {
    walk: &'a Walk<IN>,
    rows: Range<usize>,
    /// All of the inner loop, unless there is one row.
    inner: Range<usize>,
}

impl<'a, const IN: usize> Visits<'a, IN> {
    #[inline(always)]
    fn all(walk: &'a Walk<IN>) -> Self {
        Visits { walk, rows: 0..walk.n_rows(), inner: 0..walk.inner }
    }

    fn numel(&self) -> usize {
        self.rows.len() * self.inner.len()
    }

    /// Shares them out on the threads of the pool: `leaf` gets a part, and how many elements come before it.
    fn split(self, first: usize, leaf: &(dyn Fn(Self, usize) + Sync)) {
        if self.numel() < WORTH_SPLITTING {
            leaf(self, first);
            return;
        }
        let [upper, lower] = self.halves();
        let middle = first + upper.numel();
        rayon::join(|| upper.split(first, leaf), || lower.split(middle, leaf));
    }

    /// Halves them, between rows or else between whole vectors of every instruction set.
    fn halves(self) -> [Self; 2] {
        let Visits { walk, rows, inner } = self;
        if rows.len() > 1 {
            let at = rows.start + rows.len() / 2;
            let of = |rows| Visits { walk, rows, inner: inner.clone() };
            return [of(rows.start..at), of(at..rows.end)];
        }
        let at = inner.start + (inner.len() / 2).next_multiple_of(BLOCK).min(inner.len());
        let of = |inner| Visits { walk, rows: rows.clone(), inner };
        [of(inner.start..at), of(at..inner.end)]
    }
}

/// Applies `formula` to the elements of `x`, which lie as `walk` says, and fills each of `y` in order.
#[inline(always)]
pub(crate) fn apply<T, S, F, const IN: usize, const OUT: usize>(
    formula: F,
    walk: &Walk<IN>,
    x: [&[T]; IN],
    y: [&mut [T]; OUT],
) where
    T: Float,
    S: Simd,
    F: Formula<IN, OUT>,
{
    walk.assert_within(&x);
    // SAFETY: the line above asserts it.
    unsafe { visit::<T, S, F, IN, OUT>(formula, &Visits::all(walk), x, y) };
}

/// Applies `formula` as [`apply`] does, and fills `y`, which holds what is visited and nothing else.
///
/// # Safety
///
/// Each of `x` has as many elements as the walk [reaches](Walk::reach).
#[inline(always)]
unsafe fn visit<T, S, F, const IN: usize, const OUT: usize>(
    formula: F,
    Visits { walk, rows, inner: within }: &Visits<'_, IN>,
    x: [&[T]; IN],
    mut y: [&mut [T]; OUT],
) where
    T: Float,
    S: Simd,
    F: Formula<IN, OUT>,
{
    let (numel, n) = (rows.len() * within.len(), within.len());
    if walk.numel == 0 || numel == 0 {
        return;
    }
    for y in &y {
        assert_eq!(y.len(), numel, "outputs have the shape that the walk was made for");
    }
    let x_start: [*const T; IN] = core::array::from_fn(|i| x[i].as_ptr());
    let y_start: [*mut T; OUT] = core::array::from_fn(|i| y[i].as_mut_ptr());
    // Elements that lie apart are brought together first, some at a time.
    let strided = walk.steps.iter().any(|&step| step > 1);
    let block = if strided { BLOCK } else { n };
    let mut together = [[const { MaybeUninit::<T>::uninit() }; BLOCK]; IN];
    for (place, row) in rows.clone().enumerate() {
        let offsets = walk.row(row);
        let mut start = 0;
        while start < n {
            let block = block.min(n - start);
            let at = |i: usize| offsets[i] + (within.start + start) * walk.steps[i];
            let from: [*const T; IN] = core::array::from_fn(|i| x_start[i].wrapping_add(at(i)));
            let to = core::array::from_fn(|k| y_start[k].wrapping_add(place * n + start));
            // SAFETY: the caller promises that no visited offset is beyond its input, and `rows` and `within` are
            // parts of the walk; `y` has `rows · n` elements, asserted above, and each of `together` has `block`.
            unsafe {
                if strided {
                    for (i, together) in together.iter_mut().enumerate() {
                        for (j, element) in together.iter_mut().take(block).enumerate() {
                            element.write(*from[i].wrapping_add(j * walk.steps[i]));
                        }
                    }
                }
                let from = core::array::from_fn(|i| match strided {
                    true => together[i].as_ptr().cast(),
                    false => from[i],
                });
                let steps = if strided { [1; IN] } else { walk.steps };
                inner::<T, S, F, IN, OUT>(formula, block, from, steps, to);
            }
            start += block;
        }
    }
}

/// Applies `formula` to `n` elements that lie one behind the other (step 1) or are one (step 0).
///
/// # Safety
///
/// Each of `x` points to `n` readable numbers, to one if its step is 0; each of `y` to `n` writable.
#[inline(always)]
unsafe fn inner<T, S, F, const IN: usize, const OUT: usize>(
    formula: F,
    n: usize,
    x: [*const T; IN],
    steps: [usize; IN],
    y: [*mut T; OUT],
) where
    T: Float,
    S: Simd,
    F: Formula<IN, OUT>,
{
    let lanes = T::Lanes::<S>::N;
    // A single number is spread over a vector that every round of the loop reads again.
    let splats: [T::Lanes<S>; IN] = core::array::from_fn(|i| {
        // SAFETY: `x[i]` points to at least one readable number, since `n > 0`.
        T::Lanes::<S>::splat(unsafe { *x[i] })
    });
    let x: [*const T; IN] = core::array::from_fn(|i| match steps[i] {
        0 => (&raw const splats[i]).cast(),
        _ => x[i],
    });
    let whole = n - n % lanes;
    let mut at = 0;
    while at < whole {
        // SAFETY: `at + N ≤ n`; where the step is 0, the vector of `splats` is read.
        let vectors = core::array::from_fn(|i| unsafe {
            Vector::<T, S>(T::Lanes::<S>::load(x[i].wrapping_add(at * steps[i])))
        });
        let results = formula.apply(vectors);
        for k in 0..OUT {
            // SAFETY: `at + N ≤ n` elements of `y` are writable.
            unsafe { results[k].0.store(y[k].wrapping_add(at)) };
        }
        at += lanes;
    }
    if whole < n {
        let rest = n - whole;
        // SAFETY: as above, with `rest < N` elements.
        let vectors = core::array::from_fn(|i| unsafe {
            Vector::<T, S>(T::Lanes::<S>::load_first(x[i].wrapping_add(whole * steps[i]), rest))
        });
        let results = formula.apply(vectors);
        for k in 0..OUT {
            // SAFETY: as above, with `rest < N` elements.
            unsafe { results[k].0.store_first(y[k].wrapping_add(whole), rest) };
        }
    }
}

/// Elements that are brought together at a time: some vectors of any instruction set.
const BLOCK: usize = 64;
