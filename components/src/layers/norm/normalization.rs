//! Normalization of each item by itself: [`LayerNorm`], [`GroupNorm`], [`RMSNorm`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::{Function, Var};
use serde::{Deserialize, Serialize};

use super::batchnorm::Settings;
use crate::module::repr::{boolean, float, tuple};
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// Normalizes each item over its last axes, then scales and shifts each number:
/// `y = (x - mean) / √(var + eps) · weight + bias`.
///
/// | value    | shape                    | at first                          |
/// |----------|--------------------------|-----------------------------------|
/// | `x`, `y` | `[.., normalized_shape]` |                                   |
/// | `weight` | `normalized_shape`       | 1; absent if `!elementwise_affine`|
/// | `bias`   | `normalized_shape`       | 0; absent if that or `!bias`      |
///
/// Source: `torch.nn.LayerNorm`.
#[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct LayerNorm {
    /// The sizes of the last axes.
    pub normalized_shape: Vec<usize>,
    /// What is added to variances; a scalar slot, 1e-5 at first.
    #[scalar]
    pub eps: f64,
    /// Whether there is a `weight`.
    pub elementwise_affine: bool,
    /// Whether there is a `bias` beside the weight.
    pub bias: bool,
}

impl LayerNorm {
    /// Makes a layer with torch's defaults: `LayerNorm::new([16])`.
    pub fn new(normalized_shape: impl Into<Vec<usize>>) -> Self {
        LayerNorm {
            normalized_shape: normalized_shape.into(),
            eps: 1e-5,
            elementwise_affine: true,
            bias: true,
        }
    }
}

/// Returns the axes that `normalized_shape` names, counted from the end, if the last axes of `x` are it.
fn last_axes(
    call: &Call<'_>,
    x: &Var,
    normalized_shape: &[usize],
    star: &str,
) -> Option<Vec<isize>> {
    if normalized_shape.is_empty() || !x.shape().ends_with(normalized_shape) {
        let sizes: Vec<_> = normalized_shape.iter().map(ToString::to_string).collect();
        let sizes = sizes.join(", ");
        call.trace.fail(format!(
            "Given normalized_shape=[{sizes}], expected input with shape [{star}{sizes}], but got input of \
             size{}",
            x.shape()
        ));
        return None;
    }
    Some((1..=normalized_shape.len() as isize).map(|axis| -axis).collect())
}

#[scalars]
impl Module for LayerNorm {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        let shape = |is_there: bool| is_there.then(|| self.normalized_shape.clone());
        declare.optional_parameter("weight", shape(self.elementwise_affine));
        declare.optional_parameter("bias", shape(self.elementwise_affine && self.bias));
    }

    fn reset(&self, name: &str) -> Init {
        Settings::reset(name)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let Some(axes) = last_axes(call, &x, &self.normalized_shape, "*, ") else {
            return call.trace.poison();
        };
        let weight = self.elementwise_affine.then(|| call.parameter("weight"));
        let bias = (self.elementwise_affine && self.bias).then(|| call.parameter("bias"));
        call.trace.function(Function::of_first("layer_norm"), &[Some(&x)], |cast| {
            let x = cast(&x);
            let y = x.normalize(&axes, &call.scalar("eps", x.dtype())).y;
            y.scale_shift(weight.as_ref(), bias.as_ref())
        })
    }

    fn extra_repr(&self) -> String {
        let LayerNorm { normalized_shape, eps, elementwise_affine, bias } = self;
        format!(
            "{}, eps={}, elementwise_affine={}, bias={}",
            tuple(normalized_shape),
            float(*eps),
            boolean(*elementwise_affine),
            boolean(*elementwise_affine && *bias)
        )
    }
}

/// Normalizes groups of neighboring channels of each item, then scales and shifts each channel:
/// `y = (x - mean) / √(var + eps) · weight + bias`.
///
/// | value    | shape                       | at first                          |
/// |----------|-----------------------------|-----------------------------------|
/// | `x`, `y` | `[batch, num_channels, ..]` |                                   |
/// | `weight` | `[num_channels]`            | 1; absent if `!affine`            |
/// | `bias`   | `[num_channels]`            | 0; absent if `!affine` or `!bias` |
///
/// Source: `torch.nn.GroupNorm`. A `num_channels` that is not divisible by `num_groups` is an error of the
/// first call.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct GroupNorm {
    /// Into how many groups the channels are divided.
    pub num_groups: usize,
    /// How many channels there are.
    pub num_channels: usize,
    /// What is added to variances; a scalar slot, 1e-5 at first.
    #[scalar]
    pub eps: f64,
    /// Whether there is a `weight`.
    pub affine: bool,
    /// Whether there is a `bias` beside the weight.
    pub bias: bool,
}

impl GroupNorm {
    /// Makes a layer with torch's defaults.
    pub fn new(num_groups: usize, num_channels: usize) -> Self {
        GroupNorm { num_groups, num_channels, eps: 1e-5, affine: true, bias: true }
    }

    fn settings(&self) -> Settings {
        Settings {
            num_features: self.num_channels,
            eps: self.eps,
            momentum: None,
            affine: self.affine,
            bias: self.bias,
            track_running_stats: false,
        }
    }
}

#[scalars]
impl Module for GroupNorm {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        self.settings().declare(declare);
    }

    fn reset(&self, name: &str) -> Init {
        Settings::reset(name)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let (groups, shape) = (self.num_groups, x.shape());
        if groups == 0 || !self.num_channels.is_multiple_of(groups) {
            let channels = self.num_channels;
            return call.trace.fail(format!(
                "num_channels ({channels}) must be divisible by num_groups ({groups})"
            ));
        }
        let Some(channels) = shape.get(1).filter(|channels| channels.is_multiple_of(groups)) else {
            return call.trace.fail(format!(
                "Expected number of channels in input to be divisible by num_groups, but got input of \
                 shape {shape} and num_groups={groups}"
            ));
        };
        if *channels != self.num_channels && self.affine {
            return call.trace.fail(format!(
                "Expected weight to be a vector of size equal to the number of channels in input, but \
                 got weight of shape [{}] and input of shape {shape}",
                self.num_channels
            ));
        }
        let rest = shape[1..].iter().product::<usize>() / groups;
        call.trace.function(Function::of_first("group_norm"), &[Some(&x)], |cast| {
            let grouped = cast(&x).reshape([shape[0], groups, rest]);
            let y = grouped.normalize(&[2], &call.scalar("eps", grouped.dtype())).y;
            self.settings().affine(call, &y.reshape(shape.clone()))
        })
    }

    fn extra_repr(&self) -> String {
        let GroupNorm { num_groups, num_channels, eps, affine, bias } = *self;
        format!(
            "{num_groups}, {num_channels}, eps={}, affine={}, bias={}",
            float(eps),
            boolean(affine),
            boolean(affine && bias)
        )
    }
}

/// Divides each item by the root of its mean square over the last axes, then scales each number:
/// `y = x / √(mean(x²) + eps) · weight`.
///
/// | value    | shape                    | at first                          |
/// |----------|--------------------------|-----------------------------------|
/// | `x`, `y` | `[.., normalized_shape]` |                                   |
/// | `weight` | `normalized_shape`       | 1; absent if `!elementwise_affine`|
///
/// Source: `torch.nn.RMSNorm`.
#[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct RMSNorm {
    /// The sizes of the last axes.
    pub normalized_shape: Vec<usize>,
    /// What is added to mean squares; a scalar slot. `None`, at first, stands for the distance from 1 to the
    /// next number of the input's type.
    #[scalar]
    pub eps: Option<f64>,
    /// Whether there is a `weight`.
    pub elementwise_affine: bool,
}

impl RMSNorm {
    /// Makes a layer with torch's defaults: `RMSNorm::new([16])`.
    pub fn new(normalized_shape: impl Into<Vec<usize>>) -> Self {
        let normalized_shape = normalized_shape.into();
        RMSNorm { normalized_shape, eps: None, elementwise_affine: true }
    }
}

#[scalars]
impl Module for RMSNorm {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        let shape = self.elementwise_affine.then(|| self.normalized_shape.clone());
        declare.optional_parameter("weight", shape);
    }

    fn reset(&self, name: &str) -> Init {
        Settings::reset(name)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let Some(axes) = last_axes(call, &x, &self.normalized_shape, "*") else {
            return call.trace.poison();
        };
        let eps = match (self.eps, x.dtype()) {
            (Some(_), dtype) => call.scalar("eps", dtype),
            (None, Dtype::F64) => call.trace.constant(f64::EPSILON, Dtype::F64, []),
            (None, dtype) => call.trace.constant(f32::EPSILON.into(), dtype, []),
        };
        let weight = self.elementwise_affine.then(|| call.parameter("weight"));
        call.trace.function(Function::of_first("rms_norm"), &[Some(&x)], |cast| {
            cast(&x).rms_normalize(&axes, &eps).scale_shift(weight.as_ref(), None)
        })
    }

    fn extra_repr(&self) -> String {
        let RMSNorm { normalized_shape, eps, elementwise_affine } = self;
        let eps = eps.map_or("None".to_owned(), float);
        let affine = boolean(*elementwise_affine);
        format!("{}, eps={eps}, elementwise_affine={affine}", tuple(normalized_shape))
    }
}
