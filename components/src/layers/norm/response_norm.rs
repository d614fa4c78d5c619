//! [`LocalResponseNorm`] and [`CrossMapLRN2d`]: numbers divided by how large their neighbors in other channels are.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::norm::local_response_norm::ResponseNorm;
use serde::{Deserialize, Serialize};

use crate::module::repr::float;
use crate::module::{Call, Module};
use crate::{Scalars, scalars};

macro_rules! response_norm {
    ($(#[$doc:meta])* $layer:ident, $method:ident, |$k:ident| $print:expr) => {
        $(#[$doc])*
        ///
        /// `alpha`, `beta` and `k` are scalar slots: models that differ in them share a blueprint.
        #[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $layer {
            /// How many channels count.
            pub size: usize,
            /// How much they count.
            #[scalar]
            pub alpha: f64,
            /// The exponent.
            #[scalar]
            pub beta: f64,
            /// What is added; with it the base of the power is above 0.
            #[scalar]
            pub k: f64,
        }

        impl $layer {
            /// Makes a layer with torch's defaults.
            pub fn new(size: usize) -> Self {
                $layer { size, alpha: 1e-4, beta: 0.75, k: 1.0 }
            }
        }

        #[scalars]
        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                let [alpha, beta, k] = ["alpha", "beta", "k"].map(|name| call.scalar(name, x.dtype()));
                x.$method(self.size, &ResponseNorm { alpha, beta, k })
            }

            fn extra_repr(&self) -> String {
                let ($k, alpha, beta) = (self.k, float(self.alpha), float(self.beta));
                format!("{}, alpha={alpha}, beta={beta}, k={}", self.size, $print)
            }
        }
    };
}

response_norm! {
    /// Computes `x / (k + alpha · mean(x²))^beta`, the mean being over `size` channels around each.
    ///
    /// `x` is `[batch, channels, ..]`, of at least three axes, and so is the result.
    ///
    /// Source: `torch.nn.LocalResponseNorm`.
    LocalResponseNorm, local_response_norm, |k| float(k)
}
response_norm! {
    /// Computes `x · (k + alpha / size · Σ x²)^-beta`, the sum being over channels around each.
    ///
    /// `x` is `[batch, channels, height, width]`, and so is the result.
    ///
    /// Source: `torch.nn.CrossMapLRN2d`, to the letter: the first channel stays in every sum, and the gradient's sums
    /// are over other channels than those of the value, so that it is not quite the slope.
    CrossMapLRN2d, cross_map_lrn, |k| if k.fract() == 0.0 { k.to_string() } else { float(k) }
}
