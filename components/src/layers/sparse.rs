//! [`Embedding`]: a table whose rows whole numbers choose.

use bevy_ecs::prelude::*;
use neurarch_kernels::program::trace::Var;

use crate::module::{Call, Declare, Init, Module};

/// Gives for each whole number the row of that number.
///
/// | value    | shape                             | at first                              |
/// |----------|-----------------------------------|---------------------------------------|
/// | `x`      | `[..]`, i64                       |                                       |
/// | `y`      | `[.., embedding_dim]`             |                                       |
/// | `weight` | `[num_embeddings, embedding_dim]` | `N(0, 1)`; row `padding_idx` is zero  |
///
/// Source: `torch.nn.Embedding`, without `max_norm`, `norm_type` and `sparse`. A number that names no row gives
/// NaN, where torch raises an error; a `padding_idx` that names none is an error of the first call.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
pub struct Embedding {
    /// How many rows there are.
    pub num_embeddings: usize,
    /// How long they are.
    pub embedding_dim: usize,
    /// The row that gets no gradient; counted from the end if negative.
    pub padding_idx: Option<isize>,
    /// Whether the gradient of a row is divided by how often it is named in a call.
    pub scale_grad_by_freq: bool,
}

impl Embedding {
    /// Makes a layer with torch's defaults.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> Self {
        Embedding { num_embeddings, embedding_dim, padding_idx: None, scale_grad_by_freq: false }
    }

    /// Gives the row `padding_idx`, counted from the start; `None` if there is none of that number.
    fn padding_row(&self) -> Option<usize> {
        let index = self.padding_idx?;
        let row = if index < 0 { index.checked_add_unsigned(self.num_embeddings)? } else { index };
        usize::try_from(row).ok().filter(|&row| row < self.num_embeddings)
    }
}

impl Module for Embedding {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("weight", [self.num_embeddings, self.embedding_dim]);
    }

    fn reset(&self, _: &str) -> Init {
        match self.padding_row() {
            Some(row) => Init::NormalRows { zero: row },
            None => Init::Normal { mean: 0.0, std: 1.0 },
        }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let row = self.padding_row();
        if self.padding_idx.is_some() && row.is_none() {
            return call.trace.fail("Padding_idx must be within num_embeddings");
        }
        x.embedding(&call.parameter("weight"), row, self.scale_grad_by_freq)
    }

    fn extra_repr(&self) -> String {
        let Embedding { num_embeddings, embedding_dim, scale_grad_by_freq, .. } = self;
        let mut text = format!("{num_embeddings}, {embedding_dim}");
        if let Some(row) = self.padding_row() {
            text += &format!(", padding_idx={row}");
        }
        if *scale_grad_by_freq {
            text += ", scale_grad_by_freq=True";
        }
        text
    }
}
