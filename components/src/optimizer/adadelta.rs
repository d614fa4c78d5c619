//! [`Adadelta`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::adadelta::AdadeltaSettings;
use serde::{Deserialize, Serialize};

use super::check::{at_least_0, require};
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Adadelta: steps in the proportion of running means of squared steps and of squared gradients.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Adadelta`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Adadelta {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much is kept of both means.
    #[scalar]
    pub rho: f64,
    /// What is added to both means before the root.
    #[scalar]
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adadelta {
    fn default() -> Self {
        Adadelta { lr: 1.0, rho: 0.9, eps: 1e-6, weight_decay: 0.0, maximize: false }
    }
}

#[scalars]
impl Optimizer for Adadelta {
    fn states(&self) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }

    fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)?;
        require((0.0..=1.0).contains(&self.rho), || format!("Invalid rho value: {:?}", self.rho))?;
        at_least_0("epsilon value", self.eps)?;
        at_least_0("weight_decay value", self.weight_decay)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = AdadeltaSettings { maximize: self.maximize };
        at.by(|inputs| at.parameter.adadelta(inputs, settings))
    }
}
