//! SiLU, also called swish: `y = x · sigmoid(x)`.

use super::sigmoid::SigmoidGradient;
use crate::arithmetic::Arithmetic;
use crate::arithmetic::activation::ActivationKind;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x · sigmoid(x)`.
#[derive(Clone, Copy, Debug)]
pub struct Silu;

impl Formula<1, 1> for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        [ActivationKind::Silu.apply(x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| pointwise(SiluGradient, [dy, &at.inputs[0]]))]
    }
}

/// The gradient of [`Silu`] from that of its output and the input: `dy · s · (1 + x · (1 - s))` with
/// `s = sigmoid(x)`.
#[derive(Clone, Copy, Debug)]
pub struct SiluGradient;

impl Formula<2, 1> for SiluGradient {
    fn name(&self) -> &'static str {
        "silu_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let one = A::splat(1.0);
        let s = x.sigmoid();
        [dy.mul(s).mul(x.mul(one.sub(s)).add(one))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        // s · (1 - s) · (2 + x · (1 - 2 · s))
        let curvature = |g: &Var| {
            let s = x.sigmoid();
            let bend = x * (1.0 - &s * 2.0) + 2.0;
            pointwise(SigmoidGradient, [&(g * dy), &s]) * bend
        };
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(SiluGradient, [g, x])),
            g.filter(|_| at.needs[1]).map(curvature),
        ]
    }
}

impl Var {
    /// Returns `x · sigmoid(x)`.
    ///
    /// Source: `torch.nn.functional.silu`.
    #[must_use]
    pub fn silu(&self) -> Var {
        pointwise(Silu, [self])
    }
}
