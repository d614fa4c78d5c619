//! Mish: `y = x · tanh(ln(1 + eˣ))`.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x · tanh(ln(1 + eˣ))`.
#[derive(Clone, Copy, Debug)]
struct Mish;

impl Formula<1, 1> for Mish {
    fn name(&self) -> &'static str {
        "mish"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        let c = A::splat;
        let softplus = x.exp().ln_1p();
        let softplus = A::select(c(20.0).lt(x), x, softplus);
        let t = softplus.tanh();
        [x.mul(t)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dx = |dy: &Var| pointwise(MishGradient, [dy, &at.inputs[0]]);
        vec![at.gradients[0].as_ref().map(dx)]
    }
}

/// The gradient of [`Mish`]: `dy · (t + x · sigmoid(x) · (1 - t²))`, where `t = tanh(ln(1 + eˣ))`.
#[derive(Clone, Copy, Debug)]
struct MishGradient;

impl Formula<2, 1> for MishGradient {
    fn name(&self) -> &'static str {
        "mish_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let softplus = x.exp().ln_1p();
        let softplus = A::select(c(20.0).lt(x), x, softplus);
        let t = softplus.tanh();
        let slope = x.mul(x.sigmoid()).mul(c(1.0).sub(t.mul(t)));
        [dy.mul(t.add(slope))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        // (1 - t²) · s · (2 + x · (1 - s) - 2 · x · s · t)
        let curvature = |g: &Var| {
            let s = x.sigmoid();
            let t = x.softplus(&x.number(1.0), &x.number(20.0)).tanh();
            let bend = x * (1.0 - &s) + 2.0 - x * &s * &t * 2.0;
            g * dy * ((1.0 - t.square()) * s * bend)
        };
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(MishGradient, [g, x])),
            g.filter(|_| at.needs[1]).map(curvature),
        ]
    }
}

impl Var {
    /// Returns `x · tanh(ln(1 + eˣ))`.
    ///
    /// Source: `torch.nn.functional.mish`.
    #[must_use]
    pub fn mish(&self) -> Var {
        pointwise(Mish, [self])
    }
}
