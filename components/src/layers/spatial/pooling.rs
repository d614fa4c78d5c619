//! Pools: [`MaxPool1d`] to [`MaxPool3d`], [`AvgPool1d`] to [`AvgPool3d`], [`LPPool1d`] to [`LPPool3d`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::ops::spatial::pool::Pooling;
use serde::{Deserialize, Serialize};

use super::per_axis::PerAxis;
use crate::module::repr::{boolean, float, tuple};
use crate::module::{Call, Module};

/// Returns the settings of a pool to its op.
pub(super) fn pooling<const N: usize>(
    kernel_size: PerAxis<usize, N>,
    stride: PerAxis<usize, N>,
    padding: PerAxis<usize, N>,
    dilation: PerAxis<usize, N>,
    ceil_mode: bool,
) -> Pooling {
    Pooling {
        kernel_size: kernel_size.each().to_vec(),
        stride: stride.each().to_vec(),
        padding: padding.each().to_vec(),
        dilation: dilation.each().to_vec(),
        ceil_mode,
    }
}

/// Returns the numbers, and their places if asked for.
pub(super) fn with_indices([y, indices]: [Var; 2], return_indices: bool) -> Tree {
    if return_indices { (y, indices).into() } else { y.into() }
}

macro_rules! max_pool {
    ($layer:ident, $n:literal, $axes:literal) => {
        /// Computes the greatest number of each window.
        ///
        /// | value     | shape                                                                    |
        /// |-----------|--------------------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        #[doc = concat!("| `y` | `[batch, channels, ", $axes, "]`, smaller |")]
        /// | `indices` | as `y`, in i64: places counted row-major in a channel; if `return_indices` |
        ///
        /// Settings that do not fit each other are an error of the call.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Numbers of a window.
            pub kernel_size: PerAxis<usize, $n>,
            /// From one window to the next; the size of a window at first.
            pub stride: PerAxis<usize, $n>,
            /// How much is thought before and behind the input, which no window finds; 0 at first.
            pub padding: PerAxis<usize, $n>,
            /// From one number of a window to the next; 1 at first.
            pub dilation: PerAxis<usize, $n>,
            /// Whether the places are given too, as a second result.
            pub return_indices: bool,
            /// Whether a window may hang over the edge.
            pub ceil_mode: bool,
        }

        impl $layer {
            /// Makes a layer with torch's defaults. The size is one number for all axes, or one for each.
            pub fn new(kernel_size: impl Into<PerAxis<usize, $n>>) -> Self {
                let kernel_size = kernel_size.into();
                $layer {
                    kernel_size,
                    stride: kernel_size,
                    padding: PerAxis::All(0),
                    dilation: PerAxis::All(1),
                    return_indices: false,
                    ceil_mode: false,
                }
            }

            /// Moves windows so far.
            #[must_use]
            pub fn with_stride(self, stride: impl Into<PerAxis<usize, $n>>) -> Self {
                $layer { stride: stride.into(), ..self }
            }

            /// Thinks so much before and behind the input.
            #[must_use]
            pub fn with_padding(self, padding: impl Into<PerAxis<usize, $n>>) -> Self {
                $layer { padding: padding.into(), ..self }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
                let Some(x) = call.only_value(arguments) else {
                    return call.trace.poison().into();
                };
                let $layer { kernel_size, stride, padding, dilation, ceil_mode, .. } = *self;
                let of = pooling(kernel_size, stride, padding, dilation, ceil_mode);
                with_indices(x.max_pool(&of), self.return_indices)
            }

            fn extra_repr(&self) -> String {
                format!(
                    "kernel_size={}, stride={}, padding={}, dilation={}, ceil_mode={}",
                    self.kernel_size.sizes(),
                    self.stride.sizes(),
                    self.padding.sizes(),
                    self.dilation.sizes(),
                    boolean(self.ceil_mode)
                )
            }
        }
    };
}

max_pool!(MaxPool1d, 1, "length");
max_pool!(MaxPool2d, 2, "height, width");
max_pool!(MaxPool3d, 3, "depth, height, width");

macro_rules! avg_pool {
    (
        $layer:ident, $n:literal, $axes:literal, |$size:ident| $print:expr
        $(, $divisor:ident)?
    ) => {
        /// Computes the average of each window.
        ///
        /// | value | shape                                                      |
        /// |-------|------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        #[doc = concat!("| `y` | `[batch, channels, ", $axes, "]`, smaller |")]
        ///
        /// Settings that do not fit each other are an error of the call.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Numbers of a window.
            pub kernel_size: PerAxis<usize, $n>,
            /// From one window to the next; the size of a window at first.
            pub stride: PerAxis<usize, $n>,
            /// Zeros that are thought before and behind the input; 0 at first.
            pub padding: PerAxis<usize, $n>,
            /// Whether a window may hang over the edge.
            pub ceil_mode: bool,
            /// Whether the zeros of the padding are averaged too, as at first.
            pub count_include_pad: bool,
            $(
                /// What sums are divided by in place of the size of a window.
                pub $divisor: Option<isize>,
            )?
        }

        impl $layer {
            /// Makes a layer with torch's defaults. The size is one number for all axes, or one for each.
            pub fn new(kernel_size: impl Into<PerAxis<usize, $n>>) -> Self {
                let kernel_size = kernel_size.into();
                $layer {
                    kernel_size,
                    stride: kernel_size,
                    padding: PerAxis::All(0),
                    ceil_mode: false,
                    count_include_pad: true,
                    $($divisor: None,)?
                }
            }

            /// Moves windows so far.
            #[must_use]
            pub fn with_stride(self, stride: impl Into<PerAxis<usize, $n>>) -> Self {
                $layer { stride: stride.into(), ..self }
            }

            /// Pads the input with so many zeros on each side.
            #[must_use]
            pub fn with_padding(self, padding: impl Into<PerAxis<usize, $n>>) -> Self {
                $layer { padding: padding.into(), ..self }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, _: &Call<'_>, x: Var) -> Var {
                let $layer { kernel_size, stride, padding, ceil_mode, .. } = *self;
                let of = pooling(kernel_size, stride, padding, PerAxis::All(1), ceil_mode);
                let divisor = [$(self.$divisor,)? None];
                x.avg_pool(&of, self.count_include_pad, divisor[0])
            }

            fn extra_repr(&self) -> String {
                let print = |$size: &PerAxis<usize, $n>| $print;
                format!(
                    "kernel_size={}, stride={}, padding={}",
                    print(&self.kernel_size),
                    print(&self.stride),
                    print(&self.padding)
                )
            }
        }
    };
}

avg_pool!(AvgPool1d, 1, "length", |size| tuple(&size.each()));
avg_pool!(AvgPool2d, 2, "height, width", |size| size.sizes(), divisor_override);
avg_pool!(AvgPool3d, 3, "depth, height, width", |size| size.sizes(), divisor_override);

macro_rules! lp_pool {
    ($layer:ident, $n:literal, $axes:literal) => {
        /// Computes the root `(Σ xᵖ)^(1/p)` of each window, `p` being `norm_type`.
        ///
        /// | value | shape                                                      |
        /// |-------|------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        #[doc = concat!("| `y` | `[batch, channels, ", $axes, "]`, smaller |")]
        ///
        /// Settings that do not fit each other are an error of the call.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// The exponent; infinity gives the greatest absolute value.
            pub norm_type: f64,
            /// Numbers of a window.
            pub kernel_size: PerAxis<usize, $n>,
            /// From one window to the next; `None` stands for the size of a window.
            pub stride: Option<PerAxis<usize, $n>>,
            /// Whether a window may hang over the edge.
            pub ceil_mode: bool,
        }

        impl $layer {
            /// Makes a layer with torch's defaults. The size is one number for all axes, or one for each.
            pub fn new(norm_type: f64, kernel_size: impl Into<PerAxis<usize, $n>>) -> Self {
                let kernel_size = kernel_size.into();
                $layer { norm_type, kernel_size, stride: None, ceil_mode: false }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, _: &Call<'_>, x: Var) -> Var {
                let $layer { norm_type, kernel_size, stride, ceil_mode } = *self;
                let stride = stride.unwrap_or(kernel_size);
                let of = pooling(kernel_size, stride, PerAxis::All(0), PerAxis::All(1), ceil_mode);
                x.lp_pool(norm_type, &of)
            }

            fn extra_repr(&self) -> String {
                let stride = self.stride.map_or("None".to_owned(), |stride| stride.sizes());
                format!(
                    "norm_type={}, kernel_size={}, stride={stride}, ceil_mode={}",
                    float(self.norm_type),
                    self.kernel_size.sizes(),
                    boolean(self.ceil_mode)
                )
            }
        }
    };
}

lp_pool!(LPPool1d, 1, "length");
lp_pool!(LPPool2d, 2, "height, width");
lp_pool!(LPPool3d, 3, "depth, height, width");
