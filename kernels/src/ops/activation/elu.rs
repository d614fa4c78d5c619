//! ELU: `y = x` where `x > 0`, `α · (eˣ - 1)` elsewhere.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` or `α · (eˣ - 1)`.
#[derive(Clone, Copy, Debug)]
struct Elu;

impl Formula<2, 1> for Elu {
    fn name(&self) -> &'static str {
        "elu"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, alpha]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(zero.lt(x), x, x.exp_m1().mul(alpha))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, alpha) = (&at.inputs[0], &at.inputs[1]);
        let dx = |dy: &Var| pointwise(EluGradient, [dy, x, alpha]);
        vec![at.gradients[0].as_ref().map(dx), None]
    }
}

/// The gradient of [`Elu`]: `dy` or `dy · α · eˣ`.
#[derive(Clone, Copy, Debug)]
struct EluGradient;

impl Formula<3, 1> for EluGradient {
    fn name(&self) -> &'static str {
        "elu_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, alpha]: [A; 3]) -> [A; 1] {
        let zero = A::splat(0.0);
        let slope = x.exp().mul(alpha);
        [A::select(zero.lt(x), dy, dy.mul(slope))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x, alpha) = (&at.inputs[0], &at.inputs[1], &at.inputs[2]);
        let g = at.gradients[0].as_ref();
        let zero = x.number(0.0);
        // Where x is above 0 the exponential is not used, but must be finite: 0 times it is the gradient.
        let curvature =
            |g: &Var| zero.lt(x).where_(&zero, &(g * dy * (x.minimum(&zero).exp() * alpha)));
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(EluGradient, [g, x, alpha])),
            g.filter(|_| at.needs[1]).map(curvature),
            None,
        ]
    }
}

impl Var {
    /// Returns `x` where `x > 0`, `alpha · (eˣ - 1)` elsewhere; `alpha` is `[]` and gets no gradient.
    ///
    /// Source: `torch.nn.functional.elu`.
    #[must_use]
    pub fn elu(&self, alpha: &Var) -> Var {
        pointwise(Elu, [self, alpha])
    }
}
