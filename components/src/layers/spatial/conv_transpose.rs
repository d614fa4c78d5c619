//! Transposed convolutions: [`ConvTranspose1d`], [`ConvTranspose2d`], [`ConvTranspose3d`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::conv::{Padding, PaddingMode, Settings, Sizes, module};
use crate::module::{Call, Declare, Init, Module};

macro_rules! conv_transpose {
    ($layer:ident, $n:literal, $axes:literal, $kernel:literal) => {
        /// Convolves transposed: each number of the input, times a kernel, is added to the output around its
        /// place.
        ///
        /// | value    | shape                                  | at first                          |
        /// |----------|----------------------------------------|-----------------------------------|
        #[doc = concat!("| `x` | `[batch, in_channels, ", $axes, "]`, or without the batch | |")]
        #[doc = concat!("| `y` | `[batch, out_channels, ", $axes, "]`, or without the batch | |")]
        #[doc = concat!("| `weight` | `[in_channels, out_channels / groups, ", $kernel, "]` | `U(-k, k)`, `k = 1/√(numbers of an input channel's kernel)` |")]
        /// | `bias`   | `[out_channels]`                       | as `weight`; absent if `!bias`    |
        ///
        /// Settings that do not fit each other, which torch refuses when a layer is made, are an error of the
        /// first call. The call takes `output_size`, a list of sizes, as second or keyword argument; it stands
        /// for `output_padding` then.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Channels of `x`.
            pub in_channels: usize,
            /// Channels of `y`.
            pub out_channels: usize,
            /// Size of the kernel.
            pub kernel_size: [usize; $n],
            /// How far the kernel moves from one input to the next; 1 at first.
            pub stride: [usize; $n],
            /// How much is cut off before and behind the output; 0 at first.
            pub padding: [usize; $n],
            /// How much is added behind the output; 0 at first.
            pub output_padding: [usize; $n],
            /// Into how many groups the channels are divided; 1 at first.
            pub groups: usize,
            /// Whether there is a `bias`.
            pub bias: bool,
            /// How far apart the kernel's elements are; 1 at first.
            pub dilation: [usize; $n],
        }

        impl $layer {
            /// Makes a layer with torch's defaults. The size of the kernel is one number for all axes, or one
            /// for each.
            pub fn new(
                in_channels: usize,
                out_channels: usize,
                kernel_size: impl Into<Sizes<$n>>,
            ) -> Self {
                $layer {
                    in_channels,
                    out_channels,
                    kernel_size: kernel_size.into().0,
                    stride: [1; $n],
                    padding: [0; $n],
                    output_padding: [0; $n],
                    groups: 1,
                    bias: true,
                    dilation: [1; $n],
                }
            }

            /// Moves the kernel so far from one input to the next.
            #[must_use]
            pub fn with_stride(self, stride: impl Into<Sizes<$n>>) -> Self {
                $layer { stride: stride.into().0, ..self }
            }

            /// Leaves the bias out: torch's `bias=False`.
            #[must_use]
            pub fn without_bias(self) -> Self {
                $layer { bias: false, ..self }
            }

            pub(super) fn settings(&self) -> Settings<$n> {
                Settings {
                    in_channels: self.in_channels,
                    out_channels: self.out_channels,
                    kernel_size: self.kernel_size,
                    stride: self.stride,
                    padding: Padding::Explicit(self.padding),
                    output_padding: self.output_padding,
                    dilation: self.dilation,
                    groups: self.groups,
                    bias: self.bias,
                    padding_mode: PaddingMode::Zeros,
                    transposed: true,
                }
            }
        }

        module! {
            $layer,
            fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
                let Ok(output_size) = call.output_size(&mut arguments, 1) else {
                    return call.trace.poison().into();
                };
                match call.only_value(arguments) {
                    Some(x) => self.settings().forward(call, &x, output_size.as_deref()).into(),
                    None => call.trace.poison().into(),
                }
            }
        }
    };
}

conv_transpose!(ConvTranspose1d, 1, "length", "kernel_size");
conv_transpose!(ConvTranspose2d, 2, "height, width", "kernel_size[0], kernel_size[1]");
conv_transpose!(
    ConvTranspose3d,
    3,
    "depth, height, width",
    "kernel_size[0], kernel_size[1], kernel_size[2]"
);
