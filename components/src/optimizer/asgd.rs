//! [`ASGD`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::asgd::ASGDSettings;
use serde::{Deserialize, Serialize};

use super::check::at_least_0;
use super::{Form, Optimizer, OptimizerError, StateEntry, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Averaged gradient descent: beside each parameter, the mean of its values, torch's `ax`.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.ASGD`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct ASGD {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How fast parameters and rate fade.
    #[scalar]
    pub lambd: f64,
    /// Power by which the rate fades.
    #[scalar]
    pub alpha: f64,
    /// The step from which on values are averaged.
    #[scalar]
    pub t0: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for ASGD {
    fn default() -> Self {
        ASGD { lr: 1e-2, lambd: 1e-4, alpha: 0.75, t0: 1e6, weight_decay: 0.0, maximize: false }
    }
}

#[scalars]
impl Optimizer for ASGD {
    fn states(&self) -> &'static [&'static str] {
        &["eta", "mu", "ax"]
    }

    fn state_entry(&self, state: usize, _: &[usize]) -> Option<StateEntry> {
        let form = if state < 2 { Form::Number } else { Form::Elements };
        self.states().get(state).map(|&name| StateEntry { name, form })
    }

    fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)?;
        at_least_0("lambd value", self.lambd)?;
        at_least_0("alpha value", self.alpha)?;
        at_least_0("weight_decay value", self.weight_decay)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = ASGDSettings { maximize: self.maximize };
        at.by(|inputs| at.parameter.asgd(inputs, settings))
    }
}
