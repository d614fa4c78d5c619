//! Logarithm of the sigmoid: `y = -ln(1 + e⁻ˣ)`, as `min(x, 0) - ln(1 + e^-|x|)`.

use super::sigmoid::SigmoidGradient;
use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `min(x, 0) - ln(1 + e^-|x|)`.
#[derive(Clone, Copy, Debug)]
struct LogSigmoid;

impl Formula<1, 1> for LogSigmoid {
    fn name(&self) -> &'static str {
        "logsigmoid"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        let c = A::splat;
        let small = c(0.0).sub(x.abs()).exp();
        [c(0.0).min(x).sub(small.ln_1p())]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(LogSigmoidGradient, [dy, &at.inputs[0]]);
        vec![at.gradients[0].as_ref().map(dx)]
    }
}

/// The gradient of [`LogSigmoid`]: `dy · sigmoid(-x)`.
#[derive(Clone, Copy, Debug)]
struct LogSigmoidGradient;

impl Formula<2, 1> for LogSigmoidGradient {
    fn name(&self) -> &'static str {
        "logsigmoid_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        [dy.mul(c(0.0).sub(x).sigmoid())]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(LogSigmoidGradient, [g, x])),
            g.filter(|_| at.needs[1])
                .map(|g| -pointwise(SigmoidGradient, [&(g * dy), &x.sigmoid()])),
        ]
    }
}

impl Var {
    /// Returns `ln(1 / (1 + e⁻ˣ))`.
    ///
    /// Source: `torch.nn.functional.logsigmoid`.
    #[must_use]
    pub fn logsigmoid(&self) -> Var {
        pointwise(LogSigmoid, [self])
    }
}
