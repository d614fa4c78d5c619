//! `scaled_dot_product_attention`: `softmax(query · keyᵀ · scale + mask) · value`, written with other ops.

use crate::ir::dtype::Dtype;
use crate::ir::shape::Shape;
use crate::ir::trace::{Function, Trace, Var};
use crate::ops::reduction::reduce::no_such_axis;

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
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::ops::attention::scaled_dot_product::AttentionOptions;
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
        let inputs = [Some(self), Some(key), Some(value)];
        self.trace().function(Function::of_same("scaled_dot_product_attention"), &inputs, |cast| {
            let mask = options.attn_mask.map(cast);
            let options = AttentionOptions { attn_mask: mask.as_ref(), ..options };
            cast(self).plain_attention(&cast(key), &cast(value), options)
        })
    }

    fn plain_attention(&self, key: &Var, value: &Var, options: AttentionOptions<'_>) -> Var {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradient, check_layouts, evaluate, same_bits};

    fn of(shape: impl Into<Shape>, pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.5).sin())
    }

    /// Query with 4 heads, key and value with 2.
    fn grouped() -> [Array; 3] {
        [of([1, 4, 2, 3], 0.7), of([1, 2, 3, 3], 1.1), of([1, 2, 3, 2], 1.7)]
    }

    fn attend(v: &[Var], options: AttentionOptions<'_>) -> Var {
        v[0].scaled_dot_product_attention(&v[1], &v[2], options)
    }

    #[test]
    fn gradients_are_the_slopes_of_forward() {
        let mask = Array::new(Dtype::F64, [2, 3], [0.0, 0.5, f64::NEG_INFINITY, -1.0, 0.0, 1.0]);
        let [query, key, value] = grouped();
        let inputs = [query, key, value];
        let grouped = AttentionOptions { enable_gqa: true, ..AttentionOptions::default() };
        let causal = AttentionOptions { is_causal: true, scale: Some(-2.0), ..grouped };
        check_gradient(|v| attend(v, causal), &inputs, 1e-6);
        check_layouts(|v| attend(v, causal), &inputs);
        let masked = |v: &[Var]| {
            let mask = v[0].trace().constant(0.0, Dtype::F64, [2, 3]);
            let options = AttentionOptions { attn_mask: Some(&mask), ..grouped };
            attend(v, options)
        };
        check_gradient(masked, &inputs, 1e-6);
        let added = |v: &[Var]| {
            let options = AttentionOptions { attn_mask: Some(&v[3]), ..grouped };
            attend(v, options)
        };
        let [query, key, value] = inputs;
        check_layouts(added, &[query, key, value, mask]);
    }

    #[test]
    fn heads_that_share_keys_are_those_that_have_copies() {
        let [query, key, value] = grouped();
        let options = AttentionOptions { enable_gqa: true, ..AttentionOptions::default() };
        let shared =
            evaluate(|v| attend(v, options), &[query.clone(), key.clone(), value.clone()], &[]);
        let copies = |x: &Array| {
            let half = x.elements.len() / 2;
            let heads = x.elements.chunks(half).flat_map(|head| [head, head]).flatten().copied();
            let shape = [1, 4, x.ty.shape[2], x.ty.shape[3]];
            Array::new(Dtype::F64, shape, heads.collect::<Vec<_>>())
        };
        let inputs = [query, copies(&key), copies(&value)];
        let copied = evaluate(|v| attend(v, AttentionOptions::default()), &inputs, &[]);
        assert!(same_bits(&shared.elements, &copied.elements));
    }

    #[test]
    fn a_query_that_sees_no_key_gets_zero() {
        let [query, key, value] = [of([2, 3], 0.7), of([3, 3], 1.1), of([3, 2], 1.7)];
        let flags = Array::new(Dtype::Bool, [2, 3], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let y = evaluate(
            |v| {
                let options =
                    AttentionOptions { attn_mask: Some(&v[3]), ..AttentionOptions::default() };
                attend(v, options)
            },
            &[query, key, value.clone(), flags],
            &[],
        );
        // The second query sees the second value alone.
        assert_eq!(y.elements, [0.0, 0.0, value.elements[2], value.elements[3]]);
    }

    #[test]
    fn what_torch_refuses_is_refused_in_its_words() {
        let error = |shapes: [&[usize]; 3], is_causal: bool, mask: Option<(Dtype, &[usize])>| {
            let trace = Trace::new();
            let [q, k, v] =
                shapes.map(|shape| trace.input(crate::ir::shape::Type::new(Dtype::F32, shape)));
            let mask =
                mask.map(|(dtype, shape)| trace.input(crate::ir::shape::Type::new(dtype, shape)));
            let options = AttentionOptions {
                attn_mask: mask.as_ref(),
                is_causal,
                enable_gqa: shapes[0].len() > 2,
                ..AttentionOptions::default()
            };
            let _ = q.scaled_dot_product_attention(&k, &v, options);
            trace.error().map(|error| error.message).unwrap_or_default()
        };
        let two: [&[usize]; 3] = [&[2, 3]; 3];
        assert_eq!(
            error([&[3], &[2, 3], &[2, 3]], false, None),
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: 1 key.dim: 2 \
             and value.dim: 2 instead."
        );
        assert_eq!(
            error(two, true, Some((Dtype::F32, &[2, 2]))),
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
        );
        assert_eq!(
            error([&[5, 2, 3], &[2, 2, 3], &[2, 2, 3]], false, None),
            "Number of heads in key and value must divide the number of heads in query"
        );
        assert_eq!(
            error(two, false, Some((Dtype::F32, &[2, 2, 2]))),
            "output with shape [2, 2] doesn't match the broadcast shape [2, 2, 2]"
        );
        assert!(
            error(two, false, Some((Dtype::I64, &[2, 2]))).starts_with(
                "Expected attn_mask dtype to be bool or float or to match query dtype"
            )
        );
    }
}
