//! The update rule of Adadelta, in place.
//!
//! ```text
//! g ← g + weight_decay · p          v ← ρ · v + (1 - ρ) · g²
//! δ = g · √(d + eps) / √(v + eps)   d ← ρ · d + (1 - ρ) · δ²
//! p ← p - lr · δ
//! ```
//!
//! Source: `torch.optim.Adadelta`.

use super::rule;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::adadelta`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdadeltaSettings {
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by Adadelta's rule; see [the module](self).
    ///
    /// States are `square_avg`, `acc_delta`; rates are
    /// `lr`, `rho`, `eps`, `weight_decay`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.Adadelta`.
    pub fn adadelta(&self, at: &UpdateInputs<'_>, settings: AdadeltaSettings) -> Updated {
        let rates = ["lr", "rho", "eps", "weight_decay"];
        rule::apply::<_, 2, 4>(self, at, settings, rates)
    }
}

impl Named for AdadeltaSettings {
    const NAME: &'static str = "adadelta";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/adadelta.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![("maximize", self.maximize)]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    /// `-lr`
    size: T,
    /// `ρ`
    old: T,
    /// `1 - ρ`
    new: T,
    eps: T,
    decay: T,
}

impl Rule<2, 4> for AdadeltaSettings {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(self, [lr, rho, eps, weight_decay]: [f64; 4], _: f64) -> Step<T> {
        Step {
            size: T::from_f64(-lr),
            old: T::from_f64(rho),
            new: T::from_f64(1.0 - rho),
            eps: T::from_f64(eps),
            decay: T::from_f64(weight_decay),
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [v, d]: [T::Lanes<S>; 2],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 2]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let g = rule::decayed::<T, S>(self.maximize, step.decay, p, g);
        let v = g.mul(g).mul_add(all(step.new), v.mul(all(step.old)));
        let delta = d.add(all(step.eps)).sqrt().div(v.add(all(step.eps)).sqrt()).mul(g);
        let d = delta.mul(delta).mul_add(all(step.new), d.mul(all(step.old)));
        (delta.mul_add(all(step.size), p), [v, d])
    }
}
