//! [`Adagrad`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::adagrad::AdagradSettings;
use serde::{Deserialize, Serialize};

use super::check::at_least_0;
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Adagrad: steps scaled by the sum of all squared gradients.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Adagrad`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Adagrad {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// The rate is divided by `1 + (steps - 1) · lr_decay`.
    #[scalar]
    pub lr_decay: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// What the sum starts with.
    #[scalar]
    pub initial_accumulator_value: f64,
    /// What is added to the root of the sum.
    #[scalar]
    pub eps: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adagrad {
    fn default() -> Self {
        Adagrad {
            lr: 1e-2,
            lr_decay: 0.0,
            weight_decay: 0.0,
            initial_accumulator_value: 0.0,
            eps: 1e-10,
            maximize: false,
        }
    }
}

#[scalars]
impl Optimizer for Adagrad {
    fn states(&self) -> &'static [&'static str] {
        &["sum"]
    }

    fn initial(&self, _: usize) -> Option<f64> {
        Some(self.initial_accumulator_value)
    }

    fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)?;
        at_least_0("lr_decay value", self.lr_decay)?;
        at_least_0("weight_decay value", self.weight_decay)?;
        let initial = self.initial_accumulator_value;
        at_least_0("initial_accumulator_value value", initial)?;
        at_least_0("epsilon value", self.eps)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = AdagradSettings { maximize: self.maximize };
        at.by(|inputs| at.parameter.adagrad(inputs, settings))
    }
}
