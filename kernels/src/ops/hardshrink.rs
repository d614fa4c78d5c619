//! Hardshrink: `x`, but 0 from `-λ` to `λ`.

use super::elementwise::{Formula, pointwise};
use super::softshrink::ShrinkGradient;
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::op::GradientAt;
use crate::program::trace::Var;

/// `x`, but 0 from `-λ` to `λ`.
#[derive(Clone, Copy, Debug)]
struct Hardshrink;

impl Formula<2, 1> for Hardshrink {
    fn name(&self) -> &'static str {
        "hardshrink"
    }

    #[inline(always)]
    fn apply<T: Float, S: Simd>(self, [x, lambd]: [T::Lanes<S>; 2]) -> [T::Lanes<S>; 1] {
        let c = |c| T::Lanes::<S>::splat(T::from_f64(c));
        let low = T::Lanes::<S>::select(x.lt(c(0.0).sub(lambd)), x, x.mul(c(0.0)));
        [T::Lanes::<S>::select(lambd.lt(x), x, low)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(ShrinkGradient, [dy, &at.inputs[0], &at.inputs[1]]);
        vec![at.gradients[0].as_ref().map(dx), None]
    }
}

impl Var {
    /// Gives `x`, but 0 from `-lambd` to `lambd`, which is `[]` and gets no gradient.
    ///
    /// Source: `torch.nn.functional.hardshrink`.
    #[must_use]
    pub fn hardshrink(&self, lambd: &Var) -> Var {
        pointwise(Hardshrink, [self, lambd])
    }
}
