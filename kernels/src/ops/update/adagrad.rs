//! The update rule of Adagrad, in place.
//!
//! ```text
//! g ← g + weight_decay · p          sum ← sum + g²      (sum = initial_accumulator_value at first)
//! p ← p - lr / (1 + (t - 1) · lr_decay) · g / (√sum + eps)
//! ```
//!
//! Source: `torch.optim.Adagrad`.

use super::rule;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::adagrad`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdagradSettings {
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by Adagrad's rule; see [the module](self).
    ///
    /// States are `sum`; rates are
    /// `lr`, `lr_decay`, `weight_decay`, `initial_accumulator_value`, `eps`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.Adagrad`.
    pub fn adagrad(&self, at: &UpdateInputs<'_>, settings: AdagradSettings) -> Updated {
        let rates = ["lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"];
        rule::apply::<_, 1, 5>(self, at, settings, rates)
    }
}

impl Named for AdagradSettings {
    const NAME: &'static str = "adagrad";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/adagrad.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![("maximize", self.maximize)]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    /// `-lr / (1 + (t - 1) · lr_decay)`
    size: T,
    decay: T,
    initial: T,
    eps: T,
    is_first: bool,
}

impl Rule<1, 5> for AdagradSettings {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(
        self,
        [lr, lr_decay, weight_decay, initial_accumulator_value, eps]: [f64; 5],
        step: f64,
    ) -> Step<T> {
        Step {
            size: T::from_f64(-lr / (1.0 + (step - 1.0) * lr_decay)),
            decay: T::from_f64(weight_decay),
            initial: T::from_f64(initial_accumulator_value),
            eps: T::from_f64(eps),
            is_first: step == 1.0,
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [sum]: [T::Lanes<S>; 1],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 1]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let g = rule::decayed::<T, S>(self.maximize, step.decay, p, g);
        let sum = if step.is_first { all(step.initial) } else { sum };
        let sum = g.mul_add(g, sum);
        (g.div(sum.sqrt().add(all(step.eps))).mul_add(all(step.size), p), [sum])
    }
}
