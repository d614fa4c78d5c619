//! [`RReLU`]: leaky ReLU with random slopes while training.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::repr::float;
use crate::module::{Call, Module};
use crate::{Scalars, scalars};

/// Applies `x` where `x > 0`, `a · x` elsewhere: in training mode each number has a slope `a` of its own, drawn
/// evenly between `lower` and `upper`; in evaluation mode `a` is their mean.
///
/// Both are scalar slots: models that differ in them share a blueprint. The numbers drawn follow from the
/// population's seed, the model's number and the count of its steps, so that no neighbor changes them.
///
/// Source: `torch.nn.RReLU`, which refuses a `lower` above `upper`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct RReLU {
    /// The least slope.
    #[scalar]
    pub lower: f64,
    /// The greatest slope.
    #[scalar]
    pub upper: f64,
}

impl Default for RReLU {
    fn default() -> Self {
        RReLU { lower: 1.0 / 8.0, upper: 1.0 / 3.0 }
    }
}

#[scalars]
impl Module for RReLU {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let [lower, upper] = ["lower", "upper"].map(|name| call.scalar(name, x.dtype()));
        x.rrelu(&lower, &upper, call.training())
    }

    fn extra_repr(&self) -> String {
        format!("lower={}, upper={}", float(self.lower), float(self.upper))
    }
}
