//! [`MultiheadAttention`]: each query mixes values, by how well their keys fit it.

mod inputs;

use bevy_ecs::prelude::*;
use neurarch_kernels::ops::attention::AttentionOptions;
use neurarch_kernels::program::trace::Var;
use neurarch_kernels::program::tree::{Arguments, Tree};
use neurarch_kernels::shape::Shape;

use inputs::Inputs;
pub(super) use inputs::canonical_mask;

use super::linear::{Linear, NonDynamicallyQuantizableLinear};
use crate::module::{Call, Declare, Init, Module};
use crate::signature::Refused;

/// Projects queries, keys and values, lets each of `num_heads` parts of a query mix that part of the values
/// ([`Var::scaled_dot_product_attention`]), and projects what the parts give.
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
/// # use neurarch_components::repr::repr;
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
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct MultiheadAttention {
    /// Size of the last axis of queries and results.
    pub embed_dim: usize,
    /// Into how many parts it is divided.
    pub num_heads: usize,
    /// Probability that a weight becomes 0 in training; 0 at first.
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

    /// Gives the sizes of keys and values.
    fn dims(&self) -> [usize; 2] {
        [self.kdim, self.vdim].map(|dim| dim.unwrap_or(self.embed_dim))
    }

    /// Says whether one weight projects queries, keys and values.
    fn is_packed(&self) -> bool {
        self.dims() == [self.embed_dim; 2]
    }
}

impl Module for MultiheadAttention {
    fn declare(&self, declare: &mut Declare) {
        let (dim, [kdim, vdim]) = (self.embed_dim, self.dims());
        if self.is_packed() {
            declare.parameter("in_proj_weight", [3 * dim, dim]);
            declare.no_parameter("q_proj_weight");
            declare.no_parameter("k_proj_weight").no_parameter("v_proj_weight");
        } else {
            declare.parameter("q_proj_weight", [dim, dim]);
            declare.parameter("k_proj_weight", [dim, kdim]).parameter("v_proj_weight", [dim, vdim]);
            declare.no_parameter("in_proj_weight");
        }
        match self.bias {
            true => declare.parameter("in_proj_bias", [3 * dim]),
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
            "in_proj_weight" => xavier_uniform(&[3 * dim, dim]),
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
        let attended = Inputs::new(self, call, arguments).and_then(|inputs| inputs.attend());
        attended.unwrap_or_else(|Refused| call.trace.poison().into())
    }

    fn structural(&self) -> Self {
        MultiheadAttention { dropout: 0.0, ..*self }
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        (name == "dropout").then_some(self.dropout.clamp(0.0, 1.0))
    }
}

/// Gives `U(-k, k)`, `k = √(6 / (fan_in + fan_out))`, for the weight of a linear map.
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

impl Inputs<'_> {
    /// Projects one of the three inputs, with part `part` of the packed weight and bias.
    fn project(&self, x: &Var, part: usize) -> Var {
        let (call, dim) = (self.call, self.layer.embed_dim);
        let range = part * dim..(part + 1) * dim;
        let weight = match self.layer.is_packed() {
            true => call.parameter("in_proj_weight").slice(0, range.clone()),
            false => call.parameter(["q_proj_weight", "k_proj_weight", "v_proj_weight"][part]),
        };
        let bias = call.optional_parameter("in_proj_bias").map(|bias| bias.slice(0, range));
        x.linear(&weight, bias.as_ref())
    }

    /// Says whether the sequence is the first axis and the batch the second.
    fn is_sequence_first(&self) -> bool {
        self.is_batched && !self.layer.batch_first
    }

    /// Gives what was projected as `[batch, heads, length, features]`.
    fn heads(&self, x: &Var, length: usize) -> Var {
        let (heads, width) = (self.layer.num_heads, self.layer.embed_dim / self.layer.num_heads);
        match self.is_sequence_first() {
            true => x.reshape([length, self.batch, heads, width]).permute(&[1, 2, 0, 3]),
            false => x.reshape([self.batch, length, heads, width]).permute(&[0, 2, 1, 3]),
        }
    }

    /// Appends what is appended to keys or values.
    fn append(&self, x: Var, bias: &str) -> Var {
        let heads = self.layer.num_heads;
        let shape = [self.batch, heads, 1, self.layer.embed_dim / heads];
        let mut parts = vec![x];
        if self.layer.add_bias_kv {
            let row = self.call.parameter(bias).reshape([1, heads, 1, shape[3]]);
            parts.push(row.expand(shape));
        }
        if self.layer.add_zero_attn {
            parts.push(self.call.trace.constant(0.0, parts[0].dtype(), shape));
        }
        match &*parts {
            [x] => x.clone(),
            parts => Var::cat(&parts.iter().collect::<Vec<_>>(), 2),
        }
    }

    /// Joins both masks to what is added to the products; appended keys are not masked.
    fn mask(&self) -> Option<Var> {
        let attn_mask = self.attn_mask.as_ref().map(|mask| match mask.shape().rank() {
            3 => {
                let heads = self.layer.num_heads;
                self.unmasked(mask).reshape([
                    self.batch,
                    heads,
                    self.queries,
                    self.keys + self.appended(),
                ])
            }
            _ => self.unmasked(mask),
        });
        let padding = self.key_padding_mask.as_ref().map(|mask| {
            self.unmasked(mask).reshape([self.batch, 1, 1, self.keys + self.appended()])
        });
        match (attn_mask, padding) {
            (Some(mask), Some(padding)) => Some(mask + padding),
            (mask, padding) => mask.or(padding),
        }
    }

    /// Appends zeros to the last axis of a mask.
    fn unmasked(&self, mask: &Var) -> Var {
        let [leading @ .., _] = &**mask.shape() else { return mask.clone() };
        let shape: Shape = leading.iter().copied().chain([self.appended()]).collect();
        match self.appended() {
            0 => mask.clone(),
            _ => Var::cat(&[mask, &self.call.trace.constant(0.0, mask.dtype(), shape)], -1),
        }
    }

    /// Gives the result and the weights.
    fn attend(self) -> Result<Tree, Refused> {
        let Inputs { layer, call, queries, keys, batch, .. } = self;
        let query = self.heads(&self.project(&self.query, 0), queries);
        let key = self.append(self.heads(&self.project(&self.key, 1), keys), "bias_k");
        let value = self.append(self.heads(&self.project(&self.value, 2), keys), "bias_v");
        let dropout_p = call.training().then(|| call.scalar("dropout", query.dtype()));
        let (attended, weights) = if self.need_weights {
            let scale = (1.0 / (layer.embed_dim / layer.num_heads) as f64).sqrt();
            let scores = (&query * scale).matmul(&key.mt());
            let scores = match self.mask() {
                Some(mask) => scores + mask,
                None => scores,
            };
            let weights = scores.softmax(-1);
            let weights = match &dropout_p {
                Some(p) => weights.dropout(p),
                None => weights,
            };
            (weights.matmul(&value), Some(weights))
        } else {
            let is_causal = self.is_hint_enough();
            let mask = if is_causal { None } else { self.mask() };
            let options = AttentionOptions {
                attn_mask: mask.as_ref(),
                dropout_p: dropout_p.as_ref(),
                is_causal,
                ..AttentionOptions::default()
            };
            (query.scaled_dot_product_attention(&key, &value, options), None)
        };
        let joined = match self.is_sequence_first() {
            true => attended.permute(&[2, 0, 1, 3]).reshape([queries, batch, layer.embed_dim]),
            false => attended.permute(&[0, 2, 1, 3]).reshape([batch, queries, layer.embed_dim]),
        };
        let bias = layer.bias.then(|| call.parameter("out_proj.bias"));
        let result = joined.linear(&call.parameter("out_proj.weight"), bias.as_ref());
        let result = result.reshape(self.query.shape().clone());
        Ok((Tree::Leaf(result), weights.map_or(Tree::None, |w| self.weights(&w).into())).into())
    }

    /// Gives the weights as they were asked for.
    fn weights(&self, weights: &Var) -> Var {
        let keys = self.keys + self.appended();
        let (weights, heads) = match self.average_attn_weights {
            true => (weights.mean(&[1], false), None),
            false => (weights.clone(), Some(self.layer.num_heads)),
        };
        let batch = self.is_batched.then_some(self.batch);
        weights
            .reshape(batch.into_iter().chain(heads).chain([self.queries, keys]).collect::<Shape>())
    }
}
