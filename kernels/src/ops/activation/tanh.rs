//! The hyperbolic tangent.

use crate::arithmetic::Arithmetic;
use crate::arithmetic::activation::ActivationKind;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `tanh x`.
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl Formula<1, 1> for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        [ActivationKind::Tanh.apply(x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| pointwise(TanhGradient, [dy, &at.outputs[0]]))]
    }
}

/// The gradient of [`Tanh`] from that of its output and the output: `dy · (1 - y²)`.
#[derive(Clone, Copy, Debug)]
pub struct TanhGradient;

impl Formula<2, 1> for TanhGradient {
    fn name(&self) -> &'static str {
        "tanh_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, y]: [A; 2]) -> [A; 1] {
        let one = A::splat(1.0);
        [dy.mul(one.sub(y.mul(y)))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, y) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(TanhGradient, [g, y])),
            g.filter(|_| at.needs[1]).map(|g| g * dy * (y * -2.0)),
        ]
    }
}

impl Var {
    /// Returns `tanh x`.
    ///
    /// Source: `torch.tanh`.
    #[must_use]
    pub fn tanh(&self) -> Var {
        pointwise(Tanh, [self])
    }
}
