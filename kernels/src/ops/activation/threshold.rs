//! Threshold: `x` above a threshold, another number elsewhere.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` above the threshold, `value` elsewhere; NaN stays.
#[derive(Clone, Copy, Debug)]
struct Threshold;

impl Formula<3, 1> for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, threshold, value]: [A; 3]) -> [A; 1] {
        let y = A::select(threshold.lt(x), x, value);
        [A::select(x.eq(x), y, x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| {
            pointwise(ThresholdGradient, [dy, &at.inputs[0], &at.inputs[1], &at.inputs[2]])
        };
        vec![at.gradients[0].as_ref().map(dx), None, None]
    }
}

/// The gradient of [`Threshold`]: `dy` above the threshold, 0 elsewhere.
#[derive(Clone, Copy, Debug)]
struct ThresholdGradient;

impl Formula<4, 1> for ThresholdGradient {
    fn name(&self) -> &'static str {
        "threshold_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, threshold, value]: [A; 4]) -> [A; 1] {
        let c = A::splat;
        let _ = value;
        [A::select(threshold.lt(x), dy, c(0.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [_, x, threshold, value] = at.inputs else { return vec![None; 4] };
        let linear = |g: &Var| pointwise(ThresholdGradient, [g, x, threshold, value]);
        vec![at.gradients[0].as_ref().map(linear), at.zero(1), at.zero(2), at.zero(3)]
    }
}

impl Var {
    /// Returns `x` where `x > threshold`, `value` elsewhere; both are `[]` and get no gradient.
    ///
    /// Source: `torch.nn.functional.threshold`.
    #[must_use]
    pub fn threshold(&self, threshold: &Var, value: &Var) -> Var {
        pointwise(Threshold, [self, threshold, value])
    }
}
