//! [`MultiheadAttention`]: each query mixes values, by how well their keys fit it.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::ops::attention::multi_head as kernel;
use neurarch_kernels::ops::attention::multi_head::{InProjection, MultiHeadAttentionOptions};
use serde::{Deserialize, Serialize};

use super::linear::{Linear, NonDynamicallyQuantizableLinear};
use crate::module::signature::Refused;
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// What `forward` takes.
const NAMES: [&str; 8] = [
    "query",
    "key",
    "value",
    "key_padding_mask",
    "need_weights",
    "attn_mask",
    "average_attn_weights",
    "is_causal",
];

/// Projects queries, keys and values, lets each of `num_heads` parts of a query mix that part of the values, and
/// projects what the parts give: [`Var::multi_head_attention_forward`].
///
/// | value             | shape                                                 | at first                  |
/// |-------------------|-------------------------------------------------------|---------------------------|
/// | `query`           | `[L, batch, embed_dim]`, or `[L, embed_dim]`          |                           |
/// | `key`             | `[S, batch, kdim]`, or `[S, kdim]`                    |                           |
/// | `value`           | `[S, batch, vdim]`, or `[S, vdim]`                    |                           |
/// | result            | as `query`                                            |                           |
/// | weights           | `[batch, L, S]`, or `[L, S]`; each head's before `L`  |                           |
/// | `in_proj_weight`  | `[3 · embed_dim, embed_dim]`, if all three dims agree | Xavier uniform            |
/// | `q_proj_weight`   | `[embed_dim, embed_dim]`, otherwise                   | Xavier uniform            |
/// | `k_proj_weight`   | `[embed_dim, kdim]`, otherwise                        | Xavier uniform            |
/// | `v_proj_weight`   | `[embed_dim, vdim]`, otherwise                        | Xavier uniform            |
/// | `in_proj_bias`    | `[3 · embed_dim]`; absent if `!bias`                  | 0                         |
/// | `bias_k`, `bias_v`| `[1, 1, embed_dim]`; absent if `!add_bias_kv`         | Xavier normal             |
/// | `out_proj.weight` | `[embed_dim, embed_dim]`                              | as a [`Linear`]'s         |
/// | `out_proj.bias`   | `[embed_dim]`; absent if `!bias`                      | 0                         |
///
/// With `batch_first`, the batch is the first axis. The call takes `query`, `key`, `value` and these keywords:
///
/// * `key_padding_mask`, `[batch, S]` or `[S]`: keys that nobody sees. Flags, true where masked, or numbers that
///   are added before the softmax.
/// * `attn_mask`, `[L, S]` or `[batch · num_heads, L, S]`: the same for each query.
/// * `need_weights` (true): whether the second result is the weights or `None`; `average_attn_weights` (true):
///   their mean over the heads, or those of each.
/// * `is_causal` (false): says that `attn_mask` is a causal one.
///
/// `dropout` is a scalar slot, and the probability with which a weight becomes 0 in training.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::repr::repr;
/// let attention = MultiheadAttention { batch_first: true, ..MultiheadAttention::new(8, 2) };
/// assert_eq!(repr(&attention), "\
/// MultiheadAttention(
///   (out_proj): NonDynamicallyQuantizableLinear(in_features=8, out_features=8, bias=True)
/// )");
/// ```
///
/// Source: `torch.nn.MultiheadAttention`, without its fast path for inference, whose numbers differ where
/// everything is masked. As in torch, a query that sees no key gets NaN with `need_weights` and 0 without. Sizes
/// that torch refuses when the layer is made are an error of the first call.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct MultiheadAttention {
    /// Size of the last axis of queries and results.
    pub embed_dim: usize,
    /// Into how many parts it is divided.
    pub num_heads: usize,
    /// Probability that a weight becomes 0 in training; 0 at first.
    #[scalar(read = super::dropout::probability)]
    pub dropout: f64,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Whether a key and a value that are learned are appended.
    pub add_bias_kv: bool,
    /// Whether a key and a value of zeros are appended.
    pub add_zero_attn: bool,
    /// Size of the last axis of keys; `embed_dim` if `None`.
    pub kdim: Option<usize>,
    /// Size of the last axis of values; `embed_dim` if `None`.
    pub vdim: Option<usize>,
    /// Whether the batch is the first axis, not the second.
    pub batch_first: bool,
}

impl MultiheadAttention {
    /// Makes a layer with torch's defaults.
    pub fn new(embed_dim: usize, num_heads: usize) -> Self {
        MultiheadAttention {
            embed_dim,
            num_heads,
            dropout: 0.0,
            bias: true,
            add_bias_kv: false,
            add_zero_attn: false,
            kdim: None,
            vdim: None,
            batch_first: false,
        }
    }

    /// Returns the sizes of keys and values.
    fn dims(&self) -> [usize; 2] {
        [self.kdim, self.vdim].map(|dim| dim.unwrap_or(self.embed_dim))
    }

    /// Returns whether one weight projects queries, keys and values.
    fn is_packed(&self) -> bool {
        self.dims() == [self.embed_dim; 2]
    }

    /// Returns the result and the weights.
    fn attend(&self, call: &Call<'_>, arguments: Arguments) -> Result<Tree, Refused> {
        let [query, key, value, padding, need_weights, mask, average, is_causal] =
            call.bind(arguments, NAMES, 3)?;
        let (dim, heads) = (self.embed_dim, self.num_heads);
        if dim == 0 || heads == 0 {
            return Err(call.fail(format!(
                "embed_dim and num_heads must be greater than 0, got embed_dim={dim} and num_heads={heads} \
                 instead"
            )));
        }
        if !dim.is_multiple_of(heads) {
            return Err(call.fail("embed_dim must be divisible by num_heads"));
        }
        let query = call.value(NAMES[0], query)?;
        let (key, value) = (call.value(NAMES[1], key)?, call.value(NAMES[2], value)?);
        let padding = canonical_mask(call, padding, NAMES[3], query.dtype())?;
        let mask = canonical_mask(call, mask, NAMES[5], query.dtype())?;
        let (packed, separate);
        let in_proj_weight = if self.is_packed() {
            packed = call.parameter("in_proj_weight");
            InProjection::Packed(&packed)
        } else {
            let names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"];
            separate = names.map(|name| call.parameter(name));
            InProjection::Separate(separate.each_ref())
        };
        let in_proj_bias = call.optional_parameter("in_proj_bias");
        let optional = |is_there: bool, name: &str| is_there.then(|| call.parameter(name));
        let [bias_k, bias_v] = ["bias_k", "bias_v"].map(|name| optional(self.add_bias_kv, name));
        let dropout_p = call.training().then(|| call.scalar("dropout", query.dtype()));
        let out_proj_weight = call.parameter("out_proj.weight");
        let out_proj_bias = optional(self.bias, "out_proj.bias");
        let options = MultiHeadAttentionOptions {
            in_proj_bias: in_proj_bias.as_ref(),
            bias_k: bias_k.as_ref(),
            bias_v: bias_v.as_ref(),
            add_zero_attn: self.add_zero_attn,
            dropout_p: dropout_p.as_ref(),
            out_proj_bias: out_proj_bias.as_ref(),
            training: call.training(),
            key_padding_mask: padding.as_ref(),
            need_weights: call.flag(NAMES[4], need_weights, true)?,
            attn_mask: mask.as_ref(),
            average_attn_weights: call.flag(NAMES[6], average, true)?,
            is_causal: call.flag(NAMES[7], is_causal, false)?,
            batch_first: self.batch_first,
            ..MultiHeadAttentionOptions::new(dim, heads, in_proj_weight, &out_proj_weight)
        };
        let (result, weights) = query.multi_head_attention_forward(&key, &value, options);
        Ok((Tree::Leaf(result), weights.map_or(Tree::None, Tree::Leaf)).into())
    }
}

#[scalars]
impl Module for MultiheadAttention {
    fn declare(&self, declare: &mut Declare) {
        let (dim, [kdim, vdim]) = (self.embed_dim, self.dims());
        if self.is_packed() {
            declare.parameter("in_proj_weight", [dim.saturating_mul(3), dim]);
            declare.no_parameter("q_proj_weight");
            declare.no_parameter("k_proj_weight").no_parameter("v_proj_weight");
        } else {
            declare.parameter("q_proj_weight", [dim, dim]);
            declare.parameter("k_proj_weight", [dim, kdim]).parameter("v_proj_weight", [dim, vdim]);
            declare.no_parameter("in_proj_weight");
        }
        match self.bias {
            true => declare.parameter("in_proj_bias", [dim.saturating_mul(3)]),
            false => declare.no_parameter("in_proj_bias"),
        };
        let out_proj = Linear { in_features: dim, out_features: dim, bias: self.bias };
        declare.child("out_proj", NonDynamicallyQuantizableLinear(out_proj));
        if self.add_bias_kv {
            declare.parameter("bias_k", [1, 1, dim]).parameter("bias_v", [1, 1, dim]);
        }
    }

    fn attributes(&self) -> &'static [&'static str] {
        &[
            "embed_dim",
            "kdim",
            "vdim",
            "num_heads",
            "dropout",
            "batch_first",
            "head_dim",
            "add_zero_attn",
            "merge_masks",
        ]
    }

    fn reset(&self, name: &str) -> Init {
        let (dim, [kdim, vdim]) = (self.embed_dim, self.dims());
        match name {
            "in_proj_weight" => xavier_uniform(&[dim.saturating_mul(3), dim]),
            "q_proj_weight" => xavier_uniform(&[dim, dim]),
            "k_proj_weight" => xavier_uniform(&[dim, kdim]),
            "v_proj_weight" => xavier_uniform(&[dim, vdim]),
            // √(2 / (fan_in + fan_out)), both of which are `dim`.
            "bias_k" | "bias_v" if dim > 0 => {
                Init::Normal { mean: 0.0, std: 1.0 / (dim as f64).sqrt() }
            }
            _ => Init::Zeros,
        }
    }

    fn reset_below(&self, path: &str, _: &Shape) -> Option<Init> {
        (path == "out_proj.bias").then_some(Init::Zeros)
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        self.attend(call, arguments).unwrap_or_else(|Refused| call.trace.poison().into())
    }
}

/// Returns `U(-k, k)`, `k = √(6 / (fan_in + fan_out))`, for the weight of a linear map.
///
/// Source: `torch.nn.init.xavier_uniform_`.
pub(super) fn xavier_uniform(shape: &[usize]) -> Init {
    let field: usize = shape.iter().skip(2).product();
    let fans = field * shape.iter().take(2).sum::<usize>();
    if fans == 0 {
        return Init::Zeros;
    }
    let high = (6.0 / fans as f64).sqrt();
    Init::Uniform { low: -high, high }
}

/// Takes an argument that is a mask or `None`, as what is added before a softmax
/// ([`canonical_mask`](kernel::canonical_mask)).
pub(super) fn canonical_mask(
    call: &Call<'_>,
    mask: Option<Tree>,
    name: &str,
    dtype: Dtype,
) -> Result<Option<Var>, Refused> {
    let mask = call.optional_value(name, mask)?;
    let canonical = mask.map(|mask| kernel::canonical_mask(&mask, name, dtype));
    canonical.transpose().map_err(|message| call.fail(message))
}
