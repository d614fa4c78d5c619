//! What the update rules share: their inputs, and the kernel that walks over a parameter and its states in
//! place.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::fmt::Debug;
use core::marker::PhantomData;
use core::ptr;
use std::sync::Arc;

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::halves::Stored;
use crate::cpu::simd::{Float, Lanes, MAX_LANES, Simd, Vectorized, dispatch};
use crate::cpu::tile::{Input, Output, Tile};
use crate::cpu::vector_kernel::{VectorKernel, run_vectors};
use crate::device::code::Cuda;
use crate::ir::dtype::{Dtype, bf16, f16};
use crate::ir::op::{Around, Ask, OfHalf, Op, OpError, Reads};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::WORTH_SPLITTING;
use crate::ops::update::on_device::OnDevice;

/// What an update rule reads beside the parameter.
#[derive(Clone, Copy)]
pub struct UpdateInputs<'a> {
    /// The gradient, of the parameter's type.
    pub gradient: &'a Var,
    /// The states, of the parameter's type, in the order that the rule names.
    pub states: &'a [Var],
    /// The counts of steps: f32, `[k]`.
    pub steps: &'a Var,
    /// Which of the counts is this parameter's.
    pub index: usize,
    /// Gives a rate by its name: f64 of shape `[]`.
    pub rate: &'a dyn Fn(&'static str) -> Var,
}

/// What an update gives; to be stored in the slots of its inputs.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The parameter.
    pub parameter: Var,
    /// The states.
    pub states: Vec<Var>,
    /// The counts of steps, one of them higher by 1.
    pub steps: Var,
}

/// Records the update of `parameter` by `rule`; `rates` names its rates in order.
pub(super) fn apply<R, const STATES: usize, const RATES: usize>(
    parameter: &Var,
    at: &UpdateInputs<'_>,
    rule: R,
    rates: [&'static str; RATES],
) -> Updated
where
    R: Named + Rule<STATES, RATES>,
{
    let op = UpdateOp::<R, STATES, RATES> { rule, index: at.index };
    record(parameter, at, &rates, STATES, Arc::new(op))
}

/// Records an update by an op whose inputs are as a [`Rule`]'s.
pub(super) fn record(
    parameter: &Var,
    at: &UpdateInputs<'_>,
    rates: &[&'static str],
    states: usize,
    op: Arc<dyn Op>,
) -> Updated {
    let rates: Vec<_> = rates.iter().map(|&name| (at.rate)(name)).collect();
    let inputs = [parameter, at.gradient].into_iter().chain(at.states);
    let inputs: Vec<_> = inputs.chain([at.steps]).chain(&rates).collect();
    let mut outputs = parameter.trace().apply_all(op, &inputs, states + 2);
    let parameter = outputs.remove(0);
    let steps = outputs.pop().unwrap_or_else(|| at.steps.clone());
    Updated { parameter, states: outputs, steps }
}

/// Pairs of inputs and outputs that share their memory, of up to four states.
const IN_PLACE: [(usize, usize); 6] = [(0, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)];

/// Lists the inputs that an update of `states` states changes in place.
pub(super) fn in_place(states: usize) -> &'static [(usize, usize)] {
    &IN_PLACE[..states + 2]
}

/// An update rule as an op.
#[derive(Clone, Copy, Debug)]
struct UpdateOp<R, const STATES: usize, const RATES: usize> {
    rule: R,
    /// Which of the counts of steps is the parameter's.
    index: usize,
}

impl<R, const STATES: usize, const RATES: usize> Op for UpdateOp<R, STATES, RATES>
where
    R: Named + Rule<STATES, RATES>,
{
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn attributes(&self) -> String {
        attributes(self.index, &self.rule.flags())
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        types(R::NAME, inputs, (STATES, RATES), self.index)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        in_place(STATES)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| kernel(self.rule, self.index, &inputs[0].ty));
        if let Some(text) = R::ON_DEVICE {
            ask.give::<Cuda>(|_, outputs| {
                let (flags, reads_states) = (&self.rule.flags(), R::READS_STATES);
                let of = OnDevice { name: R::NAME, text, flags, reads_states };
                Box::new(of.code(self.index, (STATES, RATES), outputs))
            });
        }
    }
}

/// How an update rule is printed.
pub(super) trait Named: Copy + Debug {
    /// The name of the op.
    const NAME: &'static str;

    /// The rule in CUDA C++, if there is one: see [`OnDevice`].
    const ON_DEVICE: Option<&'static str> = None;

    /// Lists the flags that decide the formula.
    fn flags(self) -> Vec<(&'static str, bool)>;
}

/// Prints the place of a parameter's count, then the flags that are set.
pub(super) fn attributes(index: usize, flags: &[(&str, bool)]) -> String {
    let set = flags.iter().filter(|(_, is_set)| *is_set);
    set.fold(format!("index={index}"), |text, (name, _)| format!("{text} {name}"))
}

/// Gives the gradient, its sign turned around to climb, with the weight's decay added.
#[inline(always)]
pub(super) fn decayed<T: Float, S: Simd>(
    maximize: bool,
    decay: T,
    p: T::Lanes<S>,
    g: T::Lanes<S>,
) -> T::Lanes<S> {
    p.mul_add(T::Lanes::<S>::splat(decay), climbed::<T, S>(maximize, g))
}

/// Gives the parameter and its gradient after the weight's decay: decoupled, the parameter times `decay`;
/// otherwise the gradient with `decay` times the parameter added.
#[inline(always)]
pub(super) fn with_decay<T: Float, S: Simd>(
    decoupled: bool,
    maximize: bool,
    decay: T,
    p: T::Lanes<S>,
    g: T::Lanes<S>,
) -> (T::Lanes<S>, T::Lanes<S>) {
    match decoupled {
        true => (p.mul(T::Lanes::<S>::splat(decay)), climbed::<T, S>(maximize, g)),
        false => (p, decayed::<T, S>(maximize, decay, p, g)),
    }
}

/// Gives the gradient, its sign turned around to climb.
#[inline(always)]
pub(super) fn climbed<T: Float, S: Simd>(maximize: bool, g: T::Lanes<S>) -> T::Lanes<S> {
    if maximize { T::Lanes::<S>::splat(T::default()).sub(g) } else { g }
}

/// Gives the greater of two numbers, or NaN if one is.
#[inline(always)]
pub(super) fn maximum<T: Float, S: Simd>(a: T::Lanes<S>, b: T::Lanes<S>) -> T::Lanes<S> {
    T::Lanes::<S>::select(b.eq(b), T::Lanes::<S>::select(a.eq(a), a.max(b), a), b)
}

/// An update rule: what becomes of a parameter and its `STATES` states, a vector at a time.
///
/// Inputs are the parameter, the gradient, the states, the counts of steps and `RATES` rates; outputs the
/// parameter, the states and the counts, each in its input's memory.
pub(super) trait Rule<const STATES: usize, const RATES: usize>:
    Copy + Send + Sync + 'static
{
    /// A step's numbers, ready for vectors of `T`.
    type Step<T: Float>: Copy + Default + Send + Sync;

    /// Whether the numbers of a step follow from states too: those that are one number for a parameter, the
    /// same in all its elements.
    const READS_STATES: bool = false;

    /// Prepares update number `step`, counted from 1, of a model with these rates. Implementations are
    /// `#[inline(always)]`.
    fn step<T: Float>(self, rates: [f64; RATES], step: f64) -> Self::Step<T>;

    /// [`step`](Rule::step) of a rule that reads states, given the first element of each.
    fn step_from<T: Float>(
        self,
        rates: [f64; RATES],
        step: f64,
        states: [T; STATES],
    ) -> Self::Step<T> {
        let _ = states;
        self.step(rates, step)
    }

    /// Gives parameter and states after the update.
    fn update<T: Float, S: Simd>(
        self,
        step: &Self::Step<T>,
        parameter: T::Lanes<S>,
        gradient: T::Lanes<S>,
        states: [T::Lanes<S>; STATES],
    ) -> (T::Lanes<S>, [T::Lanes<S>; STATES]);
}

/// Gives what an update of `states` states reads and writes if parameter and states can lie in a half, and that half; its
/// gradient is rounded to it as it is read, for it is one of singles.
pub(super) fn in_halves(around: &Around<'_>, states: usize) -> Option<(Dtype, Vec<Reads>)> {
    let half = (*around.outputs.first()?)?;
    let widened = Some(OfHalf { dtype: half, is_widened: true });
    let reads = |input: usize| match input {
        1 => Reads::Rounds,
        _ if input < 2 + states => Reads::Half,
        _ => Reads::AsIs,
    };
    let is_read = |input: usize| match (reads(input), around.inputs[input]) {
        (Reads::Rounds, found) => found.is_some_and(|of| of.dtype == half),
        (Reads::Half, found) => found == widened,
        (Reads::AsIs, _) => true,
    };
    let all = 0..around.inputs.len();
    let fits = all.clone().all(is_read)
        && around.outputs[..=states].iter().all(|output| *output == Some(half))
        && around.outputs[states + 1].is_none();
    fits.then(|| (half, all.map(reads).collect()))
}

/// As [`types`] where parameter and states lie in `half`, if there is one, and the gradient is of singles.
pub(super) fn types_in(
    half: Option<Dtype>,
    name: &str,
    inputs: &[Type],
    (states, rates): (usize, usize),
    index: usize,
) -> Result<Vec<Type>, OpError> {
    let Some(half) = half else { return types(name, inputs, (states, rates), index) };
    let lies = |input: usize| input == 0 || (2..2 + states).contains(&input);
    let mut wide = inputs.to_vec();
    for (_, ty) in wide.iter_mut().enumerate().filter(|(input, _)| lies(*input)) {
        if ty.dtype != half {
            return Err(OpError(format!(
                "{name}: expected parameter and states of {half}, got {ty}"
            )));
        }
        ty.dtype = Dtype::F32;
    }
    let mut outputs = types(name, &wide, (states, rates), index)?;
    outputs.iter_mut().take(1 + states).for_each(|ty| ty.dtype = half);
    Ok(outputs)
}

/// Checks the types of an update's inputs and gives those of its outputs.
pub(super) fn types(
    name: &str,
    inputs: &[Type],
    (states, rates): (usize, usize),
    index: usize,
) -> Result<Vec<Type>, OpError> {
    if inputs.len() != 3 + states + rates {
        let expected = 3 + states + rates;
        return Err(OpError(format!("{name}: expected {expected} inputs, got {}", inputs.len())));
    }
    let parameter = &inputs[0];
    crate::ops::elementwise::pointwise::computes(name, parameter)?;
    if let Some(other) = inputs[1..2 + states].iter().find(|&ty| ty != parameter) {
        return Err(OpError(format!(
            "{name}: expected a gradient and states of the parameter's type {parameter}, got {other}"
        )));
    }
    let steps = &inputs[2 + states];
    if steps.dtype != Dtype::F32 || steps.shape.rank() != 1 || steps.shape[0] <= index {
        return Err(OpError(format!(
            "{name}: expected more than {index} counts of steps of f32, got {steps}"
        )));
    }
    let number = Type::new(Dtype::F64, []);
    if let Some(other) = inputs[3 + states..].iter().find(|&ty| *ty != number) {
        return Err(OpError(format!("{name}: expected rates of {number}, got {other}")));
    }
    Ok(inputs[..1].iter().chain(&inputs[2..3 + states]).cloned().collect())
}

/// Makes the kernel of a rule for parameters of type `ty`, whose count of steps is number `index`.
pub(super) fn kernel<R, const STATES: usize, const RATES: usize>(
    rule: R,
    index: usize,
    ty: &Type,
) -> Box<dyn Kernel>
where
    R: Rule<STATES, RATES>,
{
    match ty.dtype {
        Dtype::F64 => Box::new(UpdateKernel::<f64, f64, R, STATES, RATES>::new(rule, index)),
        _ => Box::new(UpdateKernel::<f32, f32, R, STATES, RATES>::new(rule, index)),
    }
}

/// As [`kernel`], and for parameters that lie in halves.
pub(super) fn kernel_in_halves<R, const STATES: usize, const RATES: usize>(
    rule: R,
    index: usize,
    ty: &Type,
) -> Box<dyn Kernel>
where
    R: Rule<STATES, RATES>,
{
    match ty.dtype {
        Dtype::BF16 => Box::new(UpdateKernel::<f32, bf16, R, STATES, RATES>::new(rule, index)),
        Dtype::F16 => Box::new(UpdateKernel::<f32, f16, R, STATES, RATES>::new(rule, index)),
        _ => kernel(rule, index, ty),
    }
}

/// Updates parameters and states that lie as numbers of `H`, computed with as `T`.
struct UpdateKernel<T, H, R, const STATES: usize, const RATES: usize> {
    rule: R,
    index: usize,
    element: PhantomData<(T, H)>,
}

impl<T, H, R, const STATES: usize, const RATES: usize> UpdateKernel<T, H, R, STATES, RATES> {
    fn new(rule: R, index: usize) -> Self {
        UpdateKernel { rule, index, element: PhantomData }
    }
}

impl<T, H, R, const STATES: usize, const RATES: usize> Kernel
    for UpdateKernel<T, H, R, STATES, RATES>
where
    T: Float,
    H: Stored<T>,
    R: Rule<STATES, RATES>,
{
    fn run(&self, tile: &mut Tile<'_>) {
        let (rule, models) = (self.rule, tile.models());
        if !tile.split() || models == 0 {
            run_vectors(self, tile);
            return;
        }
        let (inputs, mut outputs, _) = tile.operands();
        let mut parameter = outputs.take::<H>();
        if parameter.at(0).len() < WORTH_SPLITTING {
            run_vectors(self, tile);
            return;
        }
        let gradient = inputs.get::<T>(1);
        let mut states: [Output<'_, H>; STATES] = core::array::from_fn(|_| outputs.take());
        let mut counts = outputs.take::<f32>();
        for model in 0..models {
            let count = &mut counts.at(model)[self.index];
            *count += 1.0;
            let rates = core::array::from_fn(|i| inputs.get::<f64>(3 + STATES + i).at(model)[0]);
            let mut of_states = states.iter_mut().map(|state| state.at(model));
            let states: [&mut [H]; STATES] =
                core::array::from_fn(|_| of_states.next().unwrap_or_default());
            let first = states.each_ref().map(|state| first_of(state));
            let step = &rule.step_from::<T>(rates, f64::from(*count), first);
            let (parameter, gradient) = (parameter.at(model), gradient.at(model));
            share_out(Share { rule, step, parameter, gradient, states });
        }
    }
}

/// Gives the first number of a state, 0 if there is none.
fn first_of<T: Float, H: Stored<T>>(state: &[H]) -> T {
    state.first().map_or(T::default(), |first| first.widen())
}

/// Some numbers of one parameter.
struct Share<'a, T: Float, H, R: Rule<STATES, RATES>, const STATES: usize, const RATES: usize> {
    rule: R,
    step: &'a R::Step<T>,
    parameter: &'a mut [H],
    gradient: &'a [T],
    states: [&'a mut [H]; STATES],
}

impl<T, H, R, const STATES: usize, const RATES: usize> Divisible
    for Share<'_, T, H, R, STATES, RATES>
where
    T: Float,
    H: Stored<T>,
    R: Rule<STATES, RATES>,
{
    fn halves(self) -> Result<[Self; 2], Self> {
        if self.parameter.len() < WORTH_SPLITTING {
            return Err(self);
        }
        let Share { rule, step, parameter, gradient, states } = self;
        // Whole vectors of every instruction set, so that no number is in a tail for one split and not for another.
        let at = (parameter.len() / 2).next_multiple_of(MAX_LANES);
        let (upper, lower) = parameter.split_at_mut(at);
        let (of_upper, of_lower) = gradient.split_at(at);
        let mut halves = states.map(|state| {
            let (upper, lower) = state.split_at_mut(at);
            (Some(upper), Some(lower))
        });
        let first = halves.each_mut().map(|half| half.0.take().unwrap_or_default());
        let second = halves.each_mut().map(|half| half.1.take().unwrap_or_default());
        let of = |parameter, gradient, states| Share { rule, step, parameter, gradient, states };
        Ok([of(upper, of_upper, first), of(lower, of_lower, second)])
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T, H, R, const STATES: usize, const RATES: usize> Vectorized
    for Share<'_, T, H, R, STATES, RATES>
where
    T: Float,
    H: Stored<T>,
    R: Rule<STATES, RATES>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Share { rule, step, parameter, gradient, states } = self;
        let numel = parameter.len();
        assert!(gradient.len() == numel && states.iter().all(|state| state.len() == numel));
        let (p, g) = (parameter.as_mut_ptr(), gradient.as_ptr());
        let states = states.map(<[H]>::as_mut_ptr);
        // SAFETY: all of them have `numel` elements, and those to be written overlap nothing.
        unsafe { update::<T, H, S, R, STATES, RATES>(rule, step, numel, p, g, states) };
    }
}

impl<T, H, R, const STATES: usize, const RATES: usize> VectorKernel
    for UpdateKernel<T, H, R, STATES, RATES>
where
    T: Float,
    H: Stored<T>,
    R: Rule<STATES, RATES>,
{
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let (rule, models) = (self.rule, tile.models());
        let (inputs, mut outputs, _) = tile.operands();
        let gradient = inputs.get::<T>(1);
        let rates: [Input<'_, f64>; RATES] = core::array::from_fn(|i| inputs.get(3 + STATES + i));
        let mut parameter = outputs.take::<H>();
        let mut states: [Output<'_, H>; STATES] = core::array::from_fn(|_| outputs.take());
        let mut counts = outputs.take::<f32>();
        // Neighbours often have the same rates and count.
        let (mut last, mut step) = (([f64::NAN; RATES], f32::NAN), R::Step::<T>::default());
        for model in 0..models {
            let count = &mut counts.at(model)[self.index];
            *count += 1.0;
            // Loops and no `map`: that one is not always compiled into this function, and then is a call for each
            // model.
            let mut own = [0.0; RATES];
            for (own, rate) in own.iter_mut().zip(&rates) {
                *own = rate.at(model)[0];
            }
            if R::READS_STATES {
                let mut first = [T::default(); STATES];
                for (first, state) in first.iter_mut().zip(&mut states) {
                    *first = first_of(state.at(model));
                }
                step = rule.step_from::<T>(own, f64::from(*count), first);
            } else if last != (own, *count) {
                last = (own, *count);
                step = rule.step::<T>(own, f64::from(*count));
            }
            let (parameter, gradient) = (parameter.at(model), gradient.at(model));
            let numel = parameter.len();
            assert_eq!(gradient.len(), numel, "the gradient is as long as the parameter");
            let mut of_states = [ptr::null_mut(); STATES];
            for (of_state, state) in of_states.iter_mut().zip(&mut states) {
                let state = state.at(model);
                assert_eq!(state.len(), numel, "a state is as long as the parameter");
                *of_state = state.as_mut_ptr();
            }
            let (p, g) = (parameter.as_mut_ptr(), gradient.as_ptr());
            // SAFETY: all of them have `numel` elements, and those to be written overlap nothing.
            unsafe { update::<T, H, S, R, STATES, RATES>(rule, &step, numel, p, g, of_states) };
        }
    }
}

/// Updates `numel` numbers. The gradient is rounded to a number of `H` first, as the results are in the end.
///
/// # Safety
///
/// `p`, `g` and each of `s` are the addresses of `numel` elements, and `p` and `s` are to be written and
/// overlap nothing.
#[inline(always)]
unsafe fn update<T, H, S, R, const STATES: usize, const RATES: usize>(
    rule: R,
    step: &R::Step<T>,
    numel: usize,
    p: *mut H,
    g: *const T,
    s: [*mut H; STATES],
) where
    T: Float,
    H: Stored<T>,
    S: Simd,
    R: Rule<STATES, RATES>,
{
    let lanes = T::Lanes::<S>::N;
    let whole = numel - numel % lanes;
    let mut at = 0;
    while at < whole {
        // SAFETY: `at + N ≤ numel`, the length of all of them.
        unsafe {
            let old = core::array::from_fn(|i| H::load::<S>(s[i].add(at)));
            let gradient = H::round::<S>(T::Lanes::<S>::load(g.add(at)));
            let (parameter, new) =
                rule.update::<T, S>(step, H::load::<S>(p.add(at)), gradient, old);
            H::store::<S>(parameter, p.add(at));
            for i in 0..STATES {
                H::store::<S>(new[i], s[i].add(at));
            }
        }
        at += lanes;
    }
    let n = numel - whole;
    if n > 0 {
        // SAFETY: `whole + n = numel`, the length of all of them.
        unsafe {
            let old = core::array::from_fn(|i| H::load_first::<S>(s[i].add(at), n));
            let gradient = H::round::<S>(T::Lanes::<S>::load_first(g.add(at), n));
            let (parameter, new) =
                rule.update::<T, S>(step, H::load_first::<S>(p.add(at), n), gradient, old);
            H::store_first::<S>(parameter, p.add(at), n);
            for i in 0..STATES {
                H::store_first::<S>(new[i], s[i].add(at), n);
            }
        }
    }
}
