//! [`NormalizeObservation`]: observations in units of what was seen so far.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// How many observations the first mean and variance count for.
const FIRST_COUNT: f64 = 1e-4;

/// Normalizes each feature by the mean and the variance of all observations so far:
/// `y = (x - running_mean) / √(running_var + eps)`.
///
/// | value          | shape                | at first |
/// |----------------|----------------------|----------|
/// | `x`, `y`       | `[.., num_features]` |          |
/// | `running_mean` | `[num_features]`     | 0        |
/// | `running_var`  | `[num_features]`     | 1        |
/// | `count`        | `[]`                 | 1e-4     |
///
/// In training mode the observations of a call, all axes but the last, are counted first, so a single one is part of
/// the statistics that it is normalized by. Variances are not corrected for bias. No gradient passes into the
/// statistics, nor into `x`, by them.
///
/// Source: `gymnasium.wrappers.NormalizeObservation`, `RunningMeanStd`; `update_running_mean` is training mode here.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct NormalizeObservation {
    /// How many numbers an observation has.
    pub num_features: usize,
    /// What is added to variances; a scalar slot, 1e-8 at first.
    #[scalar]
    pub eps: f64,
}

impl NormalizeObservation {
    /// Makes a layer with gymnasium's defaults.
    pub fn new(num_features: usize) -> Self {
        NormalizeObservation { num_features, eps: 1e-8 }
    }

    /// Counts observations; returns the mean and the variance that the statistics come to.
    ///
    /// Source: `update_mean_var_count_from_moments`, after Chan et al.
    fn count(&self, call: &Call<'_>, x: &Var) -> (Var, Var) {
        let seen = x.detach().reshape([x.shape().numel() / self.num_features, self.num_features]);
        let n = seen.shape()[0] as f64;
        let [mean, var, count] = ["running_mean", "running_var", "count"].map(|name| {
            let buffer = call.buffer(name);
            (call.trace.stored(&buffer), buffer)
        });
        let batch_mean = seen.mean(&[0], false);
        let deviation = &seen - &batch_mean;
        let batch_var = (&deviation * &deviation).mean(&[0], false);
        let total = &count.0 + n;
        let delta = batch_mean - &mean.0;
        let new_mean = &mean.0 + &delta * (n / &total);
        let squares = &delta * &delta * (&count.0 * (n / &total));
        let new_var = (&var.0 * &count.0 + batch_var * n + squares) / &total;
        for ((_, buffer), new) in [(mean, &new_mean), (var, &new_var), (count, &total)] {
            call.trace.store(&buffer, new);
        }
        (new_mean, new_var)
    }
}

#[scalars]
impl Module for NormalizeObservation {
    fn declare(&self, declare: &mut Declare) {
        declare.buffer("running_mean", [self.num_features], true);
        declare.buffer("running_var", [self.num_features], true);
        declare.buffer("count", [], true);
    }

    fn reset(&self, name: &str) -> Init {
        match name {
            "running_var" => Init::Ones,
            "count" => Init::Constant(FIRST_COUNT),
            _ => Init::Zeros,
        }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let given = x.shape().last().copied();
        if x.id().is_none() {
            return x;
        }
        if given != Some(self.num_features) || x.shape().numel() == 0 {
            return call.trace.fail(format!(
                "expected observations of {} features, got shape {}",
                self.num_features,
                x.shape()
            ));
        }
        let (mean, var) = match call.training() {
            true => self.count(call, &x),
            false => (call.buffer("running_mean"), call.buffer("running_var")),
        };
        (x - mean) / (var + call.scalar("eps", call.buffer("running_var").dtype())).sqrt()
    }

    fn extra_repr(&self) -> String {
        let NormalizeObservation { num_features, eps } = self;
        format!("{num_features}, eps={}", crate::module::repr::float(*eps))
    }
}
