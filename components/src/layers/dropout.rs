//! Layers that zero numbers at random while training: [`Dropout`], [`Dropout1d`], [`Dropout2d`], [`Dropout3d`],
//! [`AlphaDropout`], [`FeatureAlphaDropout`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::repr::float;
use crate::module::{Call, Module};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Returns what a setting comes to as a probability.
pub(super) fn probability(p: f64) -> f64 {
    p.clamp(0.0, 1.0)
}

/// Declares a dropout: its component, and what it does while training with `x` and the probability.
macro_rules! dropout {
    ($(#[$doc:meta])* $layer:ident, |$x:ident, $p:ident| $forward:expr) => {
        $(#[$doc])*
        ///
        /// `p` is a scalar slot: a sweep over it is one blueprint. The numbers drawn follow from the
        /// population's seed, the model's number and the count of its steps, so that no neighbor changes them.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`. `p` outside of 0 to 1, which torch refuses, is clamped.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
        #[component(summary_tick)]
        pub struct $layer {
            /// Probability that a number, or a channel, is dropped.
            #[scalar(read = probability)]
            pub p: f64,
        }

        impl Default for $layer {
            fn default() -> Self {
                $layer { p: 0.5 }
            }
        }

        #[scalars]
        impl Module for $layer {
            fn forward(&self, call: &Call<'_>, $x: Var) -> Var {
                if !call.training() {
                    return $x;
                }
                let $p = &call.scalar("p", $x.dtype());
                $forward
            }

            fn extra_repr(&self) -> String {
                format!("p={}, inplace=False", float(self.p))
            }
        }
    };
}

dropout! {
    /// In training mode, zeroes each element with probability `p` and multiplies the others by
    /// `1 / (1 - p)`; in evaluation mode, gives `x` as it is.
    Dropout,
    |x, p| x.dropout(p)
}
dropout! {
    /// In training mode, zeroes whole channels of `[batch, channels, length]` or `[channels, length]` with
    /// probability `p` and multiplies the others by `1 / (1 - p)`.
    Dropout1d,
    |x, p| x.dropout1d(p)
}
dropout! {
    /// In training mode, zeroes whole channels of `[batch, channels, ..]` with probability `p` and multiplies
    /// the others by `1 / (1 - p)`. `[channels, height, width]` is taken for a batch, as in torch.
    Dropout2d,
    |x, p| x.dropout2d(p)
}
dropout! {
    /// In training mode, zeroes whole channels of `[batch, channels, depth, height, width]` or
    /// `[channels, depth, height, width]` with probability `p` and multiplies the others by `1 / (1 - p)`.
    Dropout3d,
    |x, p| x.dropout3d(p)
}
dropout! {
    /// In training mode, sets each element to the least value of [`SELU`](super::SELU) with probability `p`, then
    /// scales and shifts all, so that mean 0 and variance 1 stay.
    AlphaDropout,
    |x, p| x.alpha_dropout(p)
}
dropout! {
    /// In training mode, does to whole channels of `[batch, channels, ..]` what
    /// [`AlphaDropout`] does to numbers.
    FeatureAlphaDropout,
    |x, p| x.feature_alpha_dropout(p)
}
