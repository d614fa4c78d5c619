//! `trunc`: the whole part of a number.

use super::elementwise::{Formula, pointwise};
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::op::GradientAt;
use crate::program::trace::Var;

/// `x` without its fraction; it has no slope.
#[derive(Clone, Copy, Debug)]
struct Trunc;

impl Formula<1, 1> for Trunc {
    fn name(&self) -> &'static str {
        "trunc"
    }

    #[inline(always)]
    fn apply<T: Float, S: Simd>(self, [x]: [T::Lanes<S>; 1]) -> [T::Lanes<S>; 1] {
        [x.map(|x| T::from_f64(x.into().trunc()))]
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
