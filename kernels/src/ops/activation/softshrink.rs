//! Softshrink: `x` moved towards 0 by `λ`, but not beyond.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x - λ` above `λ`, `x + λ` below `-λ`, 0 between.
#[derive(Clone, Copy, Debug)]
struct Softshrink;

impl Formula<2, 1> for Softshrink {
    fn name(&self) -> &'static str {
        "softshrink"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, lambd]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let negative = c(0.0).sub(lambd);
        let low = A::select(x.lt(negative), x.add(lambd), x.mul(c(0.0)));
        [A::select(lambd.lt(x), x.sub(lambd), low)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(ShrinkGradient, [dy, &at.inputs[0], &at.inputs[1]]);
        vec![at.gradients[0].as_ref().map(dx), None]
    }
}

/// The gradient of [`Softshrink`] and of [`hardshrink`](Var::hardshrink): 0 from `-λ` to `λ`, `dy` elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShrinkGradient;

impl Formula<3, 1> for ShrinkGradient {
    fn name(&self) -> &'static str {
        "shrink_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, lambd]: [A; 3]) -> [A; 1] {
        let c = A::splat;
        let low = A::select(x.lt(c(0.0).sub(lambd)), dy, c(0.0));
        [A::select(lambd.lt(x), dy, low)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let linear = |g: &Var| pointwise(ShrinkGradient, [g, &at.inputs[1], &at.inputs[2]]);
        vec![at.gradients[0].as_ref().map(linear), at.zero(1), at.zero(2)]
    }
}

impl Var {
    /// Returns `x - lambd` above `lambd`, `x + lambd` below `-lambd`, 0 between; `lambd` is `[]` and gets no
    /// gradient.
    ///
    /// Source: `torch.nn.functional.softshrink`.
    #[must_use]
    pub fn softshrink(&self, lambd: &Var) -> Var {
        pointwise(Softshrink, [self, lambd])
    }
}
