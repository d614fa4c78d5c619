//! Hardswish: `y = x · min(max(x + 3, 0), 6) / 6`.

use super::hardtanh::HardtanhGradient;
use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x · min(max(x + 3, 0), 6) / 6`.
#[derive(Clone, Copy, Debug)]
struct Hardswish;

impl Formula<1, 1> for Hardswish {
    fn name(&self) -> &'static str {
        "hardswish"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        let c = A::splat;
        [x.mul(c(6.0).min(c(0.0).max(x.add(c(3.0))))).div(c(6.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(HardswishGradient, [dy, &at.inputs[0]]);
        vec![at.gradients[0].as_ref().map(dx)]
    }
}

/// The gradient of [`Hardswish`]: 0 up to -3, `dy` from 3 on, `dy · (x / 3 + 1 / 2)` between.
#[derive(Clone, Copy, Debug)]
struct HardswishGradient;

impl Formula<2, 1> for HardswishGradient {
    fn name(&self) -> &'static str {
        "hardswish_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let between = dy.mul(x.div(c(3.0)).add(c(0.5)));
        let below = A::select(x.lt(c(3.0)), between, dy);
        [A::select(c(-3.0).lt(x), below, c(0.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        // dy / 3 strictly between -3 and 3, 0 elsewhere.
        let curvature = |g: &Var| {
            let third = g * dy / 3.0;
            pointwise(HardtanhGradient, [&third, x, &x.number(-3.0), &x.number(3.0)])
        };
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(HardswishGradient, [g, x])),
            g.filter(|_| at.needs[1]).map(curvature),
        ]
    }
}

impl Var {
    /// Returns `x · min(max(x + 3, 0), 6) / 6`.
    ///
    /// Source: `torch.nn.functional.hardswish`.
    #[must_use]
    pub fn hardswish(&self) -> Var {
        pointwise(Hardswish, [self])
    }
}
