//! ReLU: `y = max(x, 0)`. At 0 the gradient is 0, and NaN stays NaN, as in torch.

use crate::arithmetic::Arithmetic;
use crate::arithmetic::activation::ActivationKind;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `max(x, 0)`.
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl Formula<1, 1> for Relu {
    const KEEPS_HALVES: bool = true;

    fn name(&self) -> &'static str {
        "relu"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        // The second operand comes through where one is NaN.
        [ActivationKind::Relu.apply(x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| pointwise(ReluGradient, [dy, &at.outputs[0]]))]
    }
}

/// The gradient of [`Relu`] from that of its output and the output: 0 where `y` is 0, else `dy`.
#[derive(Clone, Copy, Debug)]
pub struct ReluGradient;

impl Formula<2, 1> for ReluGradient {
    const KEEPS_HALVES: bool = true;

    fn name(&self) -> &'static str {
        "relu_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, y]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(y.eq(zero), zero, dy)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let g = at.gradients[0].as_ref();
        vec![g.map(|g| pointwise(ReluGradient, [g, &at.inputs[1]])), at.zero(1)]
    }
}

impl Var {
    /// Returns `max(x, 0)`.
    ///
    /// Source: `torch.nn.functional.relu`.
    #[must_use]
    pub fn relu(&self) -> Var {
        pointwise(Relu, [self])
    }
}
