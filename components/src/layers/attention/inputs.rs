//! What a call of [`MultiheadAttention`] is given: arguments, masks and shapes, checked in torch's words.

use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::trace::Var;
use neurarch_kernels::program::tree::Arguments;
use neurarch_kernels::shape::Shape;

use super::MultiheadAttention;
use crate::module::Call;
use crate::repr::tuple;
use crate::signature::Refused;

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

/// A call of the layer, its arguments checked.
pub(super) struct Inputs<'a> {
    pub(super) layer: &'a MultiheadAttention,
    pub(super) call: &'a Call<'a>,
    pub(super) query: Var,
    pub(super) key: Var,
    pub(super) value: Var,
    pub(super) key_padding_mask: Option<Var>,
    pub(super) attn_mask: Option<Var>,
    pub(super) need_weights: bool,
    pub(super) average_attn_weights: bool,
    pub(super) is_causal: bool,
    pub(super) is_batched: bool,
    /// Sizes: queries, keys, batch.
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) batch: usize,
}

impl<'a> Inputs<'a> {
    /// Matches and checks the arguments of a call.
    ///
    /// # Errors
    ///
    /// [`Refused`] if they do not fit; that is recorded at the layer.
    pub(super) fn new(
        layer: &'a MultiheadAttention,
        call: &'a Call<'a>,
        arguments: Arguments,
    ) -> Result<Self, Refused> {
        let [query, key, value, padding, need_weights, mask, average, is_causal] =
            call.bind(arguments, NAMES, 3)?;
        let (dim, heads) = (layer.embed_dim, layer.num_heads);
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
        let dtype = query.dtype();
        let mask_of =
            |name: &str, mask| canonical_mask(call, call.optional_value(name, mask)?, name, dtype);
        let mut inputs = Inputs {
            layer,
            call,
            key: call.value(NAMES[1], key)?,
            value: call.value(NAMES[2], value)?,
            key_padding_mask: mask_of(NAMES[3], padding)?,
            need_weights: call.flag(NAMES[4], need_weights, true)?,
            attn_mask: mask_of(NAMES[5], mask)?,
            average_attn_weights: call.flag(NAMES[6], average, true)?,
            is_causal: call.flag(NAMES[7], is_causal, false)?,
            is_batched: query.shape().rank() == 3,
            query,
            queries: 0,
            keys: 0,
            batch: 0,
        };
        inputs.check().map_err(|message| call.fail(message))?;
        Ok(inputs)
    }

    /// Gives the sizes as torch has them inside: sequence, batch, features.
    fn inside(&self, x: &Var) -> [usize; 3] {
        match **x.shape() {
            [batch, length, features] if self.layer.batch_first => [length, batch, features],
            [length, batch, features] => [length, batch, features],
            [length, features] => [length, 1, features],
            _ => [0; 3],
        }
    }

    /// Checks shapes, and reads the sizes, in the order and the words of
    /// `torch.nn.functional.multi_head_attention_forward`.
    fn check(&mut self) -> Result<(), String> {
        self.check_ranks()?;
        if self.is_causal && self.attn_mask.is_none() {
            return Err("Need attn_mask if specifying the is_causal hint. You may use the Transformer module \
                        method `generate_square_subsequent_mask` to create this mask."
                .to_owned());
        }
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|x| self.inside(x));
        let (dim, heads) = (self.layer.embed_dim, self.layer.num_heads);
        if q[2] != dim {
            return Err(format!("was expecting embedding dimension of {dim}, but got {}", q[2]));
        }
        let size = |sizes: &[usize]| format!("torch.Size({})", Shape::from(sizes));
        let is_packed = self.layer.is_packed();
        if !is_packed && k[..2] != v[..2] {
            let (k, v) = (size(&k[..2]), size(&v[..2]));
            return Err(format!("key's sequence and batch dims {k} do not match value's {v}"));
        }
        if is_packed && k != v {
            return Err(format!("key shape {} does not match value shape {}", size(&k), size(&v)));
        }
        let [kdim, vdim] = self.layer.dims();
        for (what, features, expected) in [("key", k[2], kdim), ("value", v[2], vdim)] {
            if is_packed && features != expected {
                return Err(format!(
                    "mm: mat1 and mat2 shapes cannot be multiplied ({}x{features} and {dim}x{dim})",
                    k[0] * k[1]
                ));
            }
            if features != expected {
                return Err(format!(
                    "expecting {what} weights shape of {}, but got {}",
                    tuple(&[dim, features]),
                    size(&[dim, expected])
                ));
            }
        }
        [self.queries, self.batch, _] = q;
        self.keys = k[0];
        if let Some(mask) = self.attn_mask.as_ref().filter(|_| !self.is_hint_enough()) {
            let flat = [self.queries, self.keys];
            let deep = [self.batch * heads, self.queries, self.keys];
            let (rank, expected) = match mask.shape().rank() {
                2 => (2, &flat[..]),
                _ => (3, &deep[..]),
            };
            if **mask.shape() != *expected {
                return Err(format!(
                    "The shape of the {rank}D attn_mask is {}, but should be {}.",
                    size(mask.shape()),
                    tuple(expected)
                ));
            }
        }
        if k[1] != self.batch {
            let (parts, width) = (self.batch * heads, dim / heads);
            let [keys, batch, _] = k;
            return Err(format!(
                "shape '[{keys}, {parts}, {width}]' is invalid for input of size {}",
                keys * batch * dim
            ));
        }
        let Some(mask) = &self.key_padding_mask else { return Ok(()) };
        let (batch, keys) = match **mask.shape() {
            [batch, keys] => (batch, keys),
            _ => (1, mask.shape()[0]),
        };
        for (axis, found, expected) in [(0, batch, self.batch), (1, keys, self.keys)] {
            if found != expected {
                let more = if axis == 1 { self.appended() } else { 0 };
                let (expected, found) = (expected + more, found + more);
                return Err(format!(
                    "Expected key_padded_mask.shape[{axis}] to be {expected}, but got {found}"
                ));
            }
        }
        Ok(())
    }

    /// Checks how many axes there are. Source: `torch.nn.functional._mha_shape_check`.
    fn check_ranks(&self) -> Result<(), String> {
        let rank = |x: &Var| x.shape().rank();
        let (query, key, value) = (rank(&self.query), rank(&self.key), rank(&self.value));
        let (kind, axes) = match query {
            3 => ("batched (3-D)", 3),
            2 => ("unbatched (2-D)", 2),
            _ => {
                return Err(format!(
                    "query should be unbatched 2D or batched 3D tensor but received {query}-D query tensor"
                ));
            }
        };
        if key != axes || value != axes {
            return Err(format!(
                "For {kind} `query`, expected `key` and `value` to be {axes}-D but found {key}-D and \
                 {value}-D tensors respectively"
            ));
        }
        if let Some(found) = self.key_padding_mask.as_ref().map(rank).filter(|&n| n != axes - 1) {
            return Err(format!(
                "For {kind} `query`, expected `key_padding_mask` to be `None` or {}-D but found {found}-D \
                 tensor instead",
                axes - 1
            ));
        }
        let Some(mask) = &self.attn_mask else { return Ok(()) };
        let found = rank(mask);
        if found != 2 && found != 3 {
            return Err(format!(
                "For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {found}-D \
                 tensor instead"
            ));
        }
        let expected = [self.layer.num_heads, self.query.shape()[0], self.key.shape()[0]];
        if !self.is_batched && found == 3 && **mask.shape() != expected {
            return Err(format!(
                "Expected `attn_mask` shape to be {} but got torch.Size({})",
                tuple(&expected),
                mask.shape()
            ));
        }
        Ok(())
    }

    /// Says whether the mask need not be read, since it is said to be causal and nothing else counts.
    pub(super) fn is_hint_enough(&self) -> bool {
        self.is_causal && self.key_padding_mask.is_none() && !self.need_weights
    }

    /// Counts the keys that are appended.
    pub(super) fn appended(&self) -> usize {
        usize::from(self.layer.add_bias_kv) + usize::from(self.layer.add_zero_attn)
    }
}

/// Turns a mask of flags, true where masked, into one that is added before a softmax: -∞ there, 0 elsewhere.
/// One of numbers stays.
///
/// Source: `torch.nn.functional._canonical_mask`.
pub(in crate::layers) fn canonical_mask(
    call: &Call<'_>,
    mask: Option<Var>,
    name: &str,
    dtype: Dtype,
) -> Result<Option<Var>, Refused> {
    match mask {
        // The logarithm of 1 is 0, that of 0 is -∞.
        Some(mask) if mask.dtype() == Dtype::Bool => Ok(Some((-mask.to(dtype) + 1.0).log())),
        Some(mask) if !mask.dtype().is_float() => {
            Err(call.fail(format!("only bool and floating types of {name} are supported")))
        }
        Some(mask) if mask.dtype() != dtype => Ok(Some(mask.to(dtype))),
        mask => Ok(mask),
    }
}
