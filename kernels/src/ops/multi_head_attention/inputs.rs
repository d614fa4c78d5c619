//! What [`Var::multi_head_attention_forward`] is called with: shapes and masks, checked in torch's words and in
//! torch's order.

use super::{InProjection, MultiHeadAttentionOptions, canonical_mask};
use crate::ir::shape::{Shape, tuple};
use crate::ir::trace::Var;
use crate::ops::reduction::reduce::no_such_axis;

/// What the three inputs are called.
const NAMES: [&str; 3] = ["query", "key", "value"];

/// What the function is called with, checked.
pub(super) struct Inputs<'a> {
    /// Queries, keys and values.
    pub(super) given: [&'a Var; 3],
    pub(super) options: MultiHeadAttentionOptions<'a>,
    /// Both masks are added before the softmax.
    pub(super) key_padding_mask: Option<Var>,
    /// `None`, too, where it need not be read.
    pub(super) attn_mask: Option<Var>,
    pub(super) is_batched: bool,
    /// Sizes: queries, batch, keys given and keys that are seen, which are others if they are static.
    pub(super) queries: usize,
    pub(super) batch: usize,
    pub(super) projected: usize,
    pub(super) keys: usize,
}

impl<'a> Inputs<'a> {
    /// Checks everything.
    ///
    /// # Errors
    ///
    /// torch's words.
    pub(super) fn new(
        given: [&'a Var; 3],
        options: MultiHeadAttentionOptions<'a>,
    ) -> Result<Self, String> {
        check_ranks(given, &options)?;
        let (dtype, is_batched) = (given[0].dtype(), given[0].shape().rank() == 3);
        let mask_of = |mask: Option<&Var>, name: &str| {
            mask.map(|mask| canonical_mask(mask, name, dtype)).transpose()
        };
        let key_padding_mask = mask_of(options.key_padding_mask, "key_padding_mask")?;
        if options.is_causal && options.attn_mask.is_none() {
            return Err("Need attn_mask if specifying the is_causal hint. You may use the Transformer module \
                        method `generate_square_subsequent_mask` to create this mask."
                .to_owned());
        }
        let mut inputs = Inputs {
            given,
            options,
            key_padding_mask,
            attn_mask: None,
            is_batched,
            queries: 0,
            batch: 0,
            projected: 0,
            keys: 0,
        };
        if !inputs.is_hint_enough() {
            inputs.attn_mask = mask_of(options.attn_mask, "attn_mask")?;
        }
        let sizes = given.map(|x| inputs.inside(x));
        inputs.check_projections(sizes)?;
        [inputs.queries, inputs.batch, _] = sizes[0];
        inputs.projected = sizes[1][0];
        inputs.check_attn_mask()?;
        inputs.check_bias()?;
        inputs.check_batch(sizes[1])?;
        inputs.keys = inputs.check_static()?;
        inputs.check_key_padding_mask()?;
        inputs.check_room()?;
        Ok(inputs)
    }

    /// Gives the sizes as torch has them inside: sequence, batch, features.
    fn inside(&self, x: &Var) -> [usize; 3] {
        match **x.shape() {
            [batch, length, features] if self.options.batch_first => [length, batch, features],
            [length, batch, features] => [length, batch, features],
            [length, features] => [length, 1, features],
            _ => [0; 3],
        }
    }

    /// Says whether the mask need not be read, since it is said to be causal and nothing else counts.
    pub(super) fn is_hint_enough(&self) -> bool {
        let MultiHeadAttentionOptions { is_causal, key_padding_mask, need_weights, .. } =
            self.options;
        is_causal && key_padding_mask.is_none() && !need_weights
    }

    /// Gives the features of one head.
    pub(super) fn width(&self) -> usize {
        self.options.embed_dim_to_check / self.options.num_heads
    }

    /// Counts the keys that are appended.
    pub(super) fn appended(&self) -> usize {
        self.options.bias_k.map_or(0, rows) + usize::from(self.options.add_zero_attn)
    }

    /// Counts the keys for which torch makes room in masks, whatever the rows of `bias_k`.
    fn room(&self) -> usize {
        usize::from(self.options.bias_k.is_some()) + usize::from(self.options.add_zero_attn)
    }

    /// Checks the features of the inputs, and what projects them.
    fn check_projections(&self, sizes: [[usize; 3]; 3]) -> Result<(), String> {
        let [q, k, v] = sizes;
        let (dim, heads) = (self.options.embed_dim_to_check, self.options.num_heads);
        if q[2] != dim {
            return Err(format!("was expecting embedding dimension of {dim}, but got {}", q[2]));
        }
        if heads == 0 {
            return Err("integer division or modulo by zero".to_owned());
        }
        if !dim.is_multiple_of(heads) {
            return Err(format!("embed_dim {dim} not divisible by num_heads {heads}"));
        }
        match self.options.in_proj_weight {
            InProjection::Packed(_) if k != v => {
                let (k, v) = (size(&k), size(&v));
                return Err(format!("key shape {k} does not match value shape {v}"));
            }
            InProjection::Packed(weight) => packed_fits(weight, dim, sizes)?,
            InProjection::Separate(_) if k[..2] != v[..2] => {
                let (k, v) = (size(&k[..2]), size(&v[..2]));
                return Err(format!("key's sequence and batch dims {k} do not match value's {v}"));
            }
            InProjection::Separate(weights) => {
                for ((weight, name), of) in weights.into_iter().zip(NAMES).zip(sizes) {
                    has_shape(&format!("{name} weights"), weight.shape(), &[dim, of[2]])?;
                }
            }
        }
        let Some(bias) = self.options.in_proj_bias.filter(|bias| **bias.shape() != [3 * dim])
        else {
            return Ok(());
        };
        // torch cuts it into three first.
        let [len] = **bias.shape() else {
            return has_shape("in_proj_bias", bias.shape(), &[3 * dim]);
        };
        has_shape("query bias", &[len.div_ceil(3)], &[dim])?;
        has_shape("value bias", &[len.saturating_sub(2 * dim)], &[dim])
    }

    fn check_attn_mask(&self) -> Result<(), String> {
        let Some(mask) = &self.attn_mask else { return Ok(()) };
        let flat = [self.queries, self.projected];
        let deep = [self.batch * self.options.num_heads, self.queries, self.projected];
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
        Ok(())
    }

    /// Checks what is appended to keys and values.
    fn check_bias(&self) -> Result<(), String> {
        let MultiHeadAttentionOptions { bias_k, bias_v, static_k, static_v, .. } = self.options;
        let (bias_k, bias_v) = match (bias_k, bias_v) {
            (Some(bias_k), Some(bias_v)) => (bias_k, bias_v),
            (Some(_), None) => return Err("bias_k is set but bias_v is None".to_owned()),
            (None, Some(_)) => return Err("bias_v is set but bias_k is None".to_owned()),
            (None, None) => return Ok(()),
        };
        if static_k.is_some() {
            return Err("bias cannot be added to static key.".to_owned());
        }
        if static_v.is_some() {
            return Err("bias cannot be added to static value.".to_owned());
        }
        for bias in [bias_k, bias_v] {
            let of_batch = match **bias.shape() {
                [.., of_batch, _] if bias.shape().rank() <= 3 => of_batch,
                [] | [_] => 1,
                _ => {
                    return Err("Number of dimensions of repeat dims can not be smaller than number of dimensions \
                                of tensor"
                        .to_owned());
                }
            };
            let last = bias.shape().last().copied().unwrap_or(1);
            let dim = self.options.embed_dim_to_check;
            let differs = match of_batch {
                1 => (last != dim).then_some((dim, last)),
                _ => Some((self.batch, of_batch * self.batch)),
            };
            if let Some((expected, found)) = differs {
                return Err(format!(
                    "Sizes of tensors must match except in dimension 0. Expected size {expected} but got size \
                     {found} for tensor number 1 in the list."
                ));
            }
        }
        Ok(())
    }

    /// Checks that what is projected has the batch of the queries.
    fn check_batch(&self, [keys, batch, _]: [usize; 3]) -> Result<(), String> {
        let MultiHeadAttentionOptions { num_heads, static_k, static_v, .. } = self.options;
        let is_projected = static_k.is_none() || static_v.is_none();
        if is_projected && batch != self.batch {
            let (parts, width) = (self.batch * num_heads, self.width());
            return Err(format!(
                "shape '[{keys}, {parts}, {width}]' is invalid for input of size {}",
                keys * batch * self.options.embed_dim_to_check
            ));
        }
        Ok(())
    }

    /// Checks what stands in the place of projected keys and values, and counts the keys.
    fn check_static(&self) -> Result<usize, String> {
        let MultiHeadAttentionOptions { static_k, static_v, num_heads, .. } = self.options;
        for (name, fixed) in [("static_k", static_k), ("static_v", static_v)] {
            let Some(shape) = fixed.map(Var::shape) else { continue };
            for (axis, expected) in [(0, self.batch * num_heads), (2, self.width())] {
                let of = shape.axis(axis).ok_or_else(|| no_such_axis(axis, shape).0)?;
                if shape[of] != expected {
                    let found = shape[of];
                    return Err(format!(
                        "expecting {name}.size({axis}) of {expected}, but got {found}"
                    ));
                }
            }
            if shape.rank() > 3 {
                return Err(format!("expecting {name} of 3 dimensions, but got {}", size(shape)));
            }
        }
        Ok(static_k.map_or(self.projected, |fixed| fixed.shape()[1]))
    }

    /// Checks that masks, in which torch makes room for one row of `bias_k`, have it for all.
    fn check_room(&self) -> Result<(), String> {
        let (Some(mask), true) = (&self.attn_mask, self.room() != self.appended()) else {
            return Ok(());
        };
        let (batch, heads) = (self.batch, self.options.num_heads);
        let (seen, room) = (self.keys + self.appended(), self.keys + self.room());
        let (parts, queries) = (batch * heads, self.queries);
        Err(match (self.options.need_weights, mask.shape().rank()) {
            (true, rank) => {
                let first = if rank == 2 { 1 } else { parts };
                format!(
                    "The expanded size of the tensor ({seen}) must match the existing size ({room}) at non-singleton \
                     dimension 2.  Target sizes: [{parts}, {queries}, {seen}].  Tensor sizes: [{first}, {queries}, \
                     {room}]"
                )
            }
            (false, 2) => format!(
                "The size of tensor a ({seen}) must match the size of tensor b ({room}) at non-singleton dimension 3"
            ),
            (false, _) => format!(
                "shape '[{batch}, {heads}, -1, {seen}]' is invalid for input of size {}",
                parts * queries * room
            ),
        })
    }

    fn check_key_padding_mask(&self) -> Result<(), String> {
        let Some(mask) = &self.key_padding_mask else { return Ok(()) };
        let (batch, keys) = match **mask.shape() {
            [batch, keys] => (batch, keys),
            [keys] => (1, keys),
            _ => return Ok(()),
        };
        let (found, expected) = (keys + self.room(), self.keys + self.appended());
        for (axis, found, expected) in [(0, batch, self.batch), (1, found, expected)] {
            if found != expected {
                return Err(format!(
                    "Expected key_padded_mask.shape[{axis}] to be {expected}, but got {found}"
                ));
            }
        }
        Ok(())
    }
}

/// Counts the rows of what is appended to the keys or values.
pub(super) fn rows(bias: &Var) -> usize {
    match **bias.shape() {
        [rows, _, _] => rows,
        _ => 1,
    }
}

/// Prints sizes as torch does.
fn size(sizes: &[usize]) -> String {
    format!("torch.Size({})", Shape::from(sizes))
}

fn has_shape(what: &str, found: &[usize], expected: &[usize]) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => {
            Err(format!("expecting {what} shape of {}, but got {}", tuple(expected), size(found)))
        }
    }
}

/// Checks the weight that projects all three; where it is no matrix, `linear` says so.
fn packed_fits(weight: &Var, dim: usize, sizes: [[usize; 3]; 3]) -> Result<(), String> {
    let [rows, columns] = **weight.shape() else {
        return has_shape("in_proj_weight", weight.shape(), &[3 * dim, dim]);
    };
    if rows != 3 * dim {
        return Err(format!(
            "unflatten: Provided sizes [3, {dim}] don't multiply up to the size of dim 2 ({rows}) in the input \
             tensor"
        ));
    }
    for [length, batch, features] in sizes {
        if features != columns {
            return Err(format!(
                "mm: mat1 and mat2 shapes cannot be multiplied ({}x{features} and {columns}x{dim})",
                length * batch
            ));
        }
    }
    Ok(())
}

/// Checks how many axes there are.
///
/// Source: `torch.nn.functional._mha_shape_check`.
fn check_ranks(given: [&Var; 3], options: &MultiHeadAttentionOptions<'_>) -> Result<(), String> {
    let rank = |x: &Var| x.shape().rank();
    let [query, key, value] = given.map(rank);
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
            "For {kind} `query`, expected `key` and `value` to be {axes}-D but found {key}-D and {value}-D tensors \
             respectively"
        ));
    }
    if let Some(found) = options.key_padding_mask.map(rank).filter(|&n| n != axes - 1) {
        return Err(format!(
            "For {kind} `query`, expected `key_padding_mask` to be `None` or {}-D but found {found}-D tensor \
             instead",
            axes - 1
        ));
    }
    let Some(mask) = options.attn_mask else { return Ok(()) };
    let found = rank(mask);
    if found != 2 && found != 3 {
        return Err(format!(
            "For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {found}-D tensor instead"
        ));
    }
    let expected = [options.num_heads, given[0].shape()[0], given[1].shape()[0]];
    if query == 2 && found == 3 && **mask.shape() != expected {
        return Err(format!(
            "Expected `attn_mask` shape to be {} but got torch.Size({})",
            tuple(&expected),
            mask.shape()
        ));
    }
    Ok(())
}
