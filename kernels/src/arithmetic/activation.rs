//! Formulas of activations that kernels of products end with, while they still hold the numbers in registers.

use super::Arithmetic;

/// How `Φ` is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Approximate {
    /// `Φ(x) = (1 + erf(x / √2)) / 2`: torch's `approximate='none'`.
    None,
    /// `Φ(x) ≈ (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2`: torch's `approximate='tanh'`.
    Tanh,
}

/// An activation without settings of its own: a linear layer's kernel ends with it.
///
/// The formula is also that of the activation's op, so that fused or not, the bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationKind {
    /// `max(x, 0)`.
    Relu,
    /// `tanh x`.
    Tanh,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)`.
    Gelu(Approximate),
}

impl ActivationKind {
    /// Applies the activation.
    #[inline(always)]
    pub fn apply<A: Arithmetic>(self, x: A) -> A {
        let c = A::splat;
        match self {
            ActivationKind::Relu => c(0.0).max(x),
            ActivationKind::Tanh => x.tanh(),
            ActivationKind::Sigmoid => x.sigmoid(),
            ActivationKind::Silu => x.div(c(1.0).add(c(0.0).sub(x).exp())),
            ActivationKind::Gelu(approximate) => x.mul(distribution(approximate, x)),
        }
    }
}

/// `√(2/π)`, the scale of the tanh in GELU.
pub(crate) const TANH_SCALE: f64 =
    std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
/// The weight of `x³`.
pub(crate) const TANH_CUBIC: f64 = 0.044715;

/// Returns `Φ(x)`.
#[inline(always)]
pub(crate) fn distribution<A: Arithmetic>(approximate: Approximate, x: A) -> A {
    let c = A::splat;
    let inner = match approximate {
        Approximate::None => x.mul(c(std::f64::consts::FRAC_1_SQRT_2)).erf(),
        Approximate::Tanh => {
            let cubic = x.mul(x).mul(c(TANH_CUBIC)).mul_add(x, x);
            cubic.mul(c(TANH_SCALE)).tanh()
        }
    };
    inner.add(c(1.0)).mul(c(0.5))
}
