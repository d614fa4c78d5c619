//! Arithmetic on two values: `add`, `sub`, `mul`, `div`, and Rust's operators on [`Var`].

use core::ops::{Add, Div, Mul, Neg, Sub};

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `a + b`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddFormula;

impl Formula<2, 1> for AddFormula {
    fn name(&self) -> &'static str {
        "add"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        [a.add(b)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].clone(), at.gradients[0].clone()]
    }
}

/// `a - b`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubFormula;

impl Formula<2, 1> for SubFormula {
    fn name(&self) -> &'static str {
        "sub"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        [a.sub(b)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dy = at.gradients[0].as_ref();
        vec![dy.cloned(), dy.filter(|_| at.needs[1]).map(|dy| -dy)]
    }
}

/// `a · b`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MulFormula;

impl Formula<2, 1> for MulFormula {
    fn name(&self) -> &'static str {
        "mul"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        [a.mul(b)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dy = at.gradients[0].as_ref();
        vec![
            dy.filter(|_| at.needs[0]).map(|dy| dy * &at.inputs[1]),
            dy.filter(|_| at.needs[1]).map(|dy| dy * &at.inputs[0]),
        ]
    }
}

/// `a / b`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DivFormula;

impl Formula<2, 1> for DivFormula {
    fn name(&self) -> &'static str {
        "div"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        [a.div(b)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dy = at.gradients[0].as_ref();
        let (b, y) = (&at.inputs[1], &at.outputs[0]);
        vec![
            dy.filter(|_| at.needs[0]).map(|dy| dy / b),
            dy.filter(|_| at.needs[1]).map(|dy| pointwise(DivisorGradient, [dy, y, b])),
        ]
    }
}

/// The gradient of a divisor `b` from `dy`, `y = a / b` and `b`: `-dy · y / b`.
#[derive(Clone, Copy, Debug)]
struct DivisorGradient;

impl Formula<3, 1> for DivisorGradient {
    fn name(&self) -> &'static str {
        "divisor_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, y, b]: [A; 3]) -> [A; 1] {
        let zero = A::splat(0.0);
        [zero.sub(dy).mul(y.div(b))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, y, b) = (&at.inputs[0], &at.inputs[1], &at.inputs[2]);
        let of_result = at.gradients[0].as_ref();
        vec![
            of_result.filter(|_| at.needs[0]).map(|g| -(g * &(y / b))),
            of_result.filter(|_| at.needs[1]).map(|g| -(g * &(dy / b))),
            of_result.filter(|_| at.needs[2]).map(|g| g * &(dy * y / b / b)),
        ]
    }
}

/// Says how a gradient of [`maximum`](Var::maximum) or [`minimum`](Var::minimum) is shared out.
#[derive(Clone, Copy, Debug)]
enum Extreme {
    Maximum,
    Minimum,
}

/// The larger or the smaller of two numbers; NaN if either is NaN.
#[derive(Clone, Copy, Debug)]
struct ExtremeFormula(Extreme);

impl Formula<2, 1> for ExtremeFormula {
    fn name(&self) -> &'static str {
        match self.0 {
            Extreme::Maximum => "maximum",
            Extreme::Minimum => "minimum",
        }
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [a, b]: [A; 2]) -> [A; 1] {
        let y = match self.0 {
            Extreme::Maximum => a.max(b),
            Extreme::Minimum => a.min(b),
        };
        // Of two operands, the second comes through where one is NaN: `b` by itself.
        [A::select(a.eq(a), y, a)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (a, b, y) = (&at.inputs[0], &at.inputs[1], &at.outputs[0]);
        let share = |of: &Var, other: &Var| {
            at.gradients[0].as_ref().map(|dy| pointwise(ExtremeGradient, [dy, y, of, other]))
        };
        vec![share(a, b), share(b, a)]
    }
}

/// The gradient of one operand of [`ExtremeFormula`] from `dy`, `y`, the operand and the other one:
/// all of `dy` if it alone is `y`, half of it if both are.
#[derive(Clone, Copy, Debug)]
struct ExtremeGradient;

impl Formula<4, 1> for ExtremeGradient {
    fn name(&self) -> &'static str {
        "extreme_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, y, a, b]: [A; 4]) -> [A; 1] {
        let half = A::splat(0.5);
        let zero = A::splat(0.0);
        let share = A::select(a.eq(b), dy.mul(half), dy);
        [A::select(a.eq(y), share, zero)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [_, y, a, b] = at.inputs else { return vec![None; 4] };
        let linear = |g: &Var| pointwise(ExtremeGradient, [g, y, a, b]);
        vec![at.gradients[0].as_ref().map(linear), at.zero(1), at.zero(2), at.zero(3)]
    }
}

impl Var {
    /// Gives the larger of `self` and `other`, broadcast; NaN where either is NaN. Where both are equal,
    /// each gets half of the gradient.
    ///
    /// Source: `torch.maximum`.
    #[must_use]
    pub fn maximum(&self, other: &Var) -> Var {
        pointwise(ExtremeFormula(Extreme::Maximum), [self, other])
    }

    /// Gives the smaller of `self` and `other`, broadcast; NaN where either is NaN. Where both are
    /// equal, each gets half of the gradient.
    ///
    /// Source: `torch.minimum`.
    #[must_use]
    pub fn minimum(&self, other: &Var) -> Var {
        pointwise(ExtremeFormula(Extreme::Minimum), [self, other])
    }

    /// Gives the number `value` with this value's dtype and shape `[]`.
    pub(crate) fn number(&self, value: f64) -> Var {
        self.trace().constant(value, self.dtype(), [])
    }
}

// An operator takes values and references alike, and numbers on either side.
macro_rules! operator {
    ($operator:ident, $method:ident, $formula:ident) => {
        impl $operator<&Var> for &Var {
            type Output = Var;

            fn $method(self, b: &Var) -> Var {
                pointwise($formula, [self, b])
            }
        }

        impl $operator<Var> for &Var {
            type Output = Var;

            fn $method(self, b: Var) -> Var {
                self.$method(&b)
            }
        }

        impl $operator<&Var> for Var {
            type Output = Var;

            fn $method(self, b: &Var) -> Var {
                (&self).$method(b)
            }
        }

        impl $operator<Var> for Var {
            type Output = Var;

            fn $method(self, b: Var) -> Var {
                (&self).$method(&b)
            }
        }

        impl $operator<f64> for &Var {
            type Output = Var;

            fn $method(self, b: f64) -> Var {
                self.$method(&self.number(b))
            }
        }

        impl $operator<f64> for Var {
            type Output = Var;

            fn $method(self, b: f64) -> Var {
                (&self).$method(b)
            }
        }

        impl $operator<&Var> for f64 {
            type Output = Var;

            fn $method(self, b: &Var) -> Var {
                (&b.number(self)).$method(b)
            }
        }

        impl $operator<Var> for f64 {
            type Output = Var;

            fn $method(self, b: Var) -> Var {
                self.$method(&b)
            }
        }
    };
}

operator!(Add, add, AddFormula);
operator!(Sub, sub, SubFormula);
operator!(Mul, mul, MulFormula);
operator!(Div, div, DivFormula);

impl Neg for &Var {
    type Output = Var;

    fn neg(self) -> Var {
        pointwise(super::unary::NegFormula, [self])
    }
}

impl Neg for Var {
    type Output = Var;

    fn neg(self) -> Var {
        -&self
    }
}
