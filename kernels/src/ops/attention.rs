//! `scaled_dot_product_attention`: `softmax(query · keyᵀ · scale + mask) · value`, written with other ops.

use super::reduce::no_such_axis;
use crate::dtype::Dtype;
use crate::program::trace::{Trace, Var};
use crate::shape::Shape;

/// The options of [`Var::scaled_dot_product_attention`], with torch's defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionOptions<'a> {
    /// Which keys each query sees: flags, false for those that it does not see, or numbers that are added
    /// before the softmax. Broadcast to `[.., L, S]`.
    pub attn_mask: Option<&'a Var>,
    /// The probability, `[]`, with which each weight becomes 0; `None` for no dropout.
    pub dropout_p: Option<&'a Var>,
    /// Whether query number `i` sees the keys up to number `i` only.
    pub is_causal: bool,
    /// What the products are multiplied by; `1/√E` if `None`.
    pub scale: Option<f64>,
    /// Whether each head of `key` and `value` serves several neighboring heads of the query.
    pub enable_gqa: bool,
}

/// Gives 0 at and below the diagonal and -∞ above it, for queries `L` and keys `S`: `[L, S]`.
///
/// Source: `torch.nn.Transformer.generate_square_subsequent_mask`, for rectangles too.
pub fn causal_mask(trace: &Trace, dtype: Dtype, queries: usize, keys: usize) -> Var {
    // The logarithm of 1 is 0, that of 0 is -∞.
    trace.constant(1.0, dtype, [queries, keys]).tril(0).log()
}

impl Var {
    /// Mixes the rows of `value` for each query, by how well its keys fit:
    /// `softmax(query · keyᵀ · scale + mask) · value`.
    ///
    /// A query that sees no key gets 0.
    ///
    /// # Shape
    ///
    /// `self` is the query, `[.., Hq, L, E]`, `key` `[.., H, S, E]` and `value` `[.., H, S, Ev]`; the result is
    /// `[.., Hq, L, Ev]`. Leading axes broadcast, the heads `H` among them, unless `enable_gqa`: then head `h` of
    /// the query reads head `h / (Hq / H)`.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::dtype::Dtype;
    /// # use neurarch_kernels::ops::attention::AttentionOptions;
    /// # use neurarch_kernels::testing::{Array, evaluate};
    /// let query = Array::new(Dtype::F32, [2, 1], [1.0, 1.0]);
    /// let key = Array::new(Dtype::F32, [2, 1], [0.0, 0.0]);
    /// let value = Array::new(Dtype::F32, [2, 1], [3.0, 5.0]);
    /// let causal = AttentionOptions { is_causal: true, ..AttentionOptions::default() };
    /// let y = evaluate(
    ///     |v| v[0].scaled_dot_product_attention(&v[1], &v[2], causal),
    ///     &[query, key, value],
    ///     &[],
    /// );
    /// assert_eq!(y.elements, [3.0, 4.0]);
    /// ```
    ///
    /// Source: `torch.nn.functional.scaled_dot_product_attention`.
    #[must_use]
    pub fn scaled_dot_product_attention(
        &self,
        key: &Var,
        value: &Var,
        options: AttentionOptions<'_>,
    ) -> Var {
        if let Err(message) = check(self, key, value, &options) {
            return self.trace().fail(message);
        }
        let (queries, keys, dtype) =
            (self.shape()[rows(self)], key.shape()[rows(key)], self.dtype());
        let width = self.shape()[rows(self) + 1];
        let (key, value) = match options.enable_gqa {
            true => (key.repeat_heads(self), value.repeat_heads(self)),
            false => (key.clone(), value.clone()),
        };
        let scale = options.scale.unwrap_or_else(|| 1.0 / (width as f64).sqrt());
        let scores = (self * scale).matmul(&key.mt());
        let mask = match options.attn_mask {
            _ if options.is_causal => Some(causal_mask(self.trace(), dtype, queries, keys)),
            Some(mask) if mask.dtype() == Dtype::Bool => Some(mask.to(dtype).log()),
            Some(mask) if mask.dtype() == dtype => Some(mask.clone()),
            Some(mask) => Some(mask.to(dtype)),
            None => None,
        };
        let weights = match mask {
            Some(mask) => match scores.shape().broadcast(mask.shape()) {
                Some(shape) if shape != *scores.shape() && scores.id().is_some() => {
                    return self.trace().fail(format!(
                        "output with shape {} doesn't match the broadcast shape {shape}",
                        scores.shape()
                    ));
                }
                _ => (scores + mask).safe_softmax(-1),
            },
            None => scores.softmax(-1),
        };
        let weights = match options.dropout_p {
            Some(p) => weights.dropout(p),
            None => weights,
        };
        weights.matmul(&value)
    }

    /// Repeats each head as often as there are heads of `query` for it.
    fn repeat_heads(&self, query: &Var) -> Var {
        let (axis, wanted) = (rows(self) - 1, query.shape()[rows(query) - 1]);
        let shape = self.shape();
        let (leading, [heads, rest @ ..]) = shape.split_at(axis) else { return self.clone() };
        let times = wanted / (*heads).max(1);
        let with = |middle: &[usize]| -> Shape {
            leading.iter().chain(middle).chain(rest).copied().collect()
        };
        self.reshape(with(&[*heads, 1])).expand(with(&[*heads, times])).reshape(with(&[wanted]))
    }
}

/// Gives the axis that counts queries or keys: the last but one.
fn rows(x: &Var) -> usize {
    x.shape().rank() - 2
}

/// Checks what the function takes, in torch's words.
fn check(
    query: &Var,
    key: &Var,
    value: &Var,
    options: &AttentionOptions<'_>,
) -> Result<(), String> {
    let [q, k, v] = [query, key, value].map(|x| x.shape().rank());
    if q < 2 || k < 2 || v < 2 {
        return Err(format!(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: {q} \
             key.dim: {k} and value.dim: {v} instead."
        ));
    }
    let [q, k, v] = [query, key, value].map(Var::dtype);
    if q != k || q != v {
        return Err(format!(
            "Expected query, key, and value to have the same dtype, but got query.dtype: {q} key.dtype: {k} \
             and value.dtype: {v} instead."
        ));
    }
    if let Some(mask) = options.attn_mask.map(Var::dtype) {
        if options.is_causal {
            return Err(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when \
                        is_causal=True"
                    .to_owned(),
            );
        }
        if !matches!(mask, Dtype::Bool | Dtype::F32) && mask != q {
            return Err(format!(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got \
                 attn_mask.dtype: {mask} and  query.dtype: {q} instead."
            ));
        }
    }
    if options.enable_gqa {
        let mut heads = [0; 3];
        for (heads, x) in heads.iter_mut().zip([query, key, value]) {
            let axis = x.shape().axis(-3).ok_or_else(|| no_such_axis(-3, x.shape()).0)?;
            *heads = x.shape()[axis];
        }
        if !heads[0].is_multiple_of(heads[1]) || !heads[0].is_multiple_of(heads[2]) {
            return Err(
                "Number of heads in key and value must divide the number of heads in query"
                    .to_owned(),
            );
        }
    }
    Ok(())
}
