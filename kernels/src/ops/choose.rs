//! A choice between two values by a third: how the gradients of functions in pieces are differentiated.

use super::elementwise::{Formula, pointwise};
use crate::cpu::simd::{Float, Lanes, Simd};
use crate::op::GradientAt;
use crate::program::trace::Var;

/// `above` where `x` is above the threshold, `below` elsewhere.
#[derive(Clone, Copy, Debug)]
struct Choose;

impl Formula<4, 1> for Choose {
    fn name(&self) -> &'static str {
        "choose"
    }

    #[inline(always)]
    fn apply<T: Float, S: Simd>(
        self,
        [x, threshold, above, below]: [T::Lanes<S>; 4],
    ) -> [T::Lanes<S>; 1] {
        [T::Lanes::<S>::select(threshold.lt(x), above, below)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, threshold) = (&at.inputs[0], &at.inputs[1]);
        let Some(dy) = &at.gradients[0] else { return vec![None; 4] };
        let zero = dy.number(0.0);
        vec![
            at.zero(0),
            at.zero(1),
            at.needs[2].then(|| choose(x, threshold, dy, &zero)),
            at.needs[3].then(|| choose(x, threshold, &zero, dy)),
        ]
    }
}

/// Gives `above` where `x > threshold`, `below` elsewhere, all broadcast; where `x` is NaN, `below`.
pub(super) fn choose(x: &Var, threshold: &Var, above: &Var, below: &Var) -> Var {
    pointwise(Choose, [x, threshold, above, below])
}
