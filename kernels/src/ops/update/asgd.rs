//! The update rule of ASGD, in place.
//!
//! ```text
//! g ← g + weight_decay · p
//! p ← p · (1 - lambd · η) - η · g   (η = lr and μ = 1 at first)
//! ax ← ax + (p - ax) · μ
//! η ← lr / (1 + lambd · lr · t)^α   μ ← 1 / max(1, t - t0)
//! ```
//!
//! `η` and `μ` are numbers, kept in every element of their states and rounded to f32 as in torch; a
//! negative sign says that they were loaded, and means nothing else. Source: `torch.optim.ASGD`.

use super::rule;
use crate::arithmetic::elementary;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::asgd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ASGDSettings {
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by ASGD's rule; see [the module](self).
    ///
    /// States are `eta`, `mu`, `ax`; rates are
    /// `lr`, `lambd`, `alpha`, `t0`, `weight_decay`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.ASGD`.
    pub fn asgd(&self, at: &UpdateInputs<'_>, settings: ASGDSettings) -> Updated {
        let rates = ["lr", "lambd", "alpha", "t0", "weight_decay"];
        rule::apply::<_, 3, 5>(self, at, settings, rates)
    }
}

impl Named for ASGDSettings {
    const NAME: &'static str = "asgd";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/asgd.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![("maximize", self.maximize)]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    decay: T,
    /// `1 - lambd · η`
    kept: T,
    /// `-η`
    size: T,
    /// `μ`
    new: T,
    next_eta: T,
    next_mu: T,
    /// Whether the average is the parameter itself.
    is_copied: bool,
}

impl Rule<3, 5> for ASGDSettings {
    type Step<T: Float> = Step<T>;
    const READS_STATES: bool = true;

    #[inline(always)]
    fn step<T: Float>(self, rates: [f64; 5], step: f64) -> Step<T> {
        self.step_from(rates, step, [T::default(); 3])
    }

    #[inline(always)]
    fn step_from<T: Float>(
        self,
        [lr, lambd, alpha, t0, weight_decay]: [f64; 5],
        step: f64,
        [eta, mu, _]: [T; 3],
    ) -> Step<T> {
        // torch keeps both in single precision.
        let (old_eta, old_mu): (f64, f64) = (eta.into(), mu.into());
        let (eta, mu) = match step == 1.0 {
            true => (f64::from(lr as f32), 1.0),
            false => (old_eta.abs(), old_mu.abs()),
        };
        let next_eta = (lr / elementary::pow(1.0 + lambd * lr * step, alpha)) as f32;
        let next_mu = (1.0 / (step - t0).max(1.0)) as f32;
        Step {
            decay: T::from_f64(weight_decay),
            kept: T::from_f64(1.0 - lambd * eta),
            size: T::from_f64(-eta),
            new: T::from_f64(mu),
            next_eta: T::from_f64(f64::from(next_eta).copysign(old_eta)),
            next_mu: T::from_f64(f64::from(next_mu).copysign(old_mu)),
            is_copied: mu == 1.0,
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [_, _, ax]: [T::Lanes<S>; 3],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 3]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let g = rule::decayed::<T, S>(self.maximize, step.decay, p, g);
        let p = g.mul_add(all(step.size), p.mul(all(step.kept)));
        let ax = if step.is_copied { p } else { p.sub(ax).mul_add(all(step.new), ax) };
        (p, [all(step.next_eta), all(step.next_mu), ax])
    }
}
