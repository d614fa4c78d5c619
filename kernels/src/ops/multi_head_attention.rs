//! `multi_head_attention_forward`: three projections, attention of several heads, and a projection of what the
//! heads give, written with other ops.

mod inputs;

use crate::ir::dtype::Dtype;
use crate::ir::shape::Shape;
use crate::ir::trace::Var;
use crate::ops::attention::scaled_dot_product::AttentionOptions;

use inputs::{Inputs, rows};

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

impl Var {
    /// Projects queries, keys and values, lets each of `num_heads` parts of a query mix that part of the values
    /// ([`scaled_dot_product_attention`](Var::scaled_dot_product_attention)), and projects what the parts give.
    /// Gives the weights of the mixture, too, unless `need_weights` is false.
    ///
    /// A query that sees no key gets NaN with `need_weights` and 0 without.
    ///
    /// # Shape
    ///
    /// `self`, the queries, is `[L, batch, embed_dim]`, `key` `[S, batch, kdim]` and `value` `[S, batch, vdim]`, or
    /// all without `batch`; `kdim` and `vdim` are `embed_dim` unless there are separate weights. The result is as
    /// the queries, the weights are `[batch, L, S]`, or `[batch, num_heads, L, S]` without `average_attn_weights`.
    /// What is appended to the keys counts as theirs.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::ops::attention::multi_head::{InProjection, MultiHeadAttentionOptions};
    /// # use neurarch_kernels::ir::trace::Trace;
    /// # use neurarch_kernels::ir::shape::Type;
    /// let trace = Trace::new();
    /// let of = |shape: &[usize]| trace.input(Type::new(Dtype::F32, shape));
    /// let (query, key) = (of(&[5, 2, 4]), of(&[3, 2, 4]));
    /// let (in_proj, out_proj) = (of(&[12, 4]), of(&[4, 4]));
    /// let options = MultiHeadAttentionOptions::new(4, 2, InProjection::Packed(&in_proj), &out_proj);
    /// let (y, weights) = query.multi_head_attention_forward(&key, &key, options);
    /// assert_eq!(y.ty().to_string(), "f32[5, 2, 4]");
    /// assert_eq!(weights.unwrap().ty().to_string(), "f32[2, 5, 3]");
    /// ```
    ///
    /// Source: `torch.nn.functional.multi_head_attention_forward`. `batch_first` is an option of torch's layer only,
    /// which moves axes. A mask of numbers is converted to the type of the queries; `bias_k` and `bias_v` are
    /// repeated for each item of the batch; masks have room for one row of them, so that with a mask others are refused.
    #[must_use]
    pub fn multi_head_attention_forward(
        &self,
        key: &Var,
        value: &Var,
        options: MultiHeadAttentionOptions<'_>,
    ) -> (Var, Option<Var>) {
        let trace = self.trace();
        let poison = || (trace.poison(), options.need_weights.then(|| trace.poison()));
        if trace.error().is_some() {
            return poison();
        }
        match Inputs::new([self, key, value], options) {
            Ok(inputs) => inputs.attend(),
            Err(message) => {
                trace.fail(message);
                poison()
            }
        }
    }
}

impl Inputs<'_> {
    /// Projects one of the three inputs, with part `part` of the weights and of the bias.
    fn project(&self, x: &Var, part: usize) -> Var {
        let dim = self.options.embed_dim_to_check;
        let range = part * dim..(part + 1) * dim;
        let weight = match self.options.in_proj_weight {
            InProjection::Packed(weight) => weight.slice(0, range.clone()),
            InProjection::Separate(weights) => weights[part].clone(),
        };
        let bias = self.options.in_proj_bias.map(|bias| bias.slice(0, range));
        x.linear(&weight, bias.as_ref())
    }

    /// Says whether the sequence is the first axis and the batch the second.
    fn is_sequence_first(&self) -> bool {
        self.is_batched && !self.options.batch_first
    }

    /// Gives what was projected as `[batch, heads, length, features]`.
    fn heads(&self, x: &Var, length: usize) -> Var {
        let (heads, width) = (self.options.num_heads, self.width());
        match self.is_sequence_first() {
            true => x.reshape([length, self.batch, heads, width]).permute(&[1, 2, 0, 3]),
            false => x.reshape([self.batch, length, heads, width]).permute(&[0, 2, 1, 3]),
        }
    }

    /// Gives the keys, part 1, or the values, part 2, of all heads, with what is appended to them.
    fn seen(&self, x: &Var, part: usize) -> Var {
        let (fixed, bias) = match part {
            1 => (self.options.static_k, self.options.bias_k),
            _ => (self.options.static_v, self.options.bias_v),
        };
        let (heads, width) = (self.options.num_heads, self.width());
        let own = match fixed {
            Some(fixed) => fixed.reshape([self.batch, heads, fixed.shape()[1], width]),
            None => self.heads(&self.project(x, part), self.projected),
        };
        let shape = |rows| [self.batch, heads, rows, width];
        let mut parts = vec![own];
        parts.extend(bias.filter(|bias| rows(bias) > 0).map(|bias| {
            let of_heads = bias.reshape([rows(bias), heads, width]).permute(&[1, 0, 2]);
            of_heads.reshape([1, heads, rows(bias), width]).expand(shape(rows(bias)))
        }));
        if self.options.add_zero_attn {
            parts.push(x.trace().constant(0.0, parts[0].dtype(), shape(1)));
        }
        match &*parts {
            [x] => x.clone(),
            parts => Var::cat(&parts.iter().collect::<Vec<_>>(), 2),
        }
    }

    /// Joins both masks to what is added to the products; appended keys are not masked.
    fn mask(&self) -> Option<Var> {
        let of_heads = [self.batch, self.options.num_heads, self.queries];
        let attn_mask = self.attn_mask.as_ref().map(|mask| match **mask.shape() {
            [_, _, keys] => {
                let [batch, heads, queries] = of_heads;
                self.unmasked(mask).reshape([batch, heads, queries, keys + self.appended()])
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
            _ => Var::cat(&[mask, &mask.trace().constant(0.0, mask.dtype(), shape)], -1),
        }
    }

    /// Gives the result and the weights.
    fn attend(self) -> (Var, Option<Var>) {
        let [query, key, value] = self.given;
        let dim = self.options.embed_dim_to_check;
        let heads = self.heads(&self.project(query, 0), self.queries);
        let (key, value) = (self.seen(key, 1), self.seen(value, 2));
        let (attended, weights) = match self.options.need_weights {
            true => self.mix_by_weights(&heads, &key, &value),
            false => (self.mix(&heads, &key, &value), None),
        };
        let joined = match self.is_sequence_first() {
            true => attended.permute(&[2, 0, 1, 3]).reshape([self.queries, self.batch, dim]),
            false => attended.permute(&[0, 2, 1, 3]).reshape([self.batch, self.queries, dim]),
        };
        let result = joined.linear(self.options.out_proj_weight, self.options.out_proj_bias);
        let [leading @ .., _] = &**query.shape() else { return (result, weights) };
        let last = result.shape().last().copied();
        let result = result.reshape(leading.iter().copied().chain(last).collect::<Shape>());
        (result, weights.map(|weights| self.weights(&weights)))
    }

    /// Gives the probability of dropout, if there is some.
    fn dropout_p(&self) -> Option<&Var> {
        self.options.dropout_p.filter(|_| self.options.training)
    }

    /// Mixes the values of all heads, and gives the weights.
    fn mix_by_weights(&self, query: &Var, key: &Var, value: &Var) -> (Var, Option<Var>) {
        let scale = (1.0 / self.width() as f64).sqrt();
        let scores = (query * scale).matmul(&key.mt());
        let scores = match self.mask() {
            Some(mask) => scores + mask,
            None => scores,
        };
        let weights = scores.softmax(-1);
        let weights = match self.dropout_p() {
            Some(p) => weights.dropout(p),
            None => weights,
        };
        (weights.matmul(value), Some(weights))
    }

    /// Mixes the values of all heads.
    fn mix(&self, query: &Var, key: &Var, value: &Var) -> Var {
        let is_causal = self.is_hint_enough();
        let mask = self.mask();
        let options = AttentionOptions {
            attn_mask: mask.as_ref(),
            dropout_p: self.dropout_p(),
            is_causal,
            ..AttentionOptions::default()
        };
        query.scaled_dot_product_attention(key, value, options)
    }

    /// Gives the weights as they were asked for.
    fn weights(&self, weights: &Var) -> Var {
        let (weights, heads) = match self.options.average_attn_weights {
            true => (weights.mean(&[1], false), None),
            false => (weights.clone(), Some(self.options.num_heads)),
        };
        let batch = self.is_batched.then_some(self.batch);
        let sizes = [self.queries, self.keys + self.appended()];
        weights.reshape(batch.into_iter().chain(heads).chain(sizes).collect::<Shape>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::shape::Type;
    use crate::ir::trace::Trace;
    use crate::testing::{Array, check_gradient, check_layouts, evaluate, same_bits};

    fn of(shape: &[usize], pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.5).sin())
    }

    fn all(shapes: &[&[usize]]) -> Vec<Array> {
        shapes.iter().zip(1..).map(|(shape, k)| of(shape, 0.4 * f64::from(k))).collect()
    }

    fn flags(shape: &[usize], masked: impl Fn(usize) -> bool) -> Array {
        Array::from_fn(Dtype::Bool, shape, |i| f64::from(u8::from(masked(i))))
    }

    /// The result and the weights behind each other.
    fn joined((y, weights): (Var, Option<Var>)) -> Var {
        match weights {
            Some(weights) => Var::cat(&[&y.flatten(0, -1), &weights.flatten(0, -1)], 0),
            None => y,
        }
    }

    /// Packed weights, all that is appended, and flags.
    fn packed(v: &[Var]) -> Var {
        let options = MultiHeadAttentionOptions {
            in_proj_bias: Some(&v[4]),
            bias_k: Some(&v[5]),
            bias_v: Some(&v[6]),
            add_zero_attn: true,
            key_padding_mask: Some(&v[7]),
            attn_mask: Some(&v[8]),
            ..MultiHeadAttentionOptions::new(4, 2, InProjection::Packed(&v[2]), &v[3])
        };
        joined(v[0].multi_head_attention_forward(&v[1], &v[1], options))
    }

    fn of_packed() -> Vec<Array> {
        let shapes: [&[usize]; 7] =
            [&[2, 2, 4], &[3, 2, 4], &[12, 4], &[4, 4], &[12], &[1, 1, 4], &[1, 1, 4]];
        let masks = [flags(&[2, 3], |i| i == 4), flags(&[2, 3], |i| i == 2)];
        all(&shapes).into_iter().chain(masks).collect()
    }

    /// Separate weights, the batch first, each head's weights.
    fn separate(v: &[Var]) -> Var {
        let options = MultiHeadAttentionOptions {
            batch_first: true,
            average_attn_weights: false,
            ..MultiHeadAttentionOptions::new(
                4,
                2,
                InProjection::Separate([&v[3], &v[4], &v[5]]),
                &v[6],
            )
        };
        joined(v[0].multi_head_attention_forward(&v[1], &v[2], options))
    }

    /// Static keys and values, and no weights.
    fn fixed(v: &[Var]) -> Var {
        let options = MultiHeadAttentionOptions {
            need_weights: false,
            static_k: Some(&v[2]),
            static_v: Some(&v[3]),
            key_padding_mask: Some(&v[5]),
            ..MultiHeadAttentionOptions::new(4, 2, InProjection::Packed(&v[1]), &v[4])
        };
        joined(v[0].multi_head_attention_forward(&v[0], &v[0], options))
    }

    #[test]
    fn gradients_are_the_slopes_of_forward() {
        check_gradient(packed, &of_packed(), 1e-6);
        let shapes: [&[usize]; 7] =
            [&[2, 2, 4], &[2, 3, 3], &[2, 3, 2], &[4, 4], &[4, 3], &[4, 2], &[3, 4]];
        check_gradient(separate, &all(&shapes), 1e-6);
        check_layouts(separate, &all(&shapes));
        let shapes: [&[usize]; 5] = [&[3, 1, 4], &[12, 4], &[2, 2, 2], &[2, 2, 2], &[4, 4]];
        let mut inputs = all(&shapes);
        inputs.push(of(&[1, 2], 0.7));
        check_gradient(fixed, &inputs, 1e-6);
    }

    #[test]
    fn keys_that_are_said_to_be_causal_are_those_that_the_mask_leaves() {
        let inputs = all(&[&[3, 2, 4], &[12, 4], &[4, 4]]);
        let attend = |v: &[Var], is_causal: bool| {
            let mask = crate::ops::attention::scaled_dot_product::causal_mask(
                v[0].trace(),
                Dtype::F64,
                3,
                3,
            );
            let options = MultiHeadAttentionOptions {
                need_weights: false,
                attn_mask: Some(&mask),
                is_causal,
                ..MultiHeadAttentionOptions::new(4, 2, InProjection::Packed(&v[1]), &v[2])
            };
            v[0].multi_head_attention_forward(&v[0], &v[0], options).0
        };
        let [read, said] =
            [false, true].map(|is_causal| evaluate(|v| attend(v, is_causal), &inputs, &[]));
        assert!(same_bits(&read.elements, &said.elements));
    }

    /// Everything by name that can be given besides queries; the weights are packed unless there are three.
    fn error(
        [query, key, value]: [&[usize]; 3],
        num_heads: usize,
        given: &[(&str, &[usize])],
    ) -> String {
        let trace = Trace::new();
        let of = |shape: &[usize]| trace.input(Type::new(Dtype::F32, shape));
        let (query, key, value) = (of(query), of(key), of(value));
        let given: Vec<_> = given.iter().map(|&(name, shape)| (name, of(shape))).collect();
        let get =
            |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        let usual = [of(&[12, 4]), of(&[4, 4])];
        let weight = match [get("q"), get("k"), get("v")] {
            [Some(q), Some(k), Some(v)] => InProjection::Separate([q, k, v]),
            _ => InProjection::Packed(get("in_proj_weight").unwrap_or(&usual[0])),
        };
        let out = get("out_proj_weight").unwrap_or(&usual[1]);
        let options = MultiHeadAttentionOptions {
            in_proj_bias: get("in_proj_bias"),
            bias_k: get("bias_k"),
            bias_v: get("bias_v"),
            key_padding_mask: get("key_padding_mask"),
            attn_mask: get("attn_mask"),
            static_k: get("static_k"),
            static_v: get("static_v"),
            ..MultiHeadAttentionOptions::new(4, num_heads, weight, out)
        };
        let _ = query.multi_head_attention_forward(&key, &value, options);
        trace.error().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn what_torch_refuses_is_refused_in_its_words() {
        type Given<'a> = &'a [(&'a str, &'a [usize])];
        let same: [&[usize]; 3] = [&[3, 2, 4]; 3];
        let split: [&[usize]; 3] = [&[3, 2, 4], &[5, 2, 3], &[5, 2, 2]];
        let (q, k, v): (&[usize], &[usize], &[usize]) = (&[4, 4], &[4, 3], &[4, 2]);
        let refusals: [([&[usize]; 3], Given<'_>, &str); 24] = [
            (
                same,
                &[("bias_k", &[1, 2, 4]), ("bias_v", &[1, 2, 4])],
                "Sizes of tensors must match except in dimension 0. Expected size 2 but got size 4 for tensor number \
                 1 in the list.",
            ),
            (
                same,
                &[("bias_k", &[2, 4]), ("bias_v", &[2, 4])],
                "Sizes of tensors must match except in dimension 0. Expected size 2 but got size 4 for tensor number \
                 1 in the list.",
            ),
            (
                same,
                &[("bias_k", &[1, 1, 1, 4]), ("bias_v", &[1, 1, 1, 4])],
                "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor",
            ),
            (
                same,
                &[("bias_k", &[2, 1, 4]), ("bias_v", &[1, 1, 4])],
                "Expected size for first two dimensions of batch2 tensor to be: [4, 5] but got: [4, 4].",
            ),
            (
                same,
                &[("bias_k", &[2, 1, 4]), ("bias_v", &[2, 1, 4]), ("attn_mask", &[3, 3])],
                "The expanded size of the tensor (5) must match the existing size (4) at non-singleton dimension 2.  \
                 Target sizes: [4, 3, 5].  Tensor sizes: [1, 3, 4]",
            ),
            (
                same,
                &[("bias_k", &[0, 1, 4]), ("bias_v", &[0, 1, 4]), ("attn_mask", &[4, 3, 3])],
                "The expanded size of the tensor (3) must match the existing size (4) at non-singleton dimension 2.  \
                 Target sizes: [4, 3, 3].  Tensor sizes: [4, 3, 4]",
            ),
            (
                same,
                &[("bias_k", &[2, 1, 4]), ("bias_v", &[2, 1, 4]), ("key_padding_mask", &[2, 3])],
                "Expected key_padded_mask.shape[1] to be 5, but got 4",
            ),
            (
                same,
                &[("in_proj_weight", &[9, 4])],
                "unflatten: Provided sizes [3, 4] don't multiply up to the size of dim 2 (9) in the input tensor",
            ),
            (
                same,
                &[("in_proj_weight", &[12, 5])],
                "mm: mat1 and mat2 shapes cannot be multiplied (6x4 and 5x4)",
            ),
            (
                same,
                &[("in_proj_bias", &[9])],
                "expecting query bias shape of (4,), but got torch.Size([3])",
            ),
            (
                split,
                &[("q", &[5, 4]), ("k", k), ("v", v)],
                "expecting query weights shape of (4, 4), but got torch.Size([5, 4])",
            ),
            (
                split,
                &[("q", q), ("k", k), ("v", &[5, 4])],
                "expecting value weights shape of (4, 2), but got torch.Size([5, 4])",
            ),
            (same, &[("bias_k", &[1, 1, 4])], "bias_k is set but bias_v is None"),
            (same, &[("bias_v", &[1, 1, 4])], "bias_v is set but bias_k is None"),
            (
                same,
                &[("bias_k", &[1, 1, 5]), ("bias_v", &[1, 1, 5])],
                "Sizes of tensors must match except in dimension 0. Expected size 4 but got size 5 for tensor number \
                 1 in the list.",
            ),
            (
                same,
                &[("out_proj_weight", &[4, 5])],
                "mat1 and mat2 shapes cannot be multiplied (6x4 and 5x4)",
            ),
            (
                same,
                &[("static_k", &[4, 5, 2])],
                "Expected size for first two dimensions of batch2 tensor to be: [4, 5] but got: [4, 3].",
            ),
            (same, &[("static_k", &[3, 5, 2])], "expecting static_k.size(0) of 4, but got 3"),
            (same, &[("static_v", &[4, 5, 3])], "expecting static_v.size(2) of 2, but got 3"),
            (
                same,
                &[("static_k", &[4, 2])],
                "Dimension out of range (expected to be in range of [-2, 1], but got 2)",
            ),
            (
                same,
                &[("static_k", &[4, 5, 2]), ("bias_k", &[1, 1, 4]), ("bias_v", &[1, 1, 4])],
                "bias cannot be added to static key.",
            ),
            (
                same,
                &[("static_v", &[4, 5, 2]), ("bias_k", &[1, 1, 4]), ("bias_v", &[1, 1, 4])],
                "bias cannot be added to static value.",
            ),
            (
                same,
                &[
                    ("static_k", &[4, 5, 2]),
                    ("static_v", &[4, 5, 2]),
                    ("key_padding_mask", &[2, 3]),
                ],
                "Expected key_padded_mask.shape[1] to be 5, but got 3",
            ),
            (
                same,
                &[("attn_mask", &[3, 4])],
                "The shape of the 2D attn_mask is torch.Size([3, 4]), but should be (3, 3).",
            ),
        ];
        for (shapes, given, words) in refusals {
            assert_eq!(error(shapes, 2, given), words);
        }
        assert_eq!(error(same, 3, &[]), "embed_dim 4 not divisible by num_heads 3");
        assert_eq!(error(same, 0, &[]), "integer division or modulo by zero");
        let whole = Trace::new().input(Type::new(Dtype::I64, [3, 3]));
        assert_eq!(
            canonical_mask(&whole, "attn_mask", Dtype::F32).expect_err("it is of whole numbers"),
            "only bool and floating types of attn_mask are supported"
        );
        // Rows of any number are appended, and rows of features alone.
        for shape in [&[2, 1, 4][..], &[0, 1, 4], &[1, 4], &[4]] {
            assert_eq!(error(same, 2, &[("bias_k", shape), ("bias_v", shape)]), "");
        }
        // Another batch of keys is nothing to static ones.
        let fixed: Given<'_> = &[("static_k", &[4, 5, 2]), ("static_v", &[4, 5, 2])];
        assert_eq!(error([&[3, 2, 4], &[3, 7, 4], &[3, 7, 4]], 2, fixed), "");
    }
}
