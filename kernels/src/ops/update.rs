//! What the update rules share: the kernel that walks over a parameter and its states in place.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::marker::PhantomData;

use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use crate::cpu::tile::{Inputs, Tile};
use crate::dtype::Dtype;
use crate::op::{Kernel, OpError};
use crate::shape::Type;

/// An update rule: what becomes of a parameter and its `STATES` states, a vector at a time.
///
/// Inputs are the parameter, the gradient, the states, the counts of steps and the rates; outputs the
/// parameter, the states and the counts, each in its input's memory.
pub(super) trait Rule<const STATES: usize>: Copy + Send + Sync + 'static {
    /// The numbers of one model from which a step's numbers follow.
    type Rates: Copy + PartialEq;
    /// A step's numbers, ready for vectors of `T`.
    type Step<T: Float>: Copy;

    /// Gives the place of this parameter's count.
    fn index(self) -> usize;

    /// Reads the rates of a model; they are inputs `first` and following.
    fn rates(self, inputs: &Inputs<'_>, first: usize) -> Self::Rates;

    /// Prepares update number `step`, counted from 1.
    fn step<T: Float>(self, rates: Self::Rates, step: f64) -> Self::Step<T>;

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
pub(super) fn kernel<R: Rule<STATES>, const STATES: usize>(rule: R, ty: &Type) -> Box<dyn Kernel> {
    match ty.dtype {
        Dtype::F64 => Box::new(UpdateKernel::<f64, R, STATES> { rule, element: PhantomData }),
        _ => Box::new(UpdateKernel::<f32, R, STATES> { rule, element: PhantomData }),
    }
}

struct UpdateKernel<T, R, const STATES: usize> {
    rule: R,
    element: PhantomData<T>,
}

impl<T: Float, R: Rule<STATES>, const STATES: usize> Kernel for UpdateKernel<T, R, STATES> {
    fn run(&self, tile: &mut Tile<'_>) {
        dispatch(OverTile::<T, R, STATES> { rule: self.rule, tile, element: PhantomData });
    }
}

struct OverTile<'t, 'a, T, R, const STATES: usize> {
    rule: R,
    tile: &'t mut Tile<'a>,
    element: PhantomData<T>,
}

impl<T: Float, R: Rule<STATES>, const STATES: usize> Vectorized for OverTile<'_, '_, T, R, STATES> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let rule = self.rule;
        // Neighbours often have the same rates and count: powers are computed once for all of them.
        let mut last: Option<(R::Rates, f32, R::Step<T>)> = None;
        for model in 0..self.tile.models() {
            let (inputs, mut outputs, _) = self.tile.model(model).split();
            let gradient = inputs.get::<T>(1);
            let parameter = outputs.take::<T>();
            let states: [&mut [T]; STATES] = core::array::from_fn(|_| outputs.take());
            let count = &mut outputs.take::<f32>()[rule.index()];
            *count += 1.0;
            let rates = rule.rates(&inputs, 3 + STATES);
            let step = match last {
                Some((known, at, step)) if known == rates && at == *count => step,
                _ => rule.step::<T>(rates, f64::from(*count)),
            };
            last = Some((rates, *count, step));
            update::<T, S, R, STATES>(rule, &step, parameter, gradient, states);
        }
    }
}

#[inline(always)]
fn update<T: Float, S: Simd, R: Rule<STATES>, const STATES: usize>(
    rule: R,
    step: &R::Step<T>,
    parameter: &mut [T],
    gradient: &[T],
    mut states: [&mut [T]; STATES],
) {
    let numel = parameter.len();
    assert_eq!(gradient.len(), numel, "the gradient is as long as the parameter");
    for state in &states {
        assert_eq!(state.len(), numel, "a state is as long as the parameter");
    }
    let lanes = T::Lanes::<S>::N;
    let (p, g) = (parameter.as_mut_ptr(), gradient.as_ptr());
    let s: [*mut T; STATES] = core::array::from_fn(|i| states[i].as_mut_ptr());
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
