//! The logistic sigmoid: `y = 1 / (1 + e⁻ˣ)`.

use crate::arithmetic::Arithmetic;
use crate::arithmetic::activation::ActivationKind;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `1 / (1 + e⁻ˣ)`.
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl Formula<1, 1> for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        [ActivationKind::Sigmoid.apply(x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| pointwise(SigmoidGradient, [dy, &at.outputs[0]]))]
    }
}

/// The gradient of [`Sigmoid`] from that of its output and the output: `dy · y · (1 - y)`.
#[derive(Clone, Copy, Debug)]
pub struct SigmoidGradient;

impl Formula<2, 1> for SigmoidGradient {
    fn name(&self) -> &'static str {
        "sigmoid_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, y]: [A; 2]) -> [A; 1] {
        let one = A::splat(1.0);
        [dy.mul(one.sub(y)).mul(y)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, y) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(SigmoidGradient, [g, y])),
            g.filter(|_| at.needs[1]).map(|g| g * dy * (1.0 - y * 2.0)),
        ]
    }
}

impl Var {
    /// Returns `1 / (1 + e⁻ˣ)`.
    ///
    /// Source: `torch.sigmoid`.
    #[must_use]
    pub fn sigmoid(&self) -> Var {
        pointwise(Sigmoid, [self])
    }
}
