//! Comparisons and choices between numbers: `eq`, `lt`, `where_`.
//!
//! A comparison gives 1 where it is true and 0 elsewhere, in the dtype of its operands, and has no gradient.

use crate::arithmetic::Arithmetic;
use crate::ir::dtype::Dtype;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `a = b`.
#[derive(Clone, Copy, Debug)]
struct Equal;

impl Formula<2, 1> for Equal {
    fn name(&self) -> &'static str {
        "eq"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        [A::select(a.eq(b), c(1.0), c(0.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.zero(0), at.zero(1)]
    }
}

/// `a < b`.
#[derive(Clone, Copy, Debug)]
struct Less;

impl Formula<2, 1> for Less {
    fn name(&self) -> &'static str {
        "lt"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        [A::select(a.lt(b), c(1.0), c(0.0))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.zero(0), at.zero(1)]
    }
}

/// `b` where the condition is 0, `a` elsewhere.
#[derive(Clone, Copy, Debug)]
struct Where;

impl Formula<3, 1> for Where {
    fn name(&self) -> &'static str {
        "where"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [condition, a, b]: [A; 3]) -> [A; 1] {
        [A::select(condition.eq(A::splat(0.0)), b, a)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(dy) = &at.gradients[0] else {
            return vec![None; 3];
        };
        let (condition, zero) = (&at.inputs[0], dy.number(0.0));
        vec![
            at.zero(0),
            at.needs[1].then(|| condition.where_(dy, &zero)),
            at.needs[2].then(|| condition.where_(&zero, dy)),
        ]
    }
}

impl Var {
    /// Gives 1 where both numbers are equal, 0 elsewhere, broadcast; no gradient goes through.
    ///
    /// Source: `torch.eq`, in the dtype of the operands.
    #[must_use]
    pub fn eq(&self, other: &Var) -> Var {
        pointwise(Equal, [self, other])
    }

    /// Gives 1 where `self` is below `other`, 0 elsewhere, broadcast; no gradient goes through.
    ///
    /// Source: `torch.lt`, in the dtype of the operands.
    #[must_use]
    pub fn lt(&self, other: &Var) -> Var {
        pointwise(Less, [self, other])
    }

    /// Returns `b` where this condition, a flag or a number, is 0 and `a` elsewhere, broadcast. The gradient of the one that is not
    /// chosen is 0.
    ///
    /// Source: `torch.where`.
    #[must_use]
    pub fn where_(&self, a: &Var, b: &Var) -> Var {
        // The condition has no say in the type of the result.
        let is_other =
            self.dtype() == Dtype::Bool || [self, a, b].iter().any(|x| x.dtype().is_half());
        let array = [a, b].into_iter().find(|x| x.shape().rank() > 0).unwrap_or(a);
        let condition = if is_other { self.to(array.dtype()) } else { self.clone() };
        pointwise(Where, [&condition, a, b])
    }
}
