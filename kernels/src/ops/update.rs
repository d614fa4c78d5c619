//! What the update rules share: the kernel that walks over a parameter and its states in place.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::marker::PhantomData;
use core::ptr;

use crate::cpu::simd::{Float, Lanes, Simd};
use crate::cpu::tile::{Input, Output, Tile, VectorKernel, vector_kernel};
use crate::dtype::Dtype;
use crate::op::{Kernel, OpError};
use crate::shape::Type;

/// An update rule: what becomes of a parameter and its `STATES` states, a vector at a time.
///
/// Inputs are the parameter, the gradient, the states, the counts of steps and `RATES` rates; outputs the
/// parameter, the states and the counts, each in its input's memory.
pub(super) trait Rule<const STATES: usize, const RATES: usize>:
    Copy + Send + Sync + 'static
{
    /// A step's numbers, ready for vectors of `T`.
    type Step<T: Float>: Copy + Default;

    /// Gives the place of this parameter's count.
    fn index(self) -> usize;

    /// Prepares update number `step`, counted from 1, of a model with these rates. Implementations are
    /// `#[inline(always)]`.
    fn step<T: Float>(self, rates: [f64; RATES], step: f64) -> Self::Step<T>;

    /// Gives parameter and states after the update.
    fn update<T: Float, S: Simd>(
        self,
        step: &Self::Step<T>,
        parameter: T::Lanes<S>,
        gradient: T::Lanes<S>,
        states: [T::Lanes<S>; STATES],
    ) -> (T::Lanes<S>, [T::Lanes<S>; STATES]);
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
    super::elementwise::computes(name, parameter)?;
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

/// Makes the kernel of a rule for parameters of type `ty`.
pub(super) fn kernel<R, const STATES: usize, const RATES: usize>(
    rule: R,
    ty: &Type,
) -> Box<dyn Kernel>
where
    R: Rule<STATES, RATES>,
{
    match ty.dtype {
        Dtype::F64 => vector_kernel(UpdateKernel::<f64, R, STATES, RATES>::new(rule)),
        _ => vector_kernel(UpdateKernel::<f32, R, STATES, RATES>::new(rule)),
    }
}

struct UpdateKernel<T, R, const STATES: usize, const RATES: usize> {
    rule: R,
    element: PhantomData<T>,
}

impl<T, R, const STATES: usize, const RATES: usize> UpdateKernel<T, R, STATES, RATES> {
    fn new(rule: R) -> Self {
        UpdateKernel { rule, element: PhantomData }
    }
}

impl<T: Float, R: Rule<STATES, RATES>, const STATES: usize, const RATES: usize> VectorKernel
    for UpdateKernel<T, R, STATES, RATES>
{
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let (rule, models) = (self.rule, tile.models());
        let (inputs, mut outputs, _) = tile.operands();
        let gradient = inputs.get::<T>(1);
        let rates: [Input<'_, f64>; RATES] = core::array::from_fn(|i| inputs.get(3 + STATES + i));
        let mut parameter = outputs.take::<T>();
        let mut states: [Output<'_, T>; STATES] = core::array::from_fn(|_| outputs.take());
        let mut counts = outputs.take::<f32>();
        // Neighbours often have the same rates and count.
        let (mut last, mut step) = (([f64::NAN; RATES], f32::NAN), R::Step::<T>::default());
        for model in 0..models {
            let count = &mut counts.at(model)[rule.index()];
            *count += 1.0;
            // Loops and no `map`: that one is not always compiled into this function, and then is a call for each
            // model.
            let mut own = [0.0; RATES];
            for (own, rate) in own.iter_mut().zip(&rates) {
                *own = rate.at(model)[0];
            }
            if last != (own, *count) {
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
            unsafe { update::<T, S, R, STATES, RATES>(rule, &step, numel, p, g, of_states) };
        }
    }
}

/// Updates `numel` numbers.
///
/// # Safety
///
/// `p`, `g` and each of `s` are the addresses of `numel` elements, and `p` and `s` are to be written and
/// overlap nothing.
#[inline(always)]
unsafe fn update<T, S, R, const STATES: usize, const RATES: usize>(
    rule: R,
    step: &R::Step<T>,
    numel: usize,
    p: *mut T,
    g: *const T,
    s: [*mut T; STATES],
) where
    T: Float,
    S: Simd,
    R: Rule<STATES, RATES>,
{
    let lanes = T::Lanes::<S>::N;
    let whole = numel - numel % lanes;
    let mut at = 0;
    while at < whole {
        // SAFETY: `at + N ≤ numel`, the length of all of them.
        unsafe {
            let old = core::array::from_fn(|i| T::Lanes::<S>::load(s[i].add(at)));
            let (parameter, gradient) =
                (T::Lanes::<S>::load(p.add(at)), T::Lanes::<S>::load(g.add(at)));
            let (parameter, new) = rule.update::<T, S>(step, parameter, gradient, old);
            parameter.store(p.add(at));
            for i in 0..STATES {
                new[i].store(s[i].add(at));
            }
        }
        at += lanes;
    }
    let n = numel - whole;
    if n > 0 {
        // SAFETY: `whole + n = numel`, the length of all of them.
        unsafe {
            let old = core::array::from_fn(|i| T::Lanes::<S>::load_first(s[i].add(at), n));
            let (parameter, gradient) =
                (T::Lanes::<S>::load_first(p.add(at), n), T::Lanes::<S>::load_first(g.add(at), n));
            let (parameter, new) = rule.update::<T, S>(step, parameter, gradient, old);
            parameter.store_first(p.add(at), n);
            for i in 0..STATES {
                new[i].store_first(s[i].add(at), n);
            }
        }
    }
}
