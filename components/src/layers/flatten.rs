//! [`Flatten`]: joins axes.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::{Call, Module};

/// Joins the axes from `start_dim` to `end_dim`, both included, into one.
///
/// Negative axes count from the end. The default keeps the batch and joins the rest: `[batch, a, b]`
/// becomes `[batch, a · b]`.
///
/// Source: `torch.nn.Flatten`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Flatten {
    /// The first axis that is joined.
    pub start_dim: isize,
    /// The last axis that is joined.
    pub end_dim: isize,
}

impl Default for Flatten {
    fn default() -> Self {
        Flatten { start_dim: 1, end_dim: -1 }
    }
}

impl Module for Flatten {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.flatten(self.start_dim, self.end_dim)
    }

    fn extra_repr(&self) -> String {
        format!("start_dim={}, end_dim={}", self.start_dim, self.end_dim)
    }
}
