//! GELU, exact and with tanh: `y = x · Φ(x)`, where `Φ` is the normal distribution function.

use crate::arithmetic::Arithmetic;
pub use crate::arithmetic::activation::Approximate;
use crate::arithmetic::activation::{ActivationKind, TANH_CUBIC, TANH_SCALE, distribution};
use crate::ir::op::GradientAt;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{Formula, pointwise};

/// `x · Φ(x)`.
#[derive(Clone, Copy, Debug)]
pub struct Gelu(
    /// How `Φ` is computed.
    pub Approximate,
);

/// `1/√(2π)`.
const FRAC_1_SQRT_2PI: f64 = TANH_SCALE / 2.0;

impl Formula<1, 1> for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn attributes(&self) -> String {
        match self.0 {
            Approximate::None => String::new(),
            Approximate::Tanh => "approximate=tanh".to_owned(),
        }
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x]: [A; 1]) -> [A; 1] {
        [ActivationKind::Gelu(self.0).apply(x)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let gradient = GeluGradient(self.0);
        vec![at.gradients[0].as_ref().map(|dy| pointwise(gradient, [dy, &at.inputs[0]]))]
    }
}

/// The gradient of [`Gelu`] from that of its output and the input: `dy · (Φ(x) + x · Φ'(x))`.
#[derive(Clone, Copy, Debug)]
pub struct GeluGradient(
    /// How `Φ` is computed.
    pub Approximate,
);

impl Formula<2, 1> for GeluGradient {
    fn name(&self) -> &'static str {
        "gelu_gradient"
    }

    fn attributes(&self) -> String {
        Gelu(self.0).attributes()
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [dy, x]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let phi = distribution(self.0, x);
        let density = match self.0 {
            Approximate::None => x.mul(x).mul(c(-0.5)).exp().mul(c(FRAC_1_SQRT_2PI)),
            Approximate::Tanh => {
                // Of Φ = (1 + t) / 2, the slope is (1 - t²) / 2 · u' = 2 Φ (1 - Φ) · u'.
                let slope = x.mul(x).mul_add(c(3.0 * TANH_CUBIC), c(1.0)).mul(c(TANH_SCALE));
                phi.mul(c(1.0).sub(phi)).mul(c(2.0)).mul(slope)
            }
        };
        [dy.mul(x.mul_add(density, phi))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (dy, x) = (&at.inputs[0], &at.inputs[1]);
        let g = at.gradients[0].as_ref();
        vec![
            g.filter(|_| at.needs[0]).map(|g| pointwise(self, [g, x])),
            g.filter(|_| at.needs[1]).map(|g| g * dy * curvature(self.0, x)),
        ]
    }
}

/// Records the slope of [`GeluGradient`]: `2 · Φ'(x) + x · Φ''(x)`.
fn curvature(approximate: Approximate, x: &Var) -> Var {
    let square = x.square();
    match approximate {
        Approximate::None => (&square * -0.5).exp() * FRAC_1_SQRT_2PI * (2.0 - square),
        Approximate::Tanh => {
            // With Φ = (1 + t) / 2 and t = tanh u: Φ' = (1 - t²) / 2 · u', Φ'' = (1 - t²) / 2 · (u'' - 2 · t · u'²).
            let t = ((x + &square * x * TANH_CUBIC) * TANH_SCALE).tanh();
            let slope = (&square * (3.0 * TANH_CUBIC) + 1.0) * TANH_SCALE;
            let bend = x * (6.0 * TANH_CUBIC * TANH_SCALE) - &t * slope.square() * 2.0;
            (1.0 - t.square()) * (slope + x * bend * 0.5)
        }
    }
}

impl Var {
    /// Returns `x · Φ(x)`.
    ///
    /// Source: `torch.nn.functional.gelu`.
    #[must_use]
    pub fn gelu(&self, approximate: Approximate) -> Var {
        pointwise(Gelu(approximate), [self])
    }
}
