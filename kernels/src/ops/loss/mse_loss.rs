//! Mean squared error.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::{Formula, pointwise};
use crate::ops::reduction::reduce::Reduction;

/// `(x - target)²`.
#[derive(Clone, Copy, Debug)]
struct SquaredError;

impl Formula<2, 1> for SquaredError {
    fn name(&self) -> &'static str {
        "squared_error"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, target]: [A; 2]) -> [A; 1] {
        let error = x.sub(target);
        [error.mul(error)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, target) = (&at.inputs[0], &at.inputs[1]);
        let toward = |a: &Var, b: &Var| {
            at.gradients[0].as_ref().map(|dy| pointwise(SquaredErrorGradient, [dy, a, b]))
        };
        vec![
            at.needs[0].then(|| toward(x, target)).flatten(),
            at.needs[1].then(|| toward(target, x)).flatten(),
        ]
    }
}

/// The gradient of [`SquaredError`]: `2 · dy · (x - target)`.
#[derive(Clone, Copy, Debug)]
struct SquaredErrorGradient;

impl Formula<3, 1> for SquaredErrorGradient {
    fn name(&self) -> &'static str {
        "squared_error_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, target]: [A; 3]) -> [A; 1] {
        let error = x.sub(target);
        [dy.mul(error.add(error))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x, target) = (&at.inputs[0], &at.inputs[1], &at.inputs[2]);
        let Some(g) = &at.gradients[0] else {
            return vec![None; 3];
        };
        vec![
            at.needs[0].then(|| g * ((x - target) * 2.0)),
            at.needs[1].then(|| g * (dy * 2.0)),
            at.needs[2].then(|| g * (dy * -2.0)),
        ]
    }
}

impl Var {
    /// Returns `(x - target)²`, reduced over all elements.
    ///
    /// # Shape
    ///
    /// Both have one shape, as broadcasting here is nearly always a mistake; the loss is `[]`, or of that
    /// shape if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.mse_loss`, which broadcasts with a warning.
    #[must_use]
    pub fn mse_loss(&self, target: &Var, reduction: Reduction) -> Var {
        self.trace().function(Function::new("mse_loss"), &[Some(self), Some(target)], |cast| {
            cast(self).plain_mse_loss(&cast(target), reduction)
        })
    }

    fn plain_mse_loss(&self, target: &Var, reduction: Reduction) -> Var {
        if !self.same_size("mse_loss", target) {
            return self.trace().poison();
        }
        reduction.apply(pointwise(SquaredError, [self, target]))
    }
}
