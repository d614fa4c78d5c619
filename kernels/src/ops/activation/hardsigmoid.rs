//! Hardsigmoid: `y = min(max(x + 3, 0), 6) / 6`.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `min(max(x + 3, 0), 6) / 6`.
#[derive(Clone, Copy, Debug)]
struct Hardsigmoid;

impl Formula<1, 1> for Hardsigmoid {
    fn name(&self) -> &'static str {
        "hardsigmoid"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        let c = A::splat;
        [c(6.0).min(c(0.0).max(x.add(c(3.0)))).div(c(6.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(HardsigmoidGradient, [dy, &at.inputs[0]]);
        vec![at.gradients[0].as_ref().map(dx)]
    }
}

/// A sixth in single precision: torch's slope in double precision too.
const SIXTH: f64 = (1.0_f32 / 6.0) as f64;

/// The gradient of [`Hardsigmoid`]: `dy / 6` strictly between -3 and 3, 0 elsewhere.
#[derive(Clone, Copy, Debug)]
struct HardsigmoidGradient;

impl Formula<2, 1> for HardsigmoidGradient {
    fn name(&self) -> &'static str {
        "hardsigmoid_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let below = A::select(x.lt(c(3.0)), dy.mul(c(SIXTH)), c(0.0));
        [A::select(c(-3.0).lt(x), below, c(0.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let linear = |g: &Var| pointwise(HardsigmoidGradient, [g, &at.inputs[1]]);
        vec![at.gradients[0].as_ref().map(linear), at.zero(1)]
    }
}

impl Var {
    /// Returns `min(max(x + 3, 0), 6) / 6`.
    ///
    /// Source: `torch.nn.functional.hardsigmoid`.
    #[must_use]
    pub fn hardsigmoid(&self) -> Var {
        pointwise(Hardsigmoid, [self])
    }
}
