//! [`Adamax`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::adamax::AdamaxSettings;
use serde::{Deserialize, Serialize};

use super::check::adaptive;
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Adamax: Adam by the greatest gradient, which fades, in place of the root of the mean square.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Adamax`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Adamax {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much is kept of the mean gradient and of the greatest.
    #[scalar("beta1", "beta2")]
    pub betas: (f64, f64),
    /// What is added to the size of each gradient.
    #[scalar]
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adamax {
    fn default() -> Self {
        Adamax { lr: 2e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false }
    }
}

#[scalars]
impl Optimizer for Adamax {
    fn states(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_inf"]
    }

    fn check(&self) -> Result<(), OptimizerError> {
        adaptive(self.lr, self.eps, self.betas, self.weight_decay)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = AdamaxSettings { maximize: self.maximize };
        at.by(|inputs| at.parameter.adamax(inputs, settings))
    }
}
