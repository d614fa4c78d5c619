//! [`Embedding`] and [`EmbeddingBag`]: tables whose rows whole numbers choose.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
pub use neurarch_kernels::ops::index::embedding_bag::BagMode;
use neurarch_kernels::ops::index::embedding_bag::EmbeddingBagSettings;
use serde::{Deserialize, Serialize};

use crate::module::repr::float;
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// Gives for each whole number the row of that number.
///
/// | value    | shape                             | at first                              |
/// |----------|-----------------------------------|---------------------------------------|
/// | `x`      | `[..]`, i64                       |                                       |
/// | `y`      | `[.., embedding_dim]`             |                                       |
/// | `weight` | `[num_embeddings, embedding_dim]` | `N(0, 1)`; row `padding_idx` is zero  |
///
/// With `max_norm`, rows that a call names and that are longer are shortened first, in the parameter itself.
///
/// Source: `torch.nn.Embedding`, without `sparse`. A number that names no row gives NaN, where torch raises an
/// error; a `padding_idx` that names none is an error of the first call.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct Embedding {
    /// How many rows there are.
    pub num_embeddings: usize,
    /// How long they are.
    pub embedding_dim: usize,
    /// The row that gets no gradient; counted from the end if negative.
    pub padding_idx: Option<isize>,
    /// The largest length of a row that is named; a scalar slot.
    #[scalar]
    pub max_norm: Option<f64>,
    /// Which norm `max_norm` is of; 2 at first.
    pub norm_type: f64,
    /// Whether the gradient of a row is divided by how often it is named in a call.
    pub scale_grad_by_freq: bool,
}

/// Returns the row that `padding_idx` names, counted from the start; `None` if there is none of that number.
fn padding_row(padding_idx: Option<isize>, rows: usize) -> Option<usize> {
    let index = padding_idx?;
    let row = if index < 0 { index.checked_add_unsigned(rows)? } else { index };
    usize::try_from(row).ok().filter(|&row| row < rows)
}

/// Returns the first numbers of a table.
fn first_rows(padding: Option<usize>) -> Init {
    match padding {
        Some(row) => Init::NormalRows { zero: row },
        None => Init::Normal { mean: 0.0, std: 1.0 },
    }
}

/// Returns the table of a layer; with a `max_norm`, rows that are named are shortened first, for good.
fn table(call: &Call<'_>, index: &Var, max_norm: Option<f64>, norm_type: f64) -> Var {
    let weight = call.parameter("weight");
    if max_norm.is_none() {
        return weight;
    }
    let max_norm = call.scalar("max_norm", weight.dtype());
    let renormed = call.trace.stored(&weight).embedding_renorm(index, &max_norm, norm_type);
    call.trace.store(&weight, &renormed);
    weight.with_data(&renormed)
}

/// Prints what torch prints of `max_norm`, `norm_type` and `scale_grad_by_freq`.
fn settings_repr(max_norm: Option<f64>, norm_type: f64, scale_grad_by_freq: bool) -> String {
    let mut text = String::new();
    if let Some(max_norm) = max_norm {
        text += &format!(", max_norm={}", float(max_norm));
    }
    if norm_type != 2.0 {
        text += &format!(", norm_type={}", float(norm_type));
    }
    if scale_grad_by_freq {
        text += ", scale_grad_by_freq=True";
    }
    text
}

impl Embedding {
    /// Makes a layer with torch's defaults.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> Self {
        Embedding {
            num_embeddings,
            embedding_dim,
            padding_idx: None,
            max_norm: None,
            norm_type: 2.0,
            scale_grad_by_freq: false,
        }
    }
}

#[scalars]
impl Module for Embedding {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        declare.parameter("weight", [self.num_embeddings, self.embedding_dim]);
    }

    fn reset(&self, _: &str) -> Init {
        first_rows(padding_row(self.padding_idx, self.num_embeddings))
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let row = padding_row(self.padding_idx, self.num_embeddings);
        if self.padding_idx.is_some() && row.is_none() {
            return call.trace.fail("Padding_idx must be within num_embeddings");
        }
        let weight = table(call, &x, self.max_norm, self.norm_type);
        x.embedding(&weight, row, self.scale_grad_by_freq)
    }

    fn extra_repr(&self) -> String {
        let Embedding { num_embeddings, embedding_dim, .. } = self;
        let mut text = format!("{num_embeddings}, {embedding_dim}");
        if let Some(row) = padding_row(self.padding_idx, self.num_embeddings) {
            text += &format!(", padding_idx={row}");
        }
        text + &settings_repr(self.max_norm, self.norm_type, self.scale_grad_by_freq)
    }
}

/// Gives for each bag of whole numbers the sum, mean or maximum of the rows of those numbers.
///
/// A module of `input`, `offsets` and `per_sample_weights`, the last two optional.
///
/// | value                | shape                             | at first                             |
/// |----------------------|-----------------------------------|--------------------------------------|
/// | `input`              | `[bags, n]` or `[n]`, i64         |                                      |
/// | `offsets`            | `[bags]` for `[n]`, i64: where each bag begins | one more if `include_last_offset` |
/// | `per_sample_weights` | as `input`: factors of rows, for [`BagMode::Sum`] | 1                    |
/// | `y`                  | `[bags, embedding_dim]`           | 0 for empty bags                     |
/// | `weight`             | `[num_embeddings, embedding_dim]` | `N(0, 1)`; row `padding_idx` is zero |
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::{BagMode, EmbeddingBag};
/// # use neurarch_components::module::repr::repr;
/// let words = EmbeddingBag { mode: BagMode::Sum, ..EmbeddingBag::new(10, 3) };
/// assert_eq!(repr(&words), "EmbeddingBag(10, 3, mode='sum')");
/// ```
///
/// Source: `torch.nn.EmbeddingBag`, without `sparse`. A number that names no row makes its bag NaN, and offsets
/// out of order make all bags NaN, where torch raises an error.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct EmbeddingBag {
    /// How many rows there are.
    pub num_embeddings: usize,
    /// How long they are.
    pub embedding_dim: usize,
    /// The largest length of a row that is named, as in [`Embedding`]; a scalar slot.
    #[scalar]
    pub max_norm: Option<f64>,
    /// Which norm `max_norm` is of; 2 at first.
    pub norm_type: f64,
    /// Whether the gradient of a row is divided by how often it is named in a call.
    pub scale_grad_by_freq: bool,
    /// What becomes of the rows of a bag.
    #[serde(with = "crate::wire")]
    pub mode: BagMode,
    /// Whether the last offset is the end of the last bag.
    pub include_last_offset: bool,
    /// The row that counts for nothing and gets no gradient; counted from the end if negative.
    pub padding_idx: Option<isize>,
}

impl EmbeddingBag {
    /// Makes a layer with torch's defaults.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> Self {
        EmbeddingBag {
            num_embeddings,
            embedding_dim,
            max_norm: None,
            norm_type: 2.0,
            scale_grad_by_freq: false,
            mode: BagMode::Mean,
            include_last_offset: false,
            padding_idx: None,
        }
    }
}

#[scalars]
impl Module for EmbeddingBag {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        declare.parameter("weight", [self.num_embeddings, self.embedding_dim]);
    }

    fn reset(&self, _: &str) -> Init {
        first_rows(padding_row(self.padding_idx, self.num_embeddings))
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let names = ["input", "offsets", "per_sample_weights"];
        let Some([x, offsets, weights]) = call.bind_or_none(arguments, names, 1) else {
            return call.trace.poison().into();
        };
        let values = [x, offsets, weights].map(optional_value);
        let [Some(Some(x)), Some(offsets), Some(weights)] = values else {
            return call.trace.fail("EmbeddingBag.forward(): expected Tensors").into();
        };
        let padding_idx = padding_row(self.padding_idx, self.num_embeddings);
        if self.padding_idx.is_some() && padding_idx.is_none() {
            return call.trace.fail("padding_idx must be within num_embeddings").into();
        }
        let EmbeddingBag { mode, scale_grad_by_freq, include_last_offset, .. } = *self;
        let settings = EmbeddingBagSettings {
            mode,
            padding_idx,
            scale_grad_by_freq,
            // Bags of a matrix have no offsets.
            include_last_offset: include_last_offset && offsets.is_some(),
        };
        let table = table(call, &x, self.max_norm, self.norm_type);
        x.embedding_bag(&table, offsets.as_ref(), weights.as_ref(), settings).into()
    }

    fn extra_repr(&self) -> String {
        let EmbeddingBag { num_embeddings, embedding_dim, .. } = self;
        let settings = settings_repr(self.max_norm, self.norm_type, self.scale_grad_by_freq);
        let mode = self.mode.name();
        let mut text = format!("{num_embeddings}, {embedding_dim}{settings}, mode='{mode}'");
        if let Some(row) = padding_row(self.padding_idx, self.num_embeddings) {
            text += &format!(", padding_idx={row}");
        }
        text
    }
}

/// Takes a value that may be left out; `None` if it is something else.
fn optional_value(tree: Tree) -> Option<Option<Var>> {
    match tree {
        Tree::Leaf(x) => Some(Some(x)),
        Tree::None => Some(None),
        _ => None,
    }
}
