//! The update rule of Adamax, in place.
//!
//! ```text
//! g ← g + weight_decay · p
//! m ← m + (g - m) · (1 - β₁)        u ← max(β₂ · u, |g| + eps)
//! p ← p - lr / (1 - β₁ᵗ) · m / u
//! ```
//!
//! Source: `torch.optim.Adamax`.

use super::rule;
use crate::arithmetic::elementary;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::adamax`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdamaxSettings {
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by Adamax's rule; see [the module](self).
    ///
    /// States are `exp_avg`, `exp_inf`; rates are
    /// `lr`, `beta1`, `beta2`, `eps`, `weight_decay`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.Adamax`.
    pub fn adamax(&self, at: &UpdateInputs<'_>, settings: AdamaxSettings) -> Updated {
        let rates = ["lr", "beta1", "beta2", "eps", "weight_decay"];
        rule::apply::<_, 2, 5>(self, at, settings, rates)
    }
}

impl Named for AdamaxSettings {
    const NAME: &'static str = "adamax";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/adamax.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![("maximize", self.maximize)]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    /// `1 - β₁`
    new_mean: T,
    /// `β₂`
    old: T,
    eps: T,
    decay: T,
    /// `-lr / (1 - β₁ᵗ)`
    size: T,
}

impl Rule<2, 5> for AdamaxSettings {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(self, [lr, beta1, beta2, eps, weight_decay]: [f64; 5], step: f64) -> Step<T> {
        Step {
            new_mean: T::from_f64(1.0 - beta1),
            old: T::from_f64(beta2),
            eps: T::from_f64(eps),
            decay: T::from_f64(weight_decay),
            size: T::from_f64(-lr / (1.0 - elementary::pow(beta1, step))),
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [m, u]: [T::Lanes<S>; 2],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 2]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let g = rule::decayed::<T, S>(self.maximize, step.decay, p, g);
        let m = g.sub(m).mul_add(all(step.new_mean), m);
        let u = rule::maximum::<T, S>(u.mul(all(step.old)), g.abs().add(all(step.eps)));
        (p.add(m.mul(all(step.size)).div(u)), [m, u])
    }
}
