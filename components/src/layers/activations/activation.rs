//! Activations: elementwise functions, and softmax along an axis.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
pub use neurarch_kernels::ops::activation::gelu::Approximate;
use serde::{Deserialize, Serialize};

use crate::module::repr::float;
use crate::module::{Call, Module};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Declares an activation without settings: its component, and `forward` as one method of [`Var`].
macro_rules! activation {
    ($(#[$doc:meta])* $layer:ident, $method:ident) => {
        $(#[$doc])*
        #[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer;

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, _: &Call<'_>, x: Var) -> Var {
                x.$method()
            }
        }
    };
}

activation! {
    /// Applies `max(0, x)`.
    ///
    /// Source: `torch.nn.ReLU`.
    ReLU, relu
}

activation! {
    /// Applies the hyperbolic tangent.
    ///
    /// Source: `torch.nn.Tanh`.
    Tanh, tanh
}

activation! {
    /// Applies `1 / (1 + exp(-x))`.
    ///
    /// Source: `torch.nn.Sigmoid`.
    Sigmoid, sigmoid
}

activation! {
    /// Applies `x · sigmoid(x)`.
    ///
    /// Source: `torch.nn.SiLU`.
    SiLU, silu
}

/// Gives back its input.
///
/// Source: `torch.nn.Identity`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Identity;

impl Module for Identity {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x
    }
}

/// Applies `x · Φ(x)`, `Φ` being the standard normal distribution function.
///
/// Source: `torch.nn.GELU`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct GELU {
    /// How `Φ` is computed.
    #[serde(with = "crate::wire")]
    pub approximate: Approximate,
}

impl Default for GELU {
    fn default() -> Self {
        GELU { approximate: Approximate::None }
    }
}

impl Module for GELU {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.gelu(self.approximate)
    }

    fn extra_repr(&self) -> String {
        let approximate = match self.approximate {
            Approximate::None => "none",
            Approximate::Tanh => "tanh",
        };
        format!("approximate='{approximate}'")
    }
}

/// Applies `x` where `x > 0`, `negative_slope · x` elsewhere.
///
/// The slope is a scalar slot: models that differ in it share a blueprint.
///
/// Source: `torch.nn.LeakyReLU`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct LeakyReLU {
    /// The slope below 0.
    #[scalar]
    pub negative_slope: f64,
}

impl Default for LeakyReLU {
    fn default() -> Self {
        LeakyReLU { negative_slope: 0.01 }
    }
}

#[scalars]
impl Module for LeakyReLU {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let slope = call.scalar("negative_slope", x.dtype());
        x.leaky_relu(&slope)
    }

    fn extra_repr(&self) -> String {
        format!("negative_slope={}", float(self.negative_slope))
    }
}

/// Applies `x` where `x > 0`, `alpha · (exp(x) - 1)` elsewhere.
///
/// `alpha` is a scalar slot: models that differ in it share a blueprint.
///
/// Source: `torch.nn.ELU`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct ELU {
    /// Minus the limit towards minus infinity.
    #[scalar]
    pub alpha: f64,
}

impl Default for ELU {
    fn default() -> Self {
        ELU { alpha: 1.0 }
    }
}

#[scalars]
impl Module for ELU {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let alpha = call.scalar("alpha", x.dtype());
        x.elu(&alpha)
    }

    fn extra_repr(&self) -> String {
        format!("alpha={}", float(self.alpha))
    }
}

/// Applies `log(1 + exp(beta · x)) / beta`, and `x` itself where `beta · x > threshold`.
///
/// Both numbers are scalar slots: models that differ in them share a blueprint.
///
/// Source: `torch.nn.Softplus`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Softplus {
    /// How sharp the bend at 0 is.
    #[scalar]
    pub beta: f64,
    /// Where `beta · x` is taken to be large.
    #[scalar]
    pub threshold: f64,
}

impl Default for Softplus {
    fn default() -> Self {
        Softplus { beta: 1.0, threshold: 20.0 }
    }
}

#[scalars]
impl Module for Softplus {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let beta = call.scalar("beta", x.dtype());
        let threshold = call.scalar("threshold", x.dtype());
        x.softplus(&beta, &threshold)
    }

    fn extra_repr(&self) -> String {
        format!("beta={}, threshold={}", float(self.beta), float(self.threshold))
    }
}

/// Applies `exp(x) / Σ exp(x)` along an axis.
///
/// The axis is counted without the population's: in `[batch, classes]`, `dim: 1` or `dim: -1` is the
/// classes.
///
/// Source: `torch.nn.Softmax`; its deprecated implicit `dim` is not offered.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Softmax {
    /// The axis that sums to 1.
    pub dim: isize,
}

impl Module for Softmax {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.softmax(self.dim)
    }

    fn extra_repr(&self) -> String {
        format!("dim={}", self.dim)
    }
}

/// Applies `x - log Σ exp(x)` along an axis, counted as in [`Softmax`].
///
/// Source: `torch.nn.LogSoftmax`; its deprecated implicit `dim` is not offered.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct LogSoftmax {
    /// The axis whose exponentials sum to 1.
    pub dim: isize,
}

impl Module for LogSoftmax {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.log_softmax(self.dim)
    }

    fn extra_repr(&self) -> String {
        format!("dim={}", self.dim)
    }
}
