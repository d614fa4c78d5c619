//! Softplus: `y = ln(1 + e^(βx)) / β`, and `x` itself where `βx` is above a threshold.

use super::sigmoid::SigmoidGradient;
use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `ln(1 + e^(βx)) / β` from `x`, `β` and the threshold.
#[derive(Clone, Copy, Debug)]
struct Softplus;

impl Formula<3, 1> for Softplus {
    fn name(&self) -> &'static str {
        "softplus"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, beta, most]: [A; 3]) -> [A; 1] {
        let scaled = x.mul(beta);
        let y = scaled.exp().ln_1p().div(beta);
        [A::select(most.lt(scaled), x, y)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, beta, most) = (&at.inputs[0], &at.inputs[1], &at.inputs[2]);
        let dx = |dy: &Var| pointwise(SoftplusGradient, [dy, x, beta, most]);
        vec![at.gradients[0].as_ref().map(dx), None, None]
    }
}

/// The gradient of [`Softplus`]: `dy · sigmoid(βx)`, and `dy` above the threshold.
#[derive(Clone, Copy, Debug)]
struct SoftplusGradient;

impl Formula<4, 1> for SoftplusGradient {
    fn name(&self) -> &'static str {
        "softplus_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, beta, most]: [A; 4]) -> [A; 1] {
        let scaled = x.mul(beta);
        let dx = dy.mul(scaled.sigmoid());
        [A::select(most.lt(scaled), dy, dx)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [dy, x, beta, most] = at.inputs else { return vec![None; 4] };
        let g = at.gradients[0].as_ref();
        let curvature = |g: &Var| {
            let scaled = x * beta;
            let below = pointwise(SigmoidGradient, [&(g * dy * beta), &scaled.sigmoid()]);
            most.lt(&scaled).where_(&x.number(0.0), &below)
        };
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(SoftplusGradient, [g, x, beta, most])),
            g.filter(|_| at.needs[1]).map(curvature),
            None,
            at.zero(3),
        ]
    }
}

impl Var {
    /// Returns `ln(1 + e^(βx)) / β`, and `x` where `βx > threshold`; `beta` and `threshold` are `[]` and
    /// get no gradient.
    ///
    /// Source: `torch.nn.functional.softplus`.
    #[must_use]
    pub fn softplus(&self, beta: &Var, threshold: &Var) -> Var {
        pointwise(Softplus, [self, beta, threshold])
    }
}
