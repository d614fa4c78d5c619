//! `clamp_min`: numbers, but none below a bound.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `max(x, min)`; NaN stays.
#[derive(Clone, Copy, Debug)]
struct ClampMin;

impl Formula<2, 1> for ClampMin {
    fn name(&self) -> &'static str {
        "clamp_min"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, min]: [A; 2]) -> [A; 1] {
        [A::select(x.lt(min), min, x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, min) = (&at.inputs[0], &at.inputs[1]);
        let of_x = at.gradients[0].as_ref().map(|dy| x.lt(min).where_(&dy.number(0.0), dy));
        vec![of_x, at.zero(1)]
    }
}

/// The second number; the gradient is the first one's.
#[derive(Clone, Copy, Debug)]
struct WithData;

impl Formula<2, 1> for WithData {
    fn name(&self) -> &'static str {
        "with_data"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [_, data]: [A; 2]) -> [A; 1] {
        [data]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].clone(), at.zero(1)]
    }
}

impl Var {
    /// Gives the numbers, but `min` where they are below it; `min` gets no gradient. At the bound itself the
    /// gradient goes through.
    ///
    /// Source: `torch.clamp_min`.
    #[must_use]
    pub fn clamp_min(&self, min: &Var) -> Var {
        pointwise(ClampMin, [self, min])
    }

    /// Gives the numbers `data` in this value's place: gradients go to this value as if nothing had changed.
    ///
    /// Source: writing to a tensor under `torch.no_grad`.
    #[must_use]
    pub fn with_data(&self, data: &Var) -> Var {
        pointwise(WithData, [self, data])
    }
}
