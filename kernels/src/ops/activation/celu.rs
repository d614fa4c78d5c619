//! CELU: `y = x` where `x > 0`, `α · (e^(x/α) - 1)` elsewhere.

use crate::arithmetic::Arithmetic;
use crate::ir::dtype::Dtype;
use crate::ir::op::GradientAt;
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x` or `α · (e^(x/α) - 1)`.
#[derive(Clone, Copy, Debug)]
struct Celu;

impl Formula<2, 1> for Celu {
    fn name(&self) -> &'static str {
        "celu"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, alpha]: [A; 2]) -> [A; 1] {
        let zero = A::splat(0.0);
        let below = x.div(alpha).exp_m1().mul(alpha);
        [A::select(zero.lt(x), x, below)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, alpha) = (&at.inputs[0], &at.inputs[1]);
        // torch divides by α in single precision here, and only here.
        let single = alpha.to(Dtype::F32).to(alpha.dtype());
        let dx = |dy: &Var| pointwise(CeluGradient, [dy, x, alpha, &single]);
        vec![at.gradients[0].as_ref().map(dx), None]
    }
}

/// The gradient of [`Celu`], whose exponent is `x/β`: `dy` or `dy · (α/β) · e^(x/β)`.
#[derive(Clone, Copy, Debug)]
struct CeluGradient;

impl Formula<4, 1> for CeluGradient {
    fn name(&self) -> &'static str {
        "celu_gradient"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x, alpha, beta]: [A; 4]) -> [A; 1] {
        let zero = A::splat(0.0);
        let slope = x.div(beta).exp().mul(alpha.div(beta));
        [A::select(zero.lt(x), dy, dy.mul(slope))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [dy, x, alpha, beta] = [0, 1, 2, 3].map(|input| &at.inputs[input]);
        let g = at.gradients[0].as_ref();
        let zero = x.number(0.0);
        // Where x is above 0 the exponential is not used, but must be finite: 0 times it is the gradient.
        let bend = || (x.minimum(&zero) / beta).exp() * (alpha / beta) / beta;
        let curvature = |g: &Var| zero.lt(x).where_(&zero, &(g * dy * bend()));
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(CeluGradient, [g, x, alpha, beta])),
            g.filter(|_| at.needs[1]).map(curvature),
            None,
            None,
        ]
    }
}

impl Var {
    /// Returns `x` where `x > 0`, `alpha · (e^(x/alpha) - 1)` elsewhere; `alpha` is `[]` and gets no gradient.
    ///
    /// Source: `torch.nn.functional.celu`; as there, the gradient in double precision divides by `alpha` in
    /// single precision.
    #[must_use]
    pub fn celu(&self, alpha: &Var) -> Var {
        self.trace().function(Function::new("celu"), &[Some(self), Some(alpha)], |cast| {
            pointwise(Celu, [&cast(self), &cast(alpha)])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::ir::dtype::Dtype;
    use crate::ir::trace::Var;
    use crate::passes::differentiate::backward;
    use crate::testing::{Array, evaluate};

    #[test]
    fn the_gradient_in_double_precision_is_torchs() {
        // Of torch 2.15: at 0 and -0 the slope is not 1.
        let x = Array::new(Dtype::F64, [7], [-3.0, -1.0, -0.25, 0.0, -0.0, 0.5, 2.0]);
        let expected = [
            [-1.6592123359159934, -0.807786218406012, -0.23664585356941506, 0.0, -0.0, 0.5, 2.0],
            [
                0.26453354066699175,
                0.6419387263285671,
                0.8951037735074359,
                0.9999999813999693,
                0.9999999813999693,
                1.0,
                1.0,
            ],
        ];
        let result = |gradient: bool| {
            move |x: &[Var]| {
                let y = x[0].celu(&x[0].number(2.256));
                let dy = y.number(1.0).expand(y.shape().clone());
                match gradient {
                    false => y,
                    true => backward(y.trace(), &[(y.clone(), dy)], x)[0].clone().unwrap(),
                }
            }
        };
        for (gradient, expected) in [(false, expected[0]), (true, expected[1])] {
            let got = evaluate(result(gradient), std::slice::from_ref(&x), &[]);
            for (got, want) in got.elements.iter().zip(expected) {
                assert!((got - want).abs() <= 1e-15, "{got}, not {want}");
            }
        }
    }
}
