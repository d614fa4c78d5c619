//! Pools whose windows follow from the size asked for: [`AdaptiveAvgPool1d`] to [`AdaptiveAvgPool3d`],
//! [`AdaptiveMaxPool1d`] to [`AdaptiveMaxPool3d`]; and [`FractionalMaxPool2d`], [`FractionalMaxPool3d`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::per_axis::PerAxis;
use super::pooling::with_indices;
use crate::module::{Call, Module};

/// Prints the size of an adaptive pool.
fn size_repr<const N: usize>(size: &PerAxis<Option<usize>, N>) -> String {
    let print = |size: &Option<usize>| size.map_or("None".to_owned(), |size| size.to_string());
    format!("output_size={}", size.repr(print))
}

macro_rules! adaptive_avg_pool {
    ($layer:ident, $n:literal, $axes:literal) => {
        /// Averages as many windows as `output_size` says.
        ///
        /// | value | shape                                                      |
        /// |-------|------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        /// | `y`   | `[batch, channels, output_size]`                           |
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Sizes of the spatial axes; `None` keeps that of the input.
            pub output_size: PerAxis<Option<usize>, $n>,
        }

        impl $layer {
            /// Makes a layer. The size is one number for all axes, or one for each.
            pub fn new(output_size: impl Into<PerAxis<Option<usize>, $n>>) -> Self {
                $layer { output_size: output_size.into() }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, _: &Call<'_>, x: Var) -> Var {
                x.adaptive_avg_pool(&self.output_size.each())
            }

            fn extra_repr(&self) -> String {
                size_repr(&self.output_size)
            }
        }
    };
}

adaptive_avg_pool!(AdaptiveAvgPool1d, 1, "length");
adaptive_avg_pool!(AdaptiveAvgPool2d, 2, "height, width");
adaptive_avg_pool!(AdaptiveAvgPool3d, 3, "depth, height, width");

macro_rules! adaptive_max_pool {
    ($layer:ident, $n:literal, $axes:literal) => {
        /// Computes the greatest numbers of as many windows as `output_size` says.
        ///
        /// | value     | shape                                                                    |
        /// |-----------|--------------------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        /// | `y`       | `[batch, channels, output_size]`                                         |
        /// | `indices` | as `y`, in i64: places counted row-major in a channel; if `return_indices` |
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Sizes of the spatial axes; `None` keeps that of the input.
            pub output_size: PerAxis<Option<usize>, $n>,
            /// Whether the places are given too, as a second result.
            pub return_indices: bool,
        }

        impl $layer {
            /// Makes a layer. The size is one number for all axes, or one for each.
            pub fn new(output_size: impl Into<PerAxis<Option<usize>, $n>>) -> Self {
                $layer { output_size: output_size.into(), return_indices: false }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
                match call.only_value(arguments) {
                    Some(x) => {
                        let both = x.adaptive_max_pool(&self.output_size.each());
                        with_indices(both, self.return_indices)
                    }
                    None => call.trace.poison().into(),
                }
            }

            fn extra_repr(&self) -> String {
                size_repr(&self.output_size)
            }
        }
    };
}

adaptive_max_pool!(AdaptiveMaxPool1d, 1, "length");
adaptive_max_pool!(AdaptiveMaxPool2d, 2, "height, width");
adaptive_max_pool!(AdaptiveMaxPool3d, 3, "depth, height, width");

/// How large the result of a fractional pool is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum OutputSize<const N: usize> {
    /// So many numbers: torch's `output_size`.
    Size(PerAxis<usize, N>),
    /// Such a part of the input's size, between 0 and 1: torch's `output_ratio`.
    Ratio(PerAxis<f64, N>),
}

macro_rules! fractional_max_pool {
    ($layer:ident, $n:literal, $axes:literal) => {
        /// Computes the greatest numbers of windows at random places, the same for all numbers of a channel. The
        /// places are drawn in evaluation too, as in torch.
        ///
        /// | value     | shape                                                                    |
        /// |-----------|--------------------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        #[doc = concat!("| `y` | `[batch, channels, ", $axes, "]`, smaller |")]
        /// | `indices` | as `y`, in i64: places counted row-major in a channel; if `return_indices` |
        ///
        /// The call takes `_random_samples`, `[batch, channels, axes]`, as a keyword argument, which chooses the
        /// places.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Numbers of a window.
            pub kernel_size: PerAxis<usize, $n>,
            /// Size of the result, or its part of the input's.
            pub output_size: OutputSize<$n>,
            /// Whether the places are given too, as a second result.
            pub return_indices: bool,
        }

        impl $layer {
            /// Makes a layer whose results have this size.
            pub fn new(
                kernel_size: impl Into<PerAxis<usize, $n>>,
                output_size: impl Into<PerAxis<usize, $n>>,
            ) -> Self {
                let output_size = OutputSize::Size(output_size.into());
                $layer { kernel_size: kernel_size.into(), output_size, return_indices: false }
            }

            /// Makes a layer whose results are such a part of the input.
            pub fn with_ratio(
                kernel_size: impl Into<PerAxis<usize, $n>>,
                output_ratio: impl Into<PerAxis<f64, $n>>,
            ) -> Self {
                let output_size = OutputSize::Ratio(output_ratio.into());
                $layer { kernel_size: kernel_size.into(), output_size, return_indices: false }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
                let samples = arguments.take("_random_samples");
                let Some(x) = call.only_value(arguments) else {
                    return call.trace.poison().into();
                };
                let sizes: Vec<usize> = match self.output_size {
                    OutputSize::Size(sizes) => sizes.each().to_vec(),
                    OutputSize::Ratio(ratio) => {
                        let ratio = ratio.each();
                        if !ratio.iter().all(|ratio| 0.0 < *ratio && *ratio < 1.0) {
                            return call
                                .trace
                                .fail(format!(
                                    "output_ratio must be between 0 and 1 (got {ratio:?})"
                                ))
                                .into();
                        }
                        let first = x.shape().rank().saturating_sub($n);
                        let sizes = x.shape()[first..].iter().zip(ratio);
                        sizes.map(|(&size, ratio)| (size as f64 * ratio) as usize).collect()
                    }
                };
                let kernel = self.kernel_size.each();
                let samples = samples.as_ref().and_then(Tree::leaf);
                let both = x.fractional_max_pool(&kernel, &sizes, samples);
                with_indices(both, self.return_indices)
            }
        }
    };
}

fractional_max_pool!(FractionalMaxPool2d, 2, "height, width");
fractional_max_pool!(FractionalMaxPool3d, 3, "depth, height, width");
