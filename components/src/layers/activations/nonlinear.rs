//! Activations beside those of [`activation`](super::activation), and [`Unflatten`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::repr::{float, tuple};
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// Declares an activation without settings: its component, and `forward` as one method of [`Var`].
macro_rules! activation {
    ($(#[$doc:meta])* $layer:ident, $method:ident) => {
        $(#[$doc])*
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
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
    /// Applies `min(max(x, 0), 6)`.
    ReLU6, relu6
}
activation! {
    /// Applies `x · min(max(x + 3, 0), 6) / 6`.
    Hardswish, hardswish
}
activation! {
    /// Applies `min(max(x + 3, 0), 6) / 6`.
    Hardsigmoid, hardsigmoid
}
activation! {
    /// Applies `log(1 / (1 + exp(-x)))`.
    LogSigmoid, logsigmoid
}
activation! {
    /// Applies `scale · x` where `x > 0`, `scale · alpha · (exp(x) - 1)` elsewhere, with fixed numbers.
    SELU, selu
}
activation! {
    /// Applies `x · tanh(log(1 + exp(x)))`.
    Mish, mish
}
activation! {
    /// Applies `x / (1 + |x|)`.
    Softsign, softsign
}
activation! {
    /// Applies `x - tanh(x)`.
    Tanhshrink, tanhshrink
}

/// Declares an activation whose settings are scalar slots: they are the arguments of one method of [`Var`].
macro_rules! with_numbers {
    (
        $(#[$doc:meta])*
        $layer:ident { $($(#[$of:meta])* $field:ident = $default:expr),+ },
        $method:ident,
        |$layer_var:ident| $repr:expr
    ) => {
        $(#[$doc])*
        ///
        /// Its numbers are scalar slots: models that differ in them share a blueprint.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $layer {
            $($(#[$of])* #[scalar] pub $field: f64,)+
        }

        impl Default for $layer {
            fn default() -> Self {
                $layer { $($field: $default),+ }
            }
        }

        #[scalars]
        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                $(let $field = call.scalar(stringify!($field), x.dtype());)+
                x.$method($(&$field),+)
            }

            fn extra_repr(&self) -> String {
                let $layer_var = self;
                $repr
            }
        }
    };
}

with_numbers! {
    /// Applies `min(max(x, min_val), max_val)`.
    Hardtanh {
        /// The least result.
        min_val = -1.0,
        /// The greatest result.
        max_val = 1.0
    },
    hardtanh,
    |of| format!("min_val={}, max_val={}", float(of.min_val), float(of.max_val))
}
with_numbers! {
    /// Applies `x` where `x > 0`, `alpha · (exp(x / alpha) - 1)` elsewhere.
    CELU {
        /// Minus the limit towards minus infinity.
        alpha = 1.0
    },
    celu,
    |of| format!("alpha={}", float(of.alpha))
}
with_numbers! {
    /// Applies `x - lambd` above `lambd`, `x + lambd` below `-lambd`, 0 between.
    Softshrink {
        /// How far numbers move towards 0.
        lambd = 0.5
    },
    softshrink,
    |of| float(of.lambd)
}
with_numbers! {
    /// Applies `x`, but 0 from `-lambd` to `lambd`.
    Hardshrink {
        /// Up to where numbers become 0.
        lambd = 0.5
    },
    hardshrink,
    |of| float(of.lambd)
}
with_numbers! {
    /// Applies `x` above `threshold`, `value` elsewhere. torch has no defaults; here both are 0.
    Threshold {
        /// Above which `x` stays.
        threshold = 0.0,
        /// What stands for the others.
        value = 0.0
    },
    threshold,
    |of| format!("threshold={}, value={}", float(of.threshold), float(of.value))
}

/// Applies `x` where `x > 0`, `weight · x` elsewhere.
///
/// | value    | shape                     | at first |
/// |----------|---------------------------|----------|
/// | `x`, `y` | `[batch, channels, ..]`, any shape if there is one parameter | |
/// | `weight` | `[num_parameters]`        | `init`   |
///
/// Source: `torch.nn.PReLU`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct PReLU {
    /// 1, or one for each channel.
    pub num_parameters: usize,
    /// The first slope.
    pub init: f64,
}

impl Default for PReLU {
    fn default() -> Self {
        PReLU { num_parameters: 1, init: 0.25 }
    }
}

impl Module for PReLU {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        declare.parameter("weight", [self.num_parameters]);
    }

    fn reset(&self, _: &str) -> Init {
        Init::Constant(self.init)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        x.prelu(&call.parameter("weight"))
    }

    fn extra_repr(&self) -> String {
        format!("num_parameters={}", self.num_parameters)
    }
}

/// Applies `a · sigmoid(b)`, where `a` and `b` are the halves of an axis.
///
/// Source: `torch.nn.GLU`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct GLU {
    /// The axis that is halved.
    pub dim: isize,
}

impl Default for GLU {
    fn default() -> Self {
        GLU { dim: -1 }
    }
}

impl Module for GLU {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.glu(self.dim)
    }

    fn extra_repr(&self) -> String {
        format!("dim={}", self.dim)
    }
}

/// Applies `exp(-x) / Σ exp(-x)` along an axis, counted as in [`Softmax`](crate::layers::Softmax).
///
/// Source: `torch.nn.Softmin`; its deprecated implicit `dim` is not offered.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Softmin {
    /// The axis that sums to 1.
    pub dim: isize,
}

impl Module for Softmin {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.softmin(self.dim)
    }

    fn extra_repr(&self) -> String {
        format!("dim={}", self.dim)
    }
}

/// Applies softmax over the channels of `[batch, channels, height, width]` or `[channels, height, width]`.
///
/// Source: `torch.nn.Softmax2d`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Softmax2d;

impl Module for Softmax2d {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        match x.shape().rank() {
            3 | 4 => x.softmax(-3),
            rank => call
                .trace
                .fail(format!("Softmax2d: expected input to be 3D or 4D, got {rank}D instead")),
        }
    }
}

/// Divides an axis into several: the reverse of [`Flatten`](crate::layers::Flatten).
///
/// Source: `torch.nn.Unflatten`, without named dimensions.
#[derive(Component, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Unflatten {
    /// The axis; counted from the end if negative.
    pub dim: isize,
    /// The sizes of the new axes, one of which may be -1: what is left.
    pub unflattened_size: Vec<isize>,
}

impl Unflatten {
    /// Makes a layer.
    pub fn new(dim: isize, unflattened_size: impl Into<Vec<isize>>) -> Self {
        Unflatten { dim, unflattened_size: unflattened_size.into() }
    }
}

impl Module for Unflatten {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.unflatten(self.dim, &self.unflattened_size)
    }

    fn extra_repr(&self) -> String {
        format!("dim={}, unflattened_size={}", self.dim, tuple(&self.unflattened_size))
    }
}
