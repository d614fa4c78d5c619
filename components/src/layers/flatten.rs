//! [`Flatten`]: joins axes.

use bevy_ecs::prelude::*;
use neurarch_kernels::program::trace::Var;

use crate::module::{Call, Module};

/// Joins the axes from `start_dim` to `end_dim`, both included, into one.
///
/// Negative axes count from the end. The default keeps the batch and joins the rest: `[batch, a, b]`
/// becomes `[batch, a · b]`.
///
/// Source: `torch.nn.Flatten`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
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
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let shape = x.shape();
        let axis = |dim| {
            shape.axis(dim).ok_or_else(|| {
                let (low, high) = (-(shape.rank() as isize), shape.rank() as isize - 1);
                format!(
                    "Dimension out of range (expected to be in range of [{low}, {high}], but got {dim})"
                )
            })
        };
        match (axis(self.start_dim), axis(self.end_dim)) {
            (Err(message), _) | (_, Err(message)) => call.trace.fail(message),
            (Ok(start), Ok(end)) if start > end => {
                call.trace.fail("flatten() has invalid args: start_dim cannot come after end_dim")
            }
            (Ok(start), Ok(end)) => {
                let joined = shape[start..=end].iter().product();
                let sizes = shape[..start].iter().chain([&joined]).chain(&shape[end + 1..]);
                x.reshape(sizes.copied().collect::<Vec<usize>>())
            }
        }
    }
}
