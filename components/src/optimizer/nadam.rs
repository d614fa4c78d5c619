//! [`NAdam`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::nadam::NAdamSettings;
use serde::{Deserialize, Serialize};

use super::check::{adaptive, at_least_0};
use super::{Form, Optimizer, OptimizerError, StateEntry, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// `NAdam`: Adam with Nesterov's momentum.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.NAdam`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct NAdam {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    #[scalar("beta1", "beta2")]
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    #[scalar]
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// How fast the momentum approaches `betas.0`.
    #[scalar]
    pub momentum_decay: f64,
    /// Whether the parameter itself is multiplied by `1 - lr · weight_decay` instead.
    pub decoupled_weight_decay: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for NAdam {
    fn default() -> Self {
        NAdam {
            lr: 2e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 4e-3,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

#[scalars]
impl Optimizer for NAdam {
    fn states(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq", "mu_product"]
    }

    fn state_entry(&self, state: usize, _: &[usize]) -> Option<StateEntry> {
        let form = if state == 2 { Form::Number } else { Form::Elements };
        self.states().get(state).map(|&name| StateEntry { name, form })
    }

    fn check(&self) -> Result<(), OptimizerError> {
        adaptive(self.lr, self.eps, self.betas, self.weight_decay)?;
        at_least_0("momentum_decay value", self.momentum_decay)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings =
            NAdamSettings { decoupled: self.decoupled_weight_decay, maximize: self.maximize };
        at.by(|inputs| at.parameter.nadam(inputs, settings))
    }
}
