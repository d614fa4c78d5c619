//! Padding: [`ConstantPad1d`], [`ZeroPad1d`], [`ReflectionPad1d`], [`ReplicationPad1d`], [`CircularPad1d`], and
//! the same in two and three axes.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::spatial::pad::PadMode;
use serde::{Deserialize, Serialize};

use crate::module::repr::{float, tuple};
use crate::module::{Call, Module};
use crate::{Scalars, scalars};

/// How much is put before and behind each of `M / 2` axes, the last axis first, as torch lists it: left, right,
/// top, bottom, front, back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sides<const M: usize>(#[serde(with = "crate::wire")] pub [isize; M]);

impl<const M: usize> From<isize> for Sides<M> {
    fn from(size: isize) -> Self {
        Sides([size; M])
    }
}

impl<const M: usize> From<[isize; M]> for Sides<M> {
    fn from(sizes: [isize; M]) -> Self {
        Sides(sizes)
    }
}

impl<const M: usize> Sides<M> {
    /// Lists the axes in their order.
    fn axes(&self) -> Vec<(isize, isize)> {
        self.0.chunks_exact(2).rev().map(|of| (of[0], of[1])).collect()
    }
}

/// Declares a layer that pads with the input's own numbers.
macro_rules! own_pad {
    ($layer:ident, $sides:literal, $axes:literal, $mode:ident, $what:literal, $check:expr) => {
        #[doc = concat!("Pads with ", $what, ". Negative numbers cut off.")]
        ///
        /// | value | shape                                                      |
        /// |-------|------------------------------------------------------------|
        #[doc = concat!("| `x` | `[batch, channels, ", $axes, "]`, or without the batch |")]
        #[doc = concat!("| `y` | `[batch, channels, ", $axes, "]`, larger |")]
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// How much on each side.
            pub padding: Sides<$sides>,
        }

        impl $layer {
            /// Makes a layer. The padding is one number for all sides, or one for each.
            pub fn new(padding: impl Into<Sides<$sides>>) -> Self {
                $layer { padding: padding.into() }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                let (rank, spatial) = (x.shape().rank(), $sides / 2);
                if x.id().is_some() && !(spatial + 1..=spatial + 2).contains(&rank) {
                    return call.trace.fail($check(spatial, rank));
                }
                x.pad(&self.padding.axes(), PadMode::$mode)
            }

            fn extra_repr(&self) -> String {
                tuple(&self.padding.0)
            }
        }
    };
}

/// Says that an input has too few or too many axes, as reflection and replication do.
fn unsupported(spatial: usize, rank: usize) -> String {
    format!(
        "Padding size {} is not supported for {rank}D input tensor.\n\
         Supported combinations for non-constant padding:\n  \
         - 2D or 3D input: padding size = 2 (pads last dimension)\n  \
         - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n  \
         - 4D or 5D input: padding size = 6 (pads last 3 dimensions)",
        2 * spatial
    )
}

/// Says the same as circular padding does.
fn unexpected(spatial: usize, rank: usize) -> String {
    format!("expected {}D or {}D input (got {rank}D input)", spatial + 1, spatial + 2)
}

macro_rules! own_pads {
    ($sides:literal, $axes:literal, $reflection:ident, $replication:ident, $circular:ident) => {
        own_pad!(
            $reflection,
            $sides,
            $axes,
            Reflect,
            "the numbers beside the edge, mirrored at it",
            unsupported
        );
        own_pad!($replication, $sides, $axes, Replicate, "the number at the edge", unsupported);
        own_pad!(
            $circular,
            $sides,
            $axes,
            Circular,
            "the numbers at the opposite edge",
            unexpected
        );
    };
}

own_pads!(2, "length", ReflectionPad1d, ReplicationPad1d, CircularPad1d);
own_pads!(4, "height, width", ReflectionPad2d, ReplicationPad2d, CircularPad2d);
own_pads!(6, "depth, height, width", ReflectionPad3d, ReplicationPad3d, CircularPad3d);

macro_rules! constant_pads {
    ($sides:literal, $axes:literal, $constant:ident, $zero:ident) => {
        /// Pads with a number. Negative padding cuts off.
        ///
        #[doc = concat!("`x` is `[.., ", $axes, "]`, and so is the result.")]
        ///
        /// `value` is a scalar slot: models that differ in it share a blueprint.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($constant), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $constant {
            /// How much on each side.
            pub padding: Sides<$sides>,
            /// The number.
            #[scalar]
            pub value: f64,
        }

        impl $constant {
            /// Makes a layer. The padding is one number for all sides, or one for each.
            pub fn new(padding: impl Into<Sides<$sides>>, value: f64) -> Self {
                $constant { padding: padding.into(), value }
            }
        }

        #[scalars]
        impl Module for $constant {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                x.constant_pad(&self.padding.axes(), &call.scalar("value", x.dtype()))
            }

            fn extra_repr(&self) -> String {
                format!("padding={}, value={}", tuple(&self.padding.0), float(self.value))
            }
        }

        /// Pads with zeros. Negative padding cuts off.
        ///
        #[doc = concat!("`x` is `[.., ", $axes, "]`, and so is the result.")]
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($zero), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $zero {
            /// How much on each side.
            pub padding: Sides<$sides>,
        }

        impl $zero {
            /// Makes a layer. The padding is one number for all sides, or one for each.
            pub fn new(padding: impl Into<Sides<$sides>>) -> Self {
                $zero { padding: padding.into() }
            }
        }

        impl Module for $zero {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                let zero = call.trace.constant(0.0, x.dtype(), []);
                x.constant_pad(&self.padding.axes(), &zero)
            }

            fn extra_repr(&self) -> String {
                tuple(&self.padding.0)
            }
        }
    };
}

constant_pads!(2, "length", ConstantPad1d, ZeroPad1d);
constant_pads!(4, "height, width", ConstantPad2d, ZeroPad2d);
constant_pads!(6, "depth, height, width", ConstantPad3d, ZeroPad3d);
