//! Hardtanh: `y = min(max(x, min_val), max_val)`. ReLU6 is hardtanh from 0 to 6.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` between two bounds.
#[derive(Clone, Copy, Debug)]
struct Hardtanh;

impl Formula<3, 1> for Hardtanh {
    fn name(&self) -> &'static str {
        "hardtanh"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, least, most]: [A; 3]) -> [A; 1] {
        // The second operand comes through where one is NaN.
        [most.min(least.max(x))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, least, most) = (&at.inputs[0], &at.inputs[1], &at.inputs[2]);
        let dx = |dy: &Var| pointwise(HardtanhGradient, [dy, x, least, most]);
        vec![at.gradients[0].as_ref().map(dx), None, None]
    }
}

/// The gradient of [`Hardtanh`]: `dy` strictly between the bounds, 0 elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct HardtanhGradient;

impl Formula<4, 1> for HardtanhGradient {
    fn name(&self) -> &'static str {
        "hardtanh_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, least, most]: [A; 4]) -> [A; 1] {
        let zero = A::splat(0.0);
        let below_most = A::select(x.lt(most), dy, zero);
        [A::select(least.lt(x), below_most, zero)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [_, x, least, most] = at.inputs else {
            return vec![None; 4];
        };
        let g = at.gradients[0].as_ref();
        let linear = |g: &Var| pointwise(HardtanhGradient, [g, x, least, most]);
        vec![g.map(linear), at.zero(1), at.zero(2), at.zero(3)]
    }
}

impl Var {
    /// Returns `x`, but at least `min_val` and at most `max_val`, which are `[]` and get no gradient. At
    /// the bounds and beyond the gradient is 0.
    ///
    /// Source: `torch.nn.functional.hardtanh`.
    #[must_use]
    pub fn hardtanh(&self, min_val: &Var, max_val: &Var) -> Var {
        pointwise(Hardtanh, [self, min_val, max_val])
    }

    /// Returns `min(max(x, 0), 6)`.
    ///
    /// Source: `torch.nn.functional.relu6`.
    #[must_use]
    pub fn relu6(&self) -> Var {
        self.hardtanh(&self.number(0.0), &self.number(6.0))
    }
}
