//! Layers that zero numbers at random while training: [`Dropout`], [`Dropout1d`], [`Dropout2d`], [`Dropout3d`],
//! [`AlphaDropout`], [`FeatureAlphaDropout`].

use bevy_ecs::prelude::*;
use neurarch_kernels::program::trace::Var;
use neurarch_kernels::shape::Shape;

use crate::module::{Call, Module};
use crate::repr::float;

/// Declares a dropout: its component, and what it does while training with `x` and the probability.
macro_rules! dropout {
    ($(#[$doc:meta])* $layer:ident, |$call:ident, $x:ident, $p:ident| $forward:expr) => {
        $(#[$doc])*
        ///
        /// `p` is a scalar slot: a sweep over it is one blueprint. The numbers drawn follow from the
        /// population's seed, the model's number and the count of its steps, so that no neighbor changes them.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`. `p` outside of 0 to 1, which torch refuses, is clamped.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq)]
        #[component(summary_tick)]
        pub struct $layer {
            /// Probability that a number, or a channel, is dropped.
            pub p: f64,
        }

        impl Default for $layer {
            fn default() -> Self {
                $layer { p: 0.5 }
            }
        }

        impl Module for $layer {
            fn forward(&self, $call: &Call<'_>, $x: Var) -> Var {
                if !$call.training() {
                    return $x;
                }
                let $p = &$call.scalar("p", $x.dtype());
                $forward
            }

            fn structural(&self) -> Self {
                $layer { p: 0.0 }
            }

            fn scalar(&self, name: &str) -> Option<f64> {
                (name == "p").then_some(self.p.clamp(0.0, 1.0))
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
    |call, x, p| x.dropout(p)
}
dropout! {
    /// In training mode, zeroes whole channels of `[batch, channels, length]` or `[channels, length]` with
    /// probability `p` and multiplies the others by `1 / (1 - p)`.
    Dropout1d,
    |call, x, p| match x.shape().rank() {
        rank @ 2..=3 => channels(&x, rank - 1, p),
        rank => call.trace.fail(format!(
            "dropout1d: Expected 2D or 3D input, but received a {rank}D input. Note that dropout1d exists to \
             provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an \
             optional batch dimension (i.e. 2D or 3D inputs)."
        )),
    }
}
dropout! {
    /// In training mode, zeroes whole channels of `[batch, channels, ..]` with probability `p` and multiplies
    /// the others by `1 / (1 - p)`. `[channels, height, width]` is taken for a batch, as in torch.
    Dropout2d,
    |call, x, p| match x.shape().rank() {
        0 | 1 => call.trace.fail(FEW),
        _ => channels(&x, 2, p),
    }
}
dropout! {
    /// In training mode, zeroes whole channels of `[batch, channels, depth, height, width]` or
    /// `[channels, depth, height, width]` with probability `p` and multiplies the others by `1 / (1 - p)`.
    Dropout3d,
    |call, x, p| match x.shape().rank() {
        0 => call.trace.fail(FEW),
        5 => channels(&x, 2, p),
        _ => channels(&x, 1, p),
    }
}
dropout! {
    /// In training mode, sets each element to the least value of [`SELU`](super::SELU) with probability `p`, then
    /// scales and shifts all, so that mean 0 and variance 1 stay.
    AlphaDropout,
    |call, x, p| {
        let shape = x.shape().clone();
        alpha(&x, shape, p)
    }
}
dropout! {
    /// In training mode, does to whole channels of `[batch, channels, ..]` what
    /// [`AlphaDropout`] does to numbers.
    FeatureAlphaDropout,
    |call, x, p| match x.shape().rank() {
        0 | 1 => call.trace.fail(FEW),
        _ => alpha(&x, leading(&x, 2), p),
    }
}

const FEW: &str = "Feature dropout requires at least 2 dimensions in the input";

/// Gives the first `axes` sizes, and ones for the others.
fn leading(x: &Var, axes: usize) -> Shape {
    let size = |(axis, &size)| if axis < axes { size } else { 1 };
    x.shape().iter().enumerate().map(size).collect()
}

/// Drops ones of a shape.
fn dropped(x: &Var, shape: Shape, p: &Var) -> Var {
    x.trace().constant(1.0, x.dtype(), shape).dropout(p)
}

/// Drops channels, which the first `axes` axes count.
fn channels(x: &Var, axes: usize, p: &Var) -> Var {
    x * dropped(x, leading(x, axes), p)
}

/// Minus the least value of SELU.
const ALPHA: f64 = 1.758_099_340_847_376_6;

/// Gives `a · x + b` where a number is kept, `b - a · ALPHA` where it is dropped; `a` and `b` keep mean and
/// variance.
fn alpha(x: &Var, shape: Shape, p: &Var) -> Var {
    let scale = ((1.0 - p) / (p * (ALPHA * ALPHA) + 1.0)).sqrt();
    // What is kept is scaled by `a = scale / (1 - p)`.
    let kept = dropped(x, shape, p) * &scale;
    &kept * x + (kept - scale) * ALPHA
}
