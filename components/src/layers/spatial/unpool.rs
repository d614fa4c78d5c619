//! What max pools took apart, put together: [`MaxUnpool1d`], [`MaxUnpool2d`], [`MaxUnpool3d`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::per_axis::PerAxis;
use super::pooling::pooling;
use crate::module::{Call, Module};

macro_rules! max_unpool {
    ($layer:ident, $n:literal, $axes:literal, $pool:ident) => {
        #[doc = concat!("Puts numbers back where a [`", stringify!($pool), "`](crate::layers::", stringify!($pool), ") found them, zeros elsewhere.")]
        ///
        /// | value     | shape                                                              |
        /// |-----------|--------------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        /// | `indices` | as `x`, in i64                                                     |
        #[doc = concat!("| `y` | `[batch, channels, ", $axes, "]`, larger |")]
        ///
        /// It is called with `x` and `indices`, and perhaps with `output_size`, a list of sizes, as third or
        /// keyword argument.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`. An index that names no place, for which torch raises an")]
        /// error, makes its channel NaN.
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Numbers of a window.
            pub kernel_size: PerAxis<usize, $n>,
            /// From one window to the next; the size of a window at first.
            pub stride: PerAxis<usize, $n>,
            /// How much was thought before and behind the input; 0 at first.
            pub padding: PerAxis<usize, $n>,
        }

        impl $layer {
            /// Makes a layer with torch's defaults. The size is one number for all axes, or one for each.
            pub fn new(kernel_size: impl Into<PerAxis<usize, $n>>) -> Self {
                let kernel_size = PerAxis::Each(kernel_size.into().each());
                $layer { kernel_size, stride: kernel_size, padding: PerAxis::Each([0; $n]) }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
                let poison = || call.trace.poison().into();
                let Ok(output_size) = call.output_size(&mut arguments, 2) else { return poison() };
                if let Some(indices) = arguments.take("indices") {
                    arguments.positional.push(indices);
                }
                let Some([x, indices]) = call.values(arguments) else { return poison() };
                let $layer { kernel_size, stride, padding } = *self;
                let of = pooling(kernel_size, stride, padding, PerAxis::All(1), false);
                x.max_unpool(&indices, &of, output_size.as_deref()).into()
            }

            fn extra_repr(&self) -> String {
                // torch makes tuples of these settings.
                let [kernel_size, stride, padding] = [self.kernel_size, self.stride, self.padding]
                    .map(|sizes| PerAxis::Each(sizes.each()).sizes());
                format!("kernel_size={kernel_size}, stride={stride}, padding={padding}")
            }
        }
    };
}

max_unpool!(MaxUnpool1d, 1, "length", MaxPool1d);
max_unpool!(MaxUnpool2d, 2, "height, width", MaxPool2d);
max_unpool!(MaxUnpool3d, 3, "depth, height, width", MaxPool3d);
