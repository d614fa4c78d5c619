//! `trunc`: the whole part of a number.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` without its fraction; it has no slope.
#[derive(Clone, Copy, Debug)]
struct Trunc;

impl Formula<1, 1> for Trunc {
    fn name(&self) -> &'static str {
        "trunc"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        [x.trunc()]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.zero(0)]
    }
}

impl Var {
    /// Gives the whole part of `x`, rounded toward 0; its gradient is 0.
    ///
    /// Source: `torch.trunc`.
    #[must_use]
    pub fn trunc(&self) -> Var {
        pointwise(Trunc, [self])
    }
}
