//! The update rule of `RMSprop`, in place.
//!
//! ```text
//! g ← g + weight_decay · p
//! v ← α · v + (1 - α) · g²           a ← a + (g - a) · (1 - α)  if centered
//! r ← √v + eps, or √(v - a²) + eps   if centered
//! b ← momentum · b + g / r           if there is momentum, else b = g / r
//! p ← p - lr · b
//! ```
//!
//! Source: `torch.optim.RMSprop`.

use super::rule;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::rmsprop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RMSpropSettings {
    /// Whether there is momentum: the second state is `momentum_buffer`.
    pub has_momentum: bool,
    /// Whether the mean gradient is taken away: the last state is `grad_avg`.
    pub centered: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by `RMSprop`'s rule; see [the module](self).
    ///
    /// States are `square_avg`, `momentum_buffer`, `grad_avg` (the last ones if the settings say so); rates are
    /// `lr`, `alpha`, `eps`, `weight_decay`, `momentum`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.RMSprop`.
    pub fn rmsprop(&self, at: &UpdateInputs<'_>, settings: RMSpropSettings) -> Updated {
        let rates = ["lr", "alpha", "eps", "weight_decay", "momentum"];
        match (settings.has_momentum, settings.centered) {
            (false, false) => rule::apply::<_, 1, 5>(self, at, settings, rates),
            (true, true) => rule::apply::<_, 3, 5>(self, at, settings, rates),
            _ => rule::apply::<_, 2, 5>(self, at, settings, rates),
        }
    }
}

impl Named for RMSpropSettings {
    const NAME: &'static str = "rmsprop";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/rmsprop.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![
            ("has_momentum", self.has_momentum),
            ("centered", self.centered),
            ("maximize", self.maximize),
        ]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    /// `-lr`
    size: T,
    /// `α`
    old: T,
    /// `1 - α`
    new: T,
    eps: T,
    decay: T,
    momentum: T,
}

impl<const STATES: usize> Rule<STATES, 5> for RMSpropSettings {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(self, [lr, alpha, eps, weight_decay, momentum]: [f64; 5], _: f64) -> Step<T> {
        Step {
            size: T::from_f64(-lr),
            old: T::from_f64(alpha),
            new: T::from_f64(1.0 - alpha),
            eps: T::from_f64(eps),
            decay: T::from_f64(weight_decay),
            momentum: T::from_f64(momentum),
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        mut states: [T::Lanes<S>; STATES],
    ) -> (T::Lanes<S>, [T::Lanes<S>; STATES]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let RMSpropSettings { has_momentum, centered, maximize } = self;
        let g = rule::decayed::<T, S>(maximize, step.decay, p, g);
        let v = g.mul(g).mul_add(all(step.new), states[0].mul(all(step.old)));
        states[0] = v;
        let mut root = v;
        if centered {
            let a = states[STATES - 1];
            let a = g.sub(a).mul_add(all(step.new), a);
            states[STATES - 1] = a;
            root = v.sub(a.mul(a));
        }
        let mut direction = g.div(root.sqrt().add(all(step.eps)));
        if has_momentum {
            direction = states[1].mul_add(all(step.momentum), direction);
            states[1] = direction;
        }
        (direction.mul_add(all(step.size), p), states)
    }
}
