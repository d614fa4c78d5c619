//! Leaky ReLU: `y = x` where `x > 0`, `slope · x` elsewhere. At 0 the gradient is `slope`, as in torch.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` or `slope · x`.
#[derive(Clone, Copy, Debug)]
struct LeakyRelu;

impl Formula<2, 1> for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky_relu"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, slope]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(zero.lt(x), x, x.mul(slope))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, slope) = (&at.inputs[0], &at.inputs[1]);
        let dx = |dy: &Var| pointwise(LeakyReluGradient, [dy, x, slope]);
        vec![at.gradients[0].as_ref().map(dx), None]
    }
}

/// The gradient of [`LeakyRelu`]: `dy` or `slope · dy`.
#[derive(Clone, Copy, Debug)]
struct LeakyReluGradient;

impl Formula<3, 1> for LeakyReluGradient {
    fn name(&self) -> &'static str {
        "leaky_relu_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, slope]: [A; 3]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(zero.lt(x), dy, dy.mul(slope))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let g = at.gradients[0].as_ref();
        let linear = |g: &Var| pointwise(LeakyReluGradient, [g, &at.inputs[1], &at.inputs[2]]);
        vec![g.map(linear), at.zero(1), None]
    }
}

impl Var {
    /// Returns `x` where `x > 0`, `negative_slope · x` elsewhere; `negative_slope` is `[]` and gets no
    /// gradient.
    ///
    /// Source: `torch.nn.functional.leaky_relu`.
    #[must_use]
    pub fn leaky_relu(&self, negative_slope: &Var) -> Var {
        pointwise(LeakyRelu, [self, negative_slope])
    }
}
