//! Hardshrink: `x`, but 0 from `-λ` to `λ`.

use super::softshrink::ShrinkGradient;
use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x`, but 0 from `-λ` to `λ`.
#[derive(Clone, Copy, Debug)]
struct Hardshrink;

impl Formula<2, 1> for Hardshrink {
    fn name(&self) -> &'static str {
        "hardshrink"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, lambd]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let low = A::select(x.lt(c(0.0).sub(lambd)), x, x.mul(c(0.0)));
        [A::select(lambd.lt(x), x, low)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(ShrinkGradient, [dy, &at.inputs[0], &at.inputs[1]]);
        vec![at.gradients[0].as_ref().map(dx), None]
    }
}

impl Var {
    /// Returns `x`, but 0 from `-lambd` to `lambd`, which is `[]` and gets no gradient.
    ///
    /// Source: `torch.nn.functional.hardshrink`.
    #[must_use]
    pub fn hardshrink(&self, lambd: &Var) -> Var {
        pointwise(Hardshrink, [self, lambd])
    }
}
