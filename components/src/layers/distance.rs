//! [`CosineSimilarity`] and [`PairwiseDistance`]: how alike, and how far apart, vectors are.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::module::{Call, Module};
use crate::{Scalars, scalars};

/// Computes the cosine of the angle between the vectors along an axis.
///
/// A module of `x1` and `x2`. A vector shorter than `eps` is divided by `eps` in place of its length.
///
/// # Shape
///
/// `x1` and `x2` broadcast, `[.., size, ..]`; the result lacks the axis `dim`, which is counted without the
/// population's.
///
/// Source: `torch.nn.CosineSimilarity`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct CosineSimilarity {
    /// The axis of the vectors; 1 at first.
    pub dim: isize,
    /// The least length to divide by; a scalar slot, 1e-8 at first.
    #[scalar]
    pub eps: f64,
}

impl Default for CosineSimilarity {
    fn default() -> Self {
        CosineSimilarity { dim: 1, eps: 1e-8 }
    }
}

#[scalars]
impl Module for CosineSimilarity {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match call.named_values(arguments, ["x1", "x2"]) {
            Some([a, b]) => {
                a.cosine_similarity(&b, self.dim, &call.scalar("eps", a.dtype())).into()
            }
            None => call.trace.poison().into(),
        }
    }
}

/// Gives the `p`-norm of the difference of vectors along the last axis.
///
/// A module of `x1` and `x2`.
///
/// # Shape
///
/// `x1` and `x2` broadcast to `[.., size]`; the result is `[..]`, or `[.., 1]` if `keepdim`.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::PairwiseDistance;
/// let taxi = PairwiseDistance { p: 1.0, ..PairwiseDistance::default() };
/// assert_eq!((taxi.eps, taxi.keepdim), (1e-6, false));
/// ```
///
/// Source: `torch.nn.PairwiseDistance`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct PairwiseDistance {
    /// Which norm: also 0, infinity, and minus infinity; 2 at first.
    pub p: f64,
    /// What is added to differences; a scalar slot, 1e-6 at first.
    #[scalar]
    pub eps: f64,
    /// Whether the last axis stays, with size 1.
    pub keepdim: bool,
}

impl Default for PairwiseDistance {
    fn default() -> Self {
        PairwiseDistance { p: 2.0, eps: 1e-6, keepdim: false }
    }
}

#[scalars]
impl Module for PairwiseDistance {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([a, b]) = call.named_values(arguments, ["x1", "x2"]) else {
            return call.trace.poison().into();
        };
        a.pairwise_distance(&b, self.p, &call.scalar("eps", a.dtype()), self.keepdim).into()
    }
}
