//! The update rule of Rprop, in place.
//!
//! ```text
//! s ← s · η₊ where g · prev > 0, s · η₋ where < 0, then within step_size_min to step_size_max   (lr at first)
//! g ← 0 where g · prev < 0
//! p ← p - sign(g) · s               prev ← g
//! ```
//!
//! Source: `torch.optim.Rprop`.

use super::rule;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::ir::trace::Var;
use crate::ops::update::rule::{Named, Rule, UpdateInputs, Updated};

/// What decides the formula of [`Var::rprop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpropSettings {
    /// Whether to climb.
    pub maximize: bool,
}

impl Var {
    /// Updates a parameter by Rprop's rule; see [the module](self).
    ///
    /// States are `prev`, `step_size`; rates are
    /// `lr`, `etaminus`, `etaplus`, `step_size_min`, `step_size_max`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.Rprop`.
    pub fn rprop(&self, at: &UpdateInputs<'_>, settings: RpropSettings) -> Updated {
        let rates = ["lr", "etaminus", "etaplus", "step_size_min", "step_size_max"];
        rule::apply::<_, 2, 5>(self, at, settings, rates)
    }
}

impl Named for RpropSettings {
    const NAME: &'static str = "rprop";
    const ON_DEVICE: Option<&'static str> = Some(include_str!("device/rprop.cu"));

    fn flags(self) -> Vec<(&'static str, bool)> {
        vec![("maximize", self.maximize)]
    }
}

/// A step's numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct Step<T> {
    /// `lr`
    initial: T,
    /// `η₋`
    less: T,
    /// `η₊`
    more: T,
    least: T,
    most: T,
    is_first: bool,
}

impl Rule<2, 5> for RpropSettings {
    type Step<T: Float> = Step<T>;

    #[inline(always)]
    fn step<T: Float>(
        self,
        [lr, etaminus, etaplus, step_size_min, step_size_max]: [f64; 5],
        step: f64,
    ) -> Step<T> {
        Step {
            initial: T::from_f64(lr),
            less: T::from_f64(etaminus),
            more: T::from_f64(etaplus),
            least: T::from_f64(step_size_min),
            most: T::from_f64(step_size_max),
            is_first: step == 1.0,
        }
    }

    #[inline(always)]
    fn update<T: Float, S: Simd>(
        self,
        step: &Step<T>,
        p: T::Lanes<S>,
        g: T::Lanes<S>,
        [prev, size]: [T::Lanes<S>; 2],
    ) -> (T::Lanes<S>, [T::Lanes<S>; 2]) {
        let all = |x: T| T::Lanes::<S>::splat(x);
        let g = rule::climbed::<T, S>(self.maximize, g);
        let size = if step.is_first { all(step.initial) } else { size };
        let (zero, one) = (all(T::default()), all(T::from_f64(1.0)));
        let product = g.mul(prev);
        let (turned, kept) = (product.lt(zero), zero.lt(product));
        let factor = T::Lanes::<S>::select(kept, all(step.more), one);
        let factor = T::Lanes::<S>::select(turned, all(step.less), factor);
        let size = size.mul(factor).max(all(step.least)).min(all(step.most));
        let g = T::Lanes::<S>::select(turned, zero, g);
        let down = T::Lanes::<S>::select(zero.lt(g), p.sub(size), p);
        (T::Lanes::<S>::select(g.lt(zero), p.add(size), down), [g, size])
    }
}
