//! Functions of one number: `neg`, `exp`, `log`, `log1p`, `sqrt`, `abs`, `reciprocal`, `square`, `sin`, `cos`,
//! `pow`.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// Writes one function of `x`: its vector and its gradient, from `dy`, `x` and `y`.
macro_rules! unary {
    (
        $(#[$doc:meta])*
        $formula:ident, $name:literal, $method:ident,
        |$x:ident| $vector:expr,
        $gradient:expr
    ) => {
        #[doc = concat!("The formula of [`Var::", stringify!($method), "`].")]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $formula;

        impl Formula<1, 1> for $formula {
            fn name(&self) -> &'static str {
                $name
            }

            #[inline(always)]
            fn apply<A: Arithmetic>(self, [$x]: [A; 1]) -> [A; 1] {
                [$vector]
            }

            fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
                let rule: fn(&Var, &Var, &Var) -> Var = $gradient;
                vec![at.gradients[0].as_ref().map(|dy| rule(dy, &at.inputs[0], &at.outputs[0]))]
            }
        }

        impl Var {
            $(#[$doc])*
            #[must_use]
            pub fn $method(&self) -> Var {
                pointwise($formula, [self])
            }
        }
    };
}

unary!(
    /// Returns `-x`; so does the operator. Source: `torch.neg`.
    NegFormula, "neg", negative,
    |x| A::splat(-0.0).sub(x),
    |dy, _x, _y| -dy
);
unary!(
    /// Returns `eˣ`. Source: `torch.exp`.
    ExpFormula, "exp", exp,
    |x| x.exp(),
    |dy, _x, y| dy * y
);
unary!(
    /// Returns `ln x`. Source: `torch.log`.
    LogFormula, "log", log,
    |x| x.ln(),
    |dy, x, _y| dy / x
);
unary!(
    /// Returns `ln(1 + x)`. Source: `torch.log1p`.
    Log1pFormula, "log1p", log1p,
    |x| x.ln_1p(),
    |dy, x, _y| dy / (x + 1.0)
);
unary!(
    /// Returns `√x`. Source: `torch.sqrt`.
    SqrtFormula, "sqrt", sqrt,
    |x| x.sqrt(),
    |dy, _x, y| dy / (y * 2.0)
);
unary!(
    /// Returns `|x|`; its gradient at 0 is 0. Source: `torch.abs`.
    AbsFormula, "abs", abs,
    |x| x.abs(),
    |dy, x, _y| dy * x.sign()
);
unary!(
    /// Returns `1 / x`. Source: `torch.reciprocal`.
    ReciprocalFormula, "reciprocal", reciprocal,
    |x| A::splat(1.0).div(x),
    |dy, _x, y| -(dy * y * y)
);
unary!(
    /// Returns `x²`. Source: `torch.square`.
    SquareFormula, "square", square,
    |x| x.mul(x),
    |dy, x, _y| dy * (x * 2.0)
);
unary!(
    /// Returns `sin x`. Source: `torch.sin`.
    SinFormula, "sin", sin,
    |x| x.sin(),
    |dy, x, _y| dy * x.cos()
);
unary!(
    /// Returns `cos x`. Source: `torch.cos`.
    CosFormula, "cos", cos,
    |x| x.cos(),
    |dy, x, _y| -(dy * x.sin())
);

/// -1, 0 or 1 as `x` is below, at or above 0.
#[derive(Clone, Copy, Debug)]
struct Sign;

impl Formula<1, 1> for Sign {
    fn name(&self) -> &'static str {
        "sign"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        let c = A::splat;
        let y = A::select(c(0.0).lt(x), c(1.0), x);
        [A::select(x.lt(c(0.0)), c(-1.0), y)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.zero(0)]
    }
}

/// `xᵉ` for a number `e` that is known while tracing.
#[derive(Clone, Copy, Debug)]
struct PowFormula {
    exponent: f64,
}

impl Formula<1, 1> for PowFormula {
    fn name(&self) -> &'static str {
        "pow"
    }

    fn attributes(&self) -> String {
        format!("exponent={}", self.exponent)
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        [x.pow(self.exponent)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let slope = |dy: &Var| dy * (at.inputs[0].pow(self.exponent - 1.0) * self.exponent);
        let constant = self.exponent == 0.0;
        vec![at.gradients[0].as_ref().map(|dy| if constant { dy * 0.0 } else { slope(dy) })]
    }
}

impl Var {
    /// Gives -1, 0 or 1 as `x` is below, at or above 0; its gradient is 0. Source: `torch.sign`, where NaN gives
    /// 0; here NaN stays.
    #[must_use]
    pub fn sign(&self) -> Var {
        pointwise(Sign, [self])
    }

    /// Returns `xᵉ`.
    ///
    /// Source: `torch.pow` with a number as exponent.
    #[must_use]
    pub fn pow(&self, exponent: f64) -> Var {
        pointwise(PowFormula { exponent }, [self])
    }
}
