//! The update rule of `RAdam`, in place.
//!
//! ```text
//! m ← m + (g - m) · (1 - β₁)        v ← β₂ · v + (1 - β₂) · g²
//! ρ∞ = 2 / (1 - β₂) - 1             ρ = ρ∞ - 2t · β₂ᵗ / (1 - β₂ᵗ)
//! r = √((ρ - 4)(ρ - 2)ρ∞ / ((ρ∞ - 4)(ρ∞ - 2)ρ))
//! p ← p - lr / (1 - β₁ᵗ) · m · r · √(1 - β₂ᵗ) / (√v + eps)   if ρ > 5
//! p ← p - lr / (1 - β₁ᵗ) · m                                 otherwise
//! ```
//!
//! Source: `torch.optim.RAdam`.

use super::rule;
use crate::arithmetic::elementary;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::radam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RAdamSettings {
    /// Whether weight decay shrinks the parameter itself.
    pub decoupled: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by `RAdam`'s rule; see [the module](self).
    ///
    /// States are `exp_avg`, `exp_avg_sq`; rates are
    /// `lr`, `beta1`, `beta2`, `eps`, `weight_decay`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.RAdam`.
    pub fn radam(&self, at: &UpdateInputs<'_>, settings: RAdamSettings) -> Updated {
        let rates = ["lr", "beta1", "beta2", "eps", "weight_decay"];
        rule::apply::<_, 2, 5>(self, at, settings, rates)
    }
}

impl Named for RAdamSettings {
    const NAME: &'static str = "radam";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/radam.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![("decoupled", self.decoupled), ("maximize", self.maximize)]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    /// `1 - β₁`
    new_mean: T,
    /// `β₂`
    old_square: T,
    /// `1 - β₂`
    new_square: T,
    eps: T,
    /// `weight_decay`, or `1 - lr · weight_decay`.
    decay: T,
    /// `-lr / (1 - β₁ᵗ)`, times `r · √(1 - β₂ᵗ)` if the mean square counts.
    size: T,
    /// Whether the mean square counts.
    is_adaptive: bool,
}

impl Rule<2, 5> for RAdamSettings {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(self, [lr, beta1, beta2, eps, weight_decay]: [f64; 5], step: f64) -> Step<T> {
        let decay = if self.decoupled { 1.0 - lr * weight_decay } else { weight_decay };
        let [power1, power2] = [beta1, beta2].map(|beta| elementary::pow(beta, step));
        let (of_mean, of_square) = (1.0 - power1, 1.0 - power2);
        let longest = 2.0 / (1.0 - beta2) - 1.0;
        let rho = longest - 2.0 * step * power2 / of_square;
        let is_adaptive = rho > 5.0;
        let rectified =
            (rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho);
        let adaptive = if is_adaptive { (rectified * of_square).sqrt() } else { 1.0 };
        Step {
            new_mean: T::from_f64(1.0 - beta1),
            old_square: T::from_f64(beta2),
            new_square: T::from_f64(1.0 - beta2),
            eps: T::from_f64(eps),
            decay: T::from_f64(decay),
            size: T::from_f64(-lr / of_mean * adaptive),
            is_adaptive,
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [m, v]: [T::Lanes<S>; 2],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 2]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let RAdamSettings { decoupled, maximize } = self;
        let (p, g) = rule::with_decay::<T, S>(decoupled, maximize, step.decay, p, g);
        let m = g.sub(m).mul_add(all(step.new_mean), m);
        let v = g.mul(g).mul_add(all(step.new_square), v.mul(all(step.old_square)));
        let root =
            if step.is_adaptive { v.sqrt().add(all(step.eps)) } else { all(T::from_f64(1.0)) };
        (p.add(m.mul(all(step.size)).div(root)), [m, v])
    }
}
