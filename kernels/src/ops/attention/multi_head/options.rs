//! What attention of several heads is called with besides queries, keys and values.

use crate::ir::dtype::Dtype;
use crate::ir::trace::Var;

/// What projects queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum InProjection<'a> {
    /// One weight, `[3 · embed_dim, embed_dim]`: torch's `in_proj_weight`, that of queries first, of values last.
    Packed(&'a Var),
    /// torch's `q_proj_weight`, `[embed_dim, embed_dim]`, `k_proj_weight`, `[embed_dim, kdim]`, and
    /// `v_proj_weight`, `[embed_dim, vdim]`: `use_separate_proj_weight`.
    Separate([&'a Var; 3]),
}

/// What [`Var::multi_head_attention_forward`] is called with besides queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct MultiHeadAttentionOptions<'a> {
    /// What the last axis of queries must have.
    pub embed_dim_to_check: usize,
    /// Into how many parts that axis is divided.
    pub num_heads: usize,
    /// The weights of the projections.
    pub in_proj_weight: InProjection<'a>,
    /// Their biases, one behind the other, `[3 · embed_dim]`.
    pub in_proj_bias: Option<&'a Var>,
    /// What is appended to the keys, `[rows, 1, embed_dim]`, `[1, embed_dim]` or `[embed_dim]`; only together with
    /// `bias_v`.
    pub bias_k: Option<&'a Var>,
    /// What is appended to the values, `[1, 1, embed_dim]`.
    pub bias_v: Option<&'a Var>,
    /// Whether a key and a value of zeros are appended.
    pub add_zero_attn: bool,
    /// The probability, `[]`, with which each weight becomes 0 in training; `None` for no dropout.
    pub dropout_p: Option<&'a Var>,
    /// The weight of the last projection, `[out, embed_dim]`; `out` is `embed_dim` as a rule.
    pub out_proj_weight: &'a Var,
    /// Its bias, `[out]`.
    pub out_proj_bias: Option<&'a Var>,
    /// Whether there is dropout.
    pub training: bool,
    /// Keys that nobody sees, `[batch, S]` or `[S]`: flags, true where masked, or numbers that are added before the
    /// softmax.
    pub key_padding_mask: Option<&'a Var>,
    /// Whether the weights are given, too.
    pub need_weights: bool,
    /// The same as `key_padding_mask` for each query: `[L, S]` or `[batch · num_heads, L, S]`.
    pub attn_mask: Option<&'a Var>,
    /// What stands in the place of projected keys, `[batch · num_heads, S, embed_dim / num_heads]`.
    pub static_k: Option<&'a Var>,
    /// What stands in the place of projected values, likewise.
    pub static_v: Option<&'a Var>,
    /// Whether the weights are averaged over the heads.
    pub average_attn_weights: bool,
    /// Whether `attn_mask` is a causal one, which need not be read then.
    pub is_causal: bool,
    /// Whether the batch is the first axis of queries, keys, values and results, not the second.
    pub batch_first: bool,
}

impl<'a> MultiHeadAttentionOptions<'a> {
    /// Gives torch's defaults; without biases, dropout or anything appended, where torch has no default.
    pub fn new(
        embed_dim_to_check: usize,
        num_heads: usize,
        in_proj_weight: InProjection<'a>,
        out_proj_weight: &'a Var,
    ) -> Self {
        MultiHeadAttentionOptions {
            embed_dim_to_check,
            num_heads,
            in_proj_weight,
            in_proj_bias: None,
            bias_k: None,
            bias_v: None,
            add_zero_attn: false,
            dropout_p: None,
            out_proj_weight,
            out_proj_bias: None,
            training: true,
            key_padding_mask: None,
            need_weights: true,
            attn_mask: None,
            static_k: None,
            static_v: None,
            average_attn_weights: true,
            is_causal: false,
            batch_first: false,
        }
    }
}

/// Turns a mask of flags, true where masked, into one that is added before a softmax: -∞ there, 0 elsewhere.
/// One of numbers gets the type `dtype`.
///
/// # Errors
///
/// torch's words, which name the mask, if it is of whole numbers.
///
/// Source: `torch.nn.functional._canonical_mask`.
pub fn canonical_mask(mask: &Var, name: &str, dtype: Dtype) -> Result<Var, String> {
    match mask.dtype() {
        // The logarithm of 1 is 0, that of 0 is -∞.
        Dtype::Bool => Ok((-mask.to(dtype) + 1.0).log()),
        of if !of.is_float() => {
            Err(format!("only bool and floating types of {name} are supported"))
        }
        of if of != dtype => Ok(mask.to(dtype)),
        _ => Ok(mask.clone()),
    }
}
