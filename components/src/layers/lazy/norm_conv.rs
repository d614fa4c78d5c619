//! Lazy convolutions and norms: how many channels they have is inferred from what they are first called with.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::layers::{
    BatchNorm1d, BatchNorm2d, BatchNorm3d, Conv1d, Conv2d, Conv3d, ConvTranspose1d,
    ConvTranspose2d, ConvTranspose3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, Sizes,
};
use crate::module::{Call, Declare, DynModule, Init, Module};

/// Returns the shape of what a module is called with.
fn shape_of(arguments: &Arguments) -> Option<&Shape> {
    match arguments.positional.first() {
        Some(Tree::Leaf(x)) => Some(x.shape()),
        _ => None,
    }
}

/// Returns the channels of a convolution's input, with `spatial` axes behind.
fn channels_of(call: &Call<'_>, shape: &Shape, spatial: usize, class: &str) -> Option<usize> {
    if shape.rank() == spatial + 1 || shape.rank() == spatial + 2 {
        return Some(shape[shape.rank() - spatial - 1]);
    }
    call.trace.fail(format!(
        "Expected {}D (unbatched) or {}D (batched) input to {class}, but got input of size: \
         torch.Size({shape})",
        spatial + 1,
        spatial + 2
    ));
    None
}

/// Returns the channels of a norm's input.
fn features_of(call: &Call<'_>, shape: &Shape) -> Option<usize> {
    let features = shape.get(1).copied();
    if features.is_none() {
        call.trace.fail("tuple index out of range");
    }
    features
}

/// Declares a lazy layer: what it becomes, which field is inferred, which parameters and buffers wait for
/// it, how a call and how a shape from a `state_dict` says it.
macro_rules! lazy {
    (
        $layer:ident becomes $becomes:ident, $count:ident, $names:expr,
        |$call:ident, $shape:ident| $infer:expr,
        |$of:ident, $name:ident, $sizes:ident| $materialize:expr
    ) => {
        #[doc = concat!("A [`", stringify!($becomes), "`] whose `", stringify!($count), "` is inferred from")]
        /// what it is first called with; then it becomes that layer, in all models of the population at once.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $layer {
            #[doc = concat!("What it becomes; its `", stringify!($count), "` is 0 until a `state_dict` says more.")]
            pub becomes: $becomes,
        }

        impl Module for $layer {
            fn declare(&self, declare: &mut Declare) {
                Module::declare(&self.becomes, declare);
                if self.becomes.$count == 0 {
                    $names.iter().for_each(|name| _ = declare.uninitialized(name));
                }
            }

            fn reset(&self, name: &str) -> Init {
                Module::reset(&self.becomes, name)
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                Module::forward(&self.becomes, call, x)
            }

            fn structural(&self) -> Self {
                $layer { becomes: Module::structural(&self.becomes) }
            }

            fn scalar(&self, name: &str) -> Option<f64> {
                Module::scalar(&self.becomes, name)
            }

            fn version(&self) -> u32 {
                Module::version(&self.becomes)
            }

            fn may_lack(&self, name: &str, version: Option<u32>) -> bool {
                Module::may_lack(&self.becomes, name, version)
            }

            fn extra_repr(&self) -> String {
                Module::extra_repr(&self.becomes)
            }

            fn is_lazy(&self) -> bool {
                true
            }

            fn initialize_parameters(
                &self,
                $call: &Call<'_>,
                arguments: &Arguments,
            ) -> Option<Box<dyn DynModule>> {
                let $shape = shape_of(arguments)?;
                let inferred = $infer?;
                let $count = if self.becomes.$count == 0 { inferred } else { self.becomes.$count };
                Some(Box::new($becomes { $count, ..self.becomes }))
            }

            fn materialize(&self, $name: &str, shape: &Shape) -> Option<Box<dyn DynModule>> {
                let ($of, $sizes) = (&self.becomes, &**shape);
                let $count = $materialize?;
                Some(Box::new($layer { becomes: $becomes { $count, ..self.becomes } }))
            }
        }
    };
}

macro_rules! lazy_conv {
    ($layer:ident, $becomes:ident, $spatial:literal, |$of:ident, $sizes:ident| $materialize:expr) => {
        lazy! {
            $layer becomes $becomes, in_channels, ["weight", "bias"],
            |call, shape| channels_of(call, shape, $spatial, stringify!($layer)),
            |$of, name, $sizes| (name == "weight" && $sizes.len() == $spatial + 2).then(|| $materialize)
        }

        impl $layer {
            /// Makes a layer with torch's defaults.
            pub fn new(out_channels: usize, kernel_size: impl Into<Sizes<$spatial>>) -> Self {
                $layer { becomes: $becomes::new(0, out_channels, kernel_size) }
            }
        }
    };
}

lazy_conv!(LazyConv1d, Conv1d, 1, |of, sizes| sizes[1] * of.groups);
lazy_conv!(LazyConv2d, Conv2d, 2, |of, sizes| sizes[1] * of.groups);
lazy_conv!(LazyConv3d, Conv3d, 3, |of, sizes| sizes[1] * of.groups);
lazy_conv!(LazyConvTranspose1d, ConvTranspose1d, 1, |_of, sizes| sizes[0]);
lazy_conv!(LazyConvTranspose2d, ConvTranspose2d, 2, |_of, sizes| sizes[0]);
lazy_conv!(LazyConvTranspose3d, ConvTranspose3d, 3, |_of, sizes| sizes[0]);

macro_rules! lazy_norm {
    ($layer:ident, $becomes:ident) => {
        lazy! {
            $layer becomes $becomes, num_features, ["weight", "bias", "running_mean", "running_var"],
            |call, shape| features_of(call, shape),
            |_of, _name, sizes| if let [features] = sizes { Some(*features) } else { None }
        }

        impl Default for $layer {
            fn default() -> Self {
                let becomes = $becomes::new(0);
                $layer { becomes: $becomes { affine: true, track_running_stats: true, ..becomes } }
            }
        }
    };
}

lazy_norm!(LazyBatchNorm1d, BatchNorm1d);
lazy_norm!(LazyBatchNorm2d, BatchNorm2d);
lazy_norm!(LazyBatchNorm3d, BatchNorm3d);
lazy_norm!(LazyInstanceNorm1d, InstanceNorm1d);
lazy_norm!(LazyInstanceNorm2d, InstanceNorm2d);
lazy_norm!(LazyInstanceNorm3d, InstanceNorm3d);
