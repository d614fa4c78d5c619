//! Batch normalization: [`BatchNorm1d`], [`BatchNorm2d`], [`BatchNorm3d`], [`SyncBatchNorm`].

use core::ops::RangeInclusive;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::{Function, Var};
use serde::{Deserialize, Serialize};

use crate::module::repr::{boolean, float};
use crate::module::{Call, Declare, DynModule, Init, Module};
use crate::{Scalars, scalars};

/// The settings that batch and instance normalization share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::layers) struct Settings {
    pub(in crate::layers) num_features: usize,
    pub(in crate::layers) eps: f64,
    pub(in crate::layers) momentum: Option<f64>,
    pub(in crate::layers) affine: bool,
    pub(in crate::layers) bias: bool,
    pub(in crate::layers) track_running_stats: bool,
}

/// The version of a norm's state dict, since which it has `num_batches_tracked`.
///
/// Source: `_version` of `torch.nn.modules.batchnorm._NormBase`.
pub(super) const VERSION: u32 = 2;

impl Settings {
    pub(super) fn declare(&self, declare: &mut Declare) {
        let features = [self.num_features];
        declare.optional_parameter("weight", self.affine.then_some(features));
        declare.optional_parameter("bias", (self.affine && self.bias).then_some(features));
        if self.track_running_stats {
            declare.buffer("running_mean", features, true);
            declare.buffer("running_var", features, true);
            declare.buffer_of("num_batches_tracked", [], Dtype::I64, true);
        } else {
            declare.no_buffer("running_mean").no_buffer("running_var");
            declare.no_buffer("num_batches_tracked");
        }
    }

    pub(super) fn reset(name: &str) -> Init {
        match name {
            "weight" | "running_var" => Init::Ones,
            _ => Init::Zeros,
        }
    }

    /// What a state dict before [`VERSION`], or of unknown version, may lack.
    pub(super) fn may_lack(name: &str, version: Option<u32>) -> bool {
        name == "num_batches_tracked" && version.is_none_or(|version| version < VERSION)
    }

    pub(super) fn extra_repr(&self) -> String {
        let Settings { num_features, eps, momentum, affine, bias, track_running_stats } = *self;
        let momentum = momentum.map_or("None".to_owned(), float);
        format!(
            "{num_features}, eps={}, momentum={momentum}, affine={}, bias={}, track_running_stats={}",
            float(eps),
            boolean(affine),
            boolean(affine && bias),
            boolean(track_running_stats)
        )
    }

    /// Scales and shifts the channels of `y`, axis 1, if the layer does.
    pub(super) fn affine(&self, call: &Call<'_>, y: &Var) -> Var {
        let rank = y.shape().rank();
        let along = |name| along_channels(&call.parameter(name), rank);
        let weight = self.affine.then(|| along("weight"));
        let bias = (self.affine && self.bias).then(|| along("bias"));
        y.scale_shift(weight.as_ref(), bias.as_ref())
    }

    /// Returns the scale and the shift that the running statistics come to, each `[channels]`.
    fn running_affine(&self, call: &Call<'_>, dtype: Dtype) -> (Var, Var) {
        let (mean, var) = (call.buffer("running_mean"), call.buffer("running_var"));
        let eps = call.scalar("eps", dtype);
        let weight = self.affine.then(|| call.parameter("weight"));
        let bias = (self.affine && self.bias).then(|| call.parameter("bias"));
        affine_of([&mean, &var], &eps, weight.as_ref(), bias.as_ref())
    }

    /// Normalizes by the running statistics.
    pub(super) fn by_running_stats(&self, call: &Call<'_>, x: &Var) -> Var {
        let (scale, shift) = self.running_affine(call, x.dtype());
        let rank = x.shape().rank();
        let (scale, shift) = (along_channels(&scale, rank), along_channels(&shift, rank));
        x.scale_shift(Some(&scale), Some(&shift))
    }

    /// Moves the running statistics towards those of a batch, of `n` numbers each.
    pub(super) fn track(&self, call: &Call<'_>, factor: &Var, mean: &Var, var: &Var, n: usize) {
        let unbiased = var * (n as f64 / (n as f64 - 1.0));
        for (name, new) in [("running_mean", mean), ("running_var", &unbiased)] {
            let buffer = call.buffer(name);
            let old = call.trace.stored(&buffer);
            call.trace.store(&buffer, &(new * factor + old * (1.0 - factor)));
        }
    }
}

/// Returns the scale `weight / √(var + eps)` and the shift `bias - mean · scale`, each as long as mean and variance.
pub fn affine_of(
    [mean, var]: [&Var; 2],
    eps: &Var,
    weight: Option<&Var>,
    bias: Option<&Var>,
) -> (Var, Var) {
    let scale = (var + eps).sqrt().reciprocal();
    let scale = weight.map_or(scale.clone(), |weight| scale * weight);
    let shift = -(mean * &scale);
    let shift = bias.map_or(shift.clone(), |bias| shift + bias);
    (scale, shift)
}

/// Returns the scale and the shift, `[num_features]` each, that come to the same as a batch norm in evaluation mode:
/// `weight / √(running_var + eps)`, and `bias - running_mean · scale`. `None` if the call is of no batch norm.
///
/// Source: the numbers in `torch.nn.utils.fuse_conv_bn_weights`.
pub fn running_affine(call: &Call<'_>, dtype: Dtype) -> Option<(Var, Var)> {
    Some(settings(&*call.at().module)?.running_affine(call, dtype))
}

/// Returns the settings of a batch norm.
fn settings(module: &dyn DynModule) -> Option<Settings> {
    let one = module.downcast_ref().map(BatchNorm1d::settings);
    let two = || module.downcast_ref().map(BatchNorm2d::settings);
    let three = || module.downcast_ref().map(BatchNorm3d::settings);
    let sync = || module.downcast_ref().map(SyncBatchNorm::settings);
    one.or_else(two).or_else(three).or_else(sync)
}

/// Returns whether a module is a batch norm that is not lazy.
///
/// Source: `isinstance(module, torch.nn.modules.batchnorm._BatchNorm)`.
pub fn is_batch_norm(module: &dyn DynModule) -> bool {
    settings(module).is_some()
}

/// Copies a batch norm, with another momentum; `None` if the module is none, or lazy.
pub fn with_momentum(module: &dyn DynModule, momentum: Option<f64>) -> Option<Box<dyn DynModule>> {
    macro_rules! copied {
        ($($layer:ident)+) => {
            $(if let Some(norm) = module.downcast_ref::<$layer>() {
                return Some(Box::new($layer { momentum, ..*norm }));
            })+
        };
    }
    copied!(BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm);
    None
}

/// Returns `[channels]` the shape that broadcasts along axis 1 of a value with `rank` axes.
pub(super) fn along_channels(x: &Var, rank: usize) -> Var {
    if x.id().is_none() {
        return x.clone();
    }
    let sizes = x.shape().iter().copied().chain(vec![1; rank.saturating_sub(2)]);
    x.reshape(sizes.collect::<Shape>())
}

/// Records batch normalization.
fn batch_norm(
    call: &Call<'_>,
    x: &Var,
    of: &Settings,
    ranks: RangeInclusive<usize>,
    expected: &str,
) -> Var {
    call.trace.function(Function::of_first("batch_norm"), &[Some(x)], |cast| {
        plain_batch_norm(call, &cast(x), of, ranks, expected)
    })
}

/// [`batch_norm`] in one precision.
fn plain_batch_norm(
    call: &Call<'_>,
    x: &Var,
    of: &Settings,
    ranks: RangeInclusive<usize>,
    expected: &str,
) -> Var {
    let Some(&channels) = x.shape().get(1).filter(|_| ranks.contains(&x.shape().rank())) else {
        let rank = x.shape().rank();
        return call.trace.fail(format!("expected {expected} input (got {rank}D input)"));
    };
    if channels == 0 && ranks.end() == &usize::MAX {
        return call.trace.fail("SyncBatchNorm number of input channels should be non-zero");
    }
    let checked = if of.track_running_stats { "running_mean" } else { "weight" };
    if channels != of.num_features && (of.track_running_stats || of.affine) {
        return call
            .trace
            .fail(format!("{checked} should contain {channels} elements not {}", of.num_features));
    }
    if !call.training() && of.track_running_stats {
        return of.by_running_stats(call, x);
    }
    let n = x.shape().numel() / channels.max(1);
    if n == 1 {
        let shape = x.shape();
        return call.trace.fail(format!(
            "Expected more than 1 value per channel when training, got input size torch.Size({shape})"
        ));
    }
    let axes: Vec<_> = (0..x.shape().rank() as isize).filter(|&axis| axis != 1).collect();
    let normalized = x.normalize(&axes, &call.scalar("eps", x.dtype()));
    if of.track_running_stats {
        let buffer = call.buffer("num_batches_tracked");
        let count = call.trace.stored(&buffer).increment();
        call.trace.store(&buffer, &count);
        let factor = match of.momentum {
            Some(_) => call.scalar("momentum", x.dtype()),
            None => count.to(x.dtype()).reciprocal(),
        };
        of.track(call, &factor, &normalized.mean, &normalized.var, n);
    }
    of.affine(call, &normalized.y)
}

/// Declares a layer that normalizes channels: its component, and how it is made.
macro_rules! norm_layer {
    ($(#[$doc:meta])* $layer:ident, affine: $affine:literal, track_running_stats: $track:literal) => {
        $(#[$doc])*
        #[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $layer {
            /// How many channels there are.
            pub num_features: usize,
            /// What is added to variances; a scalar slot, 1e-5 at first.
            #[scalar]
            pub eps: f64,
            /// How far running statistics move towards those of a batch; a scalar slot, 0.1 at first. `None`
            /// stands for their average over all batches.
            #[scalar]
            pub momentum: Option<f64>,
            #[doc = concat!("Whether there is a `weight`; ", stringify!($affine), " at first.")]
            pub affine: bool,
            /// Whether there is a `bias` beside the weight.
            pub bias: bool,
            #[doc = concat!("Whether there are running statistics; ", stringify!($track), " at first.")]
            pub track_running_stats: bool,
        }

        impl $layer {
            /// Makes a layer with torch's defaults.
            pub fn new(num_features: usize) -> Self {
                $layer {
                    num_features,
                    eps: 1e-5,
                    momentum: Some(0.1),
                    affine: $affine,
                    bias: true,
                    track_running_stats: $track,
                }
            }

            pub(in crate::layers) fn settings(&self) -> $crate::layers::norm::batchnorm::Settings {
                $crate::layers::norm::batchnorm::Settings {
                    num_features: self.num_features,
                    eps: self.eps,
                    momentum: self.momentum,
                    affine: self.affine,
                    bias: self.bias,
                    track_running_stats: self.track_running_stats,
                }
            }
        }
    };
}
pub(super) use norm_layer;

macro_rules! batch_norm {
    ($(#[$doc:meta])* $layer:ident, $ranks:expr, $expected:literal, $shapes:literal) => {
        norm_layer! {
            /// Normalizes each channel over a batch, then scales and shifts it:
            /// `y = (x - mean) / √(var + eps) · weight + bias`.
            ///
            /// | value                         | shape            | at first                        |
            /// |-------------------------------|------------------|---------------------------------|
            #[doc = $shapes]
            /// | `weight`                      | `[num_features]` | 1; absent if `!affine`          |
            /// | `bias`                        | `[num_features]` | 0; absent if `!affine` or `!bias` |
            /// | `running_mean`, `running_var` | `[num_features]` | 0, 1; absent if `!track_running_stats` |
            /// | `num_batches_tracked`         | `[]`, i64        | 0; with them                    |
            ///
            /// Mean and variance (not corrected for bias) are those of the batch while training, and always if
            /// there are no running statistics; else the running ones. A training call moves those: each by
            /// `momentum` towards the batch's mean and its unbiased variance.
            $(#[$doc])*
            #[doc = ""]
            #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
            $layer, affine: true, track_running_stats: true
        }

        #[scalars]
        impl Module for $layer {
            fn declare(&self, declare: &mut Declare) {
                self.settings().declare(declare);
            }

            fn reset(&self, name: &str) -> Init {
                Settings::reset(name)
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                batch_norm(call, &x, &self.settings(), $ranks, $expected)
            }

            fn version(&self) -> u32 {
                VERSION
            }

            fn may_lack(&self, name: &str, version: Option<u32>) -> bool {
                Settings::may_lack(name, version)
            }

            fn extra_repr(&self) -> String {
                self.settings().extra_repr()
            }
        }
    };
}

batch_norm! {
    BatchNorm1d, 2..=3, "2D or 3D",
    "| `x`, `y`                      | `[batch, num_features]` or `[batch, num_features, length]` | |"
}
batch_norm! {
    BatchNorm2d, 4..=4, "4D",
    "| `x`, `y`                      | `[batch, num_features, height, width]` | |"
}
batch_norm! {
    BatchNorm3d, 5..=5, "5D",
    "| `x`, `y`                      | `[batch, num_features, depth, height, width]` | |"
}
batch_norm! {
    ///
    /// Where a batch is spread over several processes, its statistics are those of all of them together. There is one
    /// process here, in which the layer computes as [`BatchNorm1d`] does;
    /// [`batch_norm_gather_stats_with_counts`](Var::batch_norm_gather_stats_with_counts) is the rule that joins
    /// statistics. There is no `process_group`.
    SyncBatchNorm, 2..=usize::MAX, "at least 2D",
    "| `x`, `y`                      | `[batch, num_features, ..]` | |"
}

impl SyncBatchNorm {
    /// Makes the layer that takes the place of a batch norm; `None` if the module is none, or lazy.
    ///
    /// Source: the layer that `torch.nn.SyncBatchNorm.convert_sync_batchnorm` makes.
    pub fn of(module: &dyn DynModule) -> Option<Self> {
        let Settings { num_features, eps, momentum, affine, bias, track_running_stats } =
            settings(module)?;
        Some(SyncBatchNorm { num_features, eps, momentum, affine, bias, track_running_stats })
    }
}
