//! Instance normalization: [`InstanceNorm1d`], [`InstanceNorm2d`], [`InstanceNorm3d`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::{Function, Var};
use serde::{Deserialize, Serialize};

use super::batchnorm::{Settings, VERSION, norm_layer};
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// Records instance normalization of `[batch, channels, ..]` or `[channels, ..]`, with `spatial` axes behind.
fn instance_norm(call: &Call<'_>, x: &Var, of: &Settings, spatial: usize) -> Var {
    call.trace.function(Function::of_first("instance_norm"), &[Some(x)], |cast| {
        plain_instance_norm(call, &cast(x), of, spatial)
    })
}

/// [`instance_norm`] in one precision.
fn plain_instance_norm(call: &Call<'_>, x: &Var, of: &Settings, spatial: usize) -> Var {
    let (trace, shape) = (call.trace, x.shape());
    let rank = shape.rank();
    if rank != spatial + 1 && rank != spatial + 2 {
        let (one, two) = (spatial + 1, spatial + 2);
        return trace.fail(format!("expected {one}D or {two}D input (got {rank}D input)"));
    }
    let axis = rank - spatial - 1;
    if shape[axis] != of.num_features && (of.affine || of.track_running_stats) {
        return trace.fail(format!(
            "expected input's size at dim={axis} to match num_features ({}), but got: {}.",
            of.num_features, shape[axis]
        ));
    }
    if shape[axis] != of.num_features {
        trace.warn(format!(
            "input's size at dim={axis} does not match num_features. You can silence this warning by not passing in \
             num_features, which is not used because affine=False"
        ));
    }
    if axis == 0 {
        let batched = [1].into_iter().chain(shape.iter().copied()).collect::<Shape>();
        let y = batched_norm(call, &x.reshape(batched), of);
        return if y.id().is_some() { y.reshape(shape.clone()) } else { y };
    }
    batched_norm(call, x, of)
}

fn batched_norm(call: &Call<'_>, x: &Var, of: &Settings) -> Var {
    if !call.training() && of.track_running_stats {
        return of.by_running_stats(call, x);
    }
    let shape = x.shape();
    let n = shape[2..].iter().product::<usize>();
    if n == 1 {
        return call.trace.fail(format!(
            "Expected more than 1 spatial element when training, got input size torch.Size({shape})"
        ));
    }
    let axes: Vec<_> = (2..shape.rank() as isize).collect();
    let normalized = x.normalize(&axes, &call.scalar("eps", x.dtype()));
    if of.track_running_stats {
        let (mean, var) = (normalized.mean.mean(&[0], false), normalized.var.mean(&[0], false));
        let factor = match of.momentum {
            Some(_) => call.scalar("momentum", x.dtype()),
            None => call.trace.constant(0.0, x.dtype(), []),
        };
        of.track(call, &factor, &mean, &var, n);
    }
    of.affine(call, &normalized.y)
}

macro_rules! instance_norm {
    ($layer:ident, $spatial:literal, $axes:literal) => {
        norm_layer! {
            /// Normalizes each channel of each item over its spatial axes, then scales and shifts it:
            /// `y = (x - mean) / √(var + eps) · weight + bias`.
            ///
            /// | value                         | shape            | at first                        |
            /// |-------------------------------|------------------|---------------------------------|
            #[doc = concat!("| `x`, `y` | `[batch, num_features, ", $axes, "]`, or without the batch | |")]
            /// | `weight`                      | `[num_features]` | 1; absent if `!affine`          |
            /// | `bias`                        | `[num_features]` | 0; absent if `!affine` or `!bias` |
            /// | `running_mean`, `running_var` | `[num_features]` | 0, 1; absent if `!track_running_stats` |
            /// | `num_batches_tracked`         | `[]`, i64        | 0, and stays so, as in torch    |
            ///
            /// With running statistics, those are used in evaluation mode, and move in training mode towards the
            /// mean over the batch of each item's. A `momentum` of `None` leaves them.
            #[doc = ""]
            #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
            $layer, affine: false, track_running_stats: false
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
                instance_norm(call, &x, &self.settings(), $spatial)
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

instance_norm!(InstanceNorm1d, 1, "length");
instance_norm!(InstanceNorm2d, 2, "height, width");
instance_norm!(InstanceNorm3d, 3, "depth, height, width");
