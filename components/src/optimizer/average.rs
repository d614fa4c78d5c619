//! [`AveragedModel`].

use bevy_ecs::prelude::*;
use serde::{Deserialize, Serialize};

/// Makes a population the running average of another one, model by model.
///
/// Source: `torch.optim.swa_utils.AveragedModel`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AveragedModel {
    /// How a new model counts.
    pub avg_fn: AverageFn,
    /// Whether buffers are averaged too; otherwise they are copied.
    pub use_buffers: bool,
    /// How many updates there were.
    pub n_averaged: usize,
}

impl AveragedModel {
    /// Averages by `avg_fn`, without buffers.
    pub fn new(avg_fn: AverageFn) -> Self {
        AveragedModel { avg_fn, use_buffers: false, n_averaged: 0 }
    }

    /// Returns the part of the next average that the new model is.
    pub fn weight(&self) -> f64 {
        match (self.n_averaged, self.avg_fn) {
            (0, _) => 1.0,
            (n_averaged, AverageFn::Swa) => 1.0 / (n_averaged as f64 + 1.0),
            (_, AverageFn::Ema { decay }) => 1.0 - decay,
        }
    }
}

/// How a new model counts in an average; the first one is the average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum AverageFn {
    /// As every other: `get_swa_avg_fn()`.
    Swa,
    /// As `1 - decay` of the average: `get_ema_avg_fn(decay)`.
    Ema {
        /// How much of the average is kept; from 0 to 1.
        decay: f64,
    },
}
