//! `xlogy`: `a · ln b`, and 0 where `a` is 0.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `a · ln b`; 0 where `a` is 0, NaN where `b` is NaN.
#[derive(Clone, Copy, Debug)]
struct Xlogy;

impl Formula<2, 1> for Xlogy {
    fn name(&self) -> &'static str {
        "xlogy"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        let y = A::select(a.eq(zero), zero, a.mul(b.ln()));
        [A::select(b.eq(b), y, b)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (a, b) = (&at.inputs[0], &at.inputs[1]);
        let Some(dy) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let zero = dy.number(0.0);
        let of_factor = || {
            let is_limit = a.eq(&zero) * (1.0 - zero.lt(b));
            is_limit.where_(&zero, &dy.xlogy(b))
        };
        vec![at.needs[0].then(of_factor), at.needs[1].then(|| dy * a / b)]
    }
}

impl Var {
    /// Returns `self · ln other`, broadcast: 0 where `self` is 0, whatever `other` is but NaN.
    ///
    /// Source: `torch.xlogy`.
    #[must_use]
    pub fn xlogy(&self, other: &Var) -> Var {
        pointwise(Xlogy, [self, other])
    }
}
