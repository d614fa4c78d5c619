//! Layers that move numbers between channels and pixels: [`PixelShuffle`], [`PixelUnshuffle`],
//! [`ChannelShuffle`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::{Call, Module};

/// Declares a layer whose one setting is the argument of one method of [`Var`].
macro_rules! shuffle {
    ($(#[$doc:meta])* $layer:ident { $(#[$of:meta])* $field:ident }, $method:ident) => {
        $(#[$doc])*
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            $(#[$of])*
            pub $field: usize,
        }

        impl $layer {
            /// Makes a layer.
            pub fn new($field: usize) -> Self {
                $layer { $field }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, _: &Call<'_>, x: Var) -> Var {
                x.$method(self.$field)
            }

            fn extra_repr(&self) -> String {
                format!("{}={}", stringify!($field), self.$field)
            }
        }
    };
}

shuffle! {
    /// Makes squares of pixels of groups of channels: `[.., C · r², H, W]` becomes `[.., C, H · r, W · r]`.
    PixelShuffle {
        /// By what height and width are multiplied: `r`.
        upscale_factor
    },
    pixel_shuffle
}
shuffle! {
    /// Makes groups of channels of squares of pixels: `[.., C, H · r, W · r]` becomes `[.., C · r², H, W]`.
    PixelUnshuffle {
        /// By what height and width are divided: `r`.
        downscale_factor
    },
    pixel_unshuffle
}
shuffle! {
    /// Divides the channels of `[batch, channels, ..]` into groups and takes one of each in turn.
    ChannelShuffle {
        /// How many groups.
        groups
    },
    channel_shuffle
}
