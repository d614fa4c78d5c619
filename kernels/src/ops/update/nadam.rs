//! The update rule of `NAdam`, in place.
//!
//! ```text
//! m ← m + (g - m) · (1 - β₁)        v ← β₂ · v + (1 - β₂) · g²
//! μₜ = β₁ · (1 - 0.96^(t · momentum_decay) / 2)          Πμ ← Πμ · μₜ   (1 at first)
//! p ← p - lr · ((1 - μₜ) / (1 - Πμ) · g + μₜ₊₁ / (1 - Πμ · μₜ₊₁) · m) / (√(v / (1 - β₂ᵗ)) + eps)
//! ```
//!
//! `Πμ` is one number, kept in every element of its state and
//! rounded to f32 as in torch, unless its sign is negative. Source: `torch.optim.NAdam`.

use super::rule;
use crate::arithmetic::elementary;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::nadam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NAdamSettings {
    /// Whether weight decay shrinks the parameter itself.
    pub decoupled: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by `NAdam`'s rule; see [the module](self).
    ///
    /// States are `exp_avg`, `exp_avg_sq`, `mu_product`; rates are
    /// `lr`, `beta1`, `beta2`, `eps`, `weight_decay`, `momentum_decay`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.NAdam`.
    pub fn nadam(&self, at: &UpdateInputs<'_>, settings: NAdamSettings) -> Updated {
        let rates = ["lr", "beta1", "beta2", "eps", "weight_decay", "momentum_decay"];
        rule::apply::<_, 3, 6>(self, at, settings, rates)
    }
}

impl Named for NAdamSettings {
    const NAME: &'static str = "nadam";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/nadam.cu"));

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
    /// `1 / (1 - β₂ᵗ)`
    correction: T,
    eps: T,
    /// `weight_decay`, or `1 - lr · weight_decay`.
    decay: T,
    /// `-lr · (1 - μₜ) / (1 - Πμ)`
    of_gradient: T,
    /// `-lr · μₜ₊₁ / (1 - Πμ · μₜ₊₁)`
    of_mean: T,
    /// `Πμ`, with the sign that it had.
    product: T,
}

impl Rule<3, 6> for NAdamSettings {
    type Step<T: Float> = Step<T>;
    const READS_STATES: bool = true;

    #[inline(always)]
    fn step<T: Float>(self, rates: [f64; 6], step: f64) -> Step<T> {
        self.step_from(rates, step, [T::default(); 3])
    }

    #[inline(always)]
    fn step_from<T: Float>(
        self,
        [lr, beta1, beta2, eps, weight_decay, momentum_decay]: [f64; 6],
        step: f64,
        [_, _, product]: [T; 3],
    ) -> Step<T> {
        let decay = if self.decoupled { 1.0 - lr * weight_decay } else { weight_decay };
        let mu = |step: f64| beta1 * (1.0 - 0.5 * elementary::pow(0.96, step * momentum_decay));
        let (now, next) = (mu(step), mu(step + 1.0));
        // torch keeps the product in single precision, but in the parameter's once it was loaded; the sign
        // tells.
        let known: f64 = product.into();
        let product = match (step == 1.0, known.is_sign_negative()) {
            (true, _) => f64::from(now as f32),
            (false, false) => f64::from(known as f32 * now as f32),
            (false, true) => -known * now,
        };
        let kept = if step != 1.0 { product.copysign(known) } else { product };
        Step {
            new_mean: T::from_f64(1.0 - beta1),
            old_square: T::from_f64(beta2),
            new_square: T::from_f64(1.0 - beta2),
            correction: T::from_f64(1.0 / (1.0 - elementary::pow(beta2, step))),
            eps: T::from_f64(eps),
            decay: T::from_f64(decay),
            of_gradient: T::from_f64(-lr * (1.0 - now) / (1.0 - product)),
            of_mean: T::from_f64(-lr * next / (1.0 - product * next)),
            product: T::from_f64(kept),
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [m, v, _]: [T::Lanes<S>; 3],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 3]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let NAdamSettings { decoupled, maximize } = self;
        let (p, g) = rule::with_decay::<T, S>(decoupled, maximize, step.decay, p, g);
        let m = g.sub(m).mul_add(all(step.new_mean), m);
        let v = g.mul(g).mul_add(all(step.new_square), v.mul(all(step.old_square)));
        let root = v.mul(all(step.correction)).sqrt().add(all(step.eps));
        let direction = g.mul_add(all(step.of_gradient), m.mul(all(step.of_mean)));
        (p.add(direction.div(root)), [m, v, all(step.product)])
    }
}
