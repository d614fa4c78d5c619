//! Parametric ReLU: `y = x` where `x > 0`, `w · x` elsewhere, with a slope `w` that is learned.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::shape::Shape;
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` or `w · x`.
#[derive(Clone, Copy, Debug)]
struct Prelu;

impl Formula<2, 1> for Prelu {
    fn name(&self) -> &'static str {
        "prelu"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, w]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(zero.lt(x), x, x.mul(w))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x, w) = (at.gradients[0].as_ref(), &at.inputs[0], &at.inputs[1]);
        vec![
            dy.filter(|_| at.needs[0]).map(|dy| pointwise(InputGradient, [dy, x, w])),
            dy.filter(|_| at.needs[1]).map(|dy| pointwise(WeightGradient, [dy, x])),
        ]
    }
}

/// The gradient of `x`: `dy` or `w · dy`.
#[derive(Clone, Copy, Debug)]
struct InputGradient;

impl Formula<3, 1> for InputGradient {
    fn name(&self) -> &'static str {
        "prelu_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, w]: [A; 3]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(zero.lt(x), dy, dy.mul(w))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (g, dy) = (at.gradients[0].as_ref(), &at.inputs[0]);
        let (x, w) = (&at.inputs[1], &at.inputs[2]);
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(InputGradient, [g, x, w])),
            at.zero(1),
            g.filter(|_| at.needs[2]).map(|g| where_negative(x, &(g * dy))),
        ]
    }
}

/// The gradient of `w` in the shape of `x`: 0 or `x · dy`.
#[derive(Clone, Copy, Debug)]
struct WeightGradient;

impl Formula<2, 1> for WeightGradient {
    fn name(&self) -> &'static str {
        "prelu_weight_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        [A::select(zero.lt(x), zero, x.mul(dy))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (g, dy, x) = (at.gradients[0].as_ref(), &at.inputs[0], &at.inputs[1]);
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(WeightGradient, [g, x])),
            g.filter(|_| at.needs[1]).map(|g| where_negative(x, &(g * dy))),
        ]
    }
}

/// Gives 0 where `x` is above 0, `below` elsewhere.
fn where_negative(x: &Var, below: &Var) -> Var {
    let zero = x.number(0.0);
    zero.lt(x).where_(&zero, below)
}

impl Var {
    /// Returns `x` where `x > 0`, `weight · x` elsewhere.
    ///
    /// # Shape
    ///
    /// `weight` is `[1]`, or `[channels]` where `self` is `[batch, channels, ..]`.
    ///
    /// Source: `torch.nn.functional.prelu`.
    #[must_use]
    pub fn prelu(&self, weight: &Var) -> Var {
        self.trace().function(Function::of_same("prelu"), &[Some(self), Some(weight)], |cast| {
            cast(self).plain_prelu(&cast(weight))
        })
    }

    fn plain_prelu(&self, weight: &Var) -> Var {
        if self.id().is_none() || weight.id().is_none() {
            return self.trace().poison();
        }
        let (x, n) = (self.shape(), weight.shape().numel());
        if n == 1 {
            return pointwise(Prelu, [self, &weight.reshape([])]);
        }
        let channels = x.get(1).copied().unwrap_or(1);
        if n != channels {
            return self.trace().fail(format!(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = {n} and \
                 channel size = {channels}."
            ));
        }
        let sizes = [n].into_iter().chain(vec![1; x.rank() - 2]).collect::<Shape>();
        pointwise(Prelu, [self, &weight.reshape(sizes)])
    }
}
