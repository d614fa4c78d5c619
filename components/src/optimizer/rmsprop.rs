//! [`RMSprop`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::rmsprop::RMSpropSettings;
use serde::{Deserialize, Serialize};

use super::check::at_least_0;
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// `RMSprop`: steps scaled by a running mean of the squared gradient.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.RMSprop`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct RMSprop {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much is kept of the mean square.
    #[scalar]
    pub alpha: f64,
    /// What is added to the root of the mean square.
    #[scalar]
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// How much of the last direction is kept. Whether it is 0 is structure.
    #[scalar]
    #[structural(is_positive)]
    pub momentum: f64,
    /// Whether the square of the mean gradient is subtracted from the mean square.
    pub centered: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for RMSprop {
    fn default() -> Self {
        RMSprop {
            lr: 1e-2,
            alpha: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
            maximize: false,
        }
    }
}

/// Returns 1 for a number above 0: of momentum, only whether there is some is structure.
fn is_positive(number: &f64) -> f64 {
    if *number > 0.0 { 1.0 } else { 0.0 }
}

#[scalars]
impl Optimizer for RMSprop {
    fn states(&self) -> &'static [&'static str] {
        match (self.momentum > 0.0, self.centered) {
            (false, false) => &["square_avg"],
            (true, false) => &["square_avg", "momentum_buffer"],
            (false, true) => &["square_avg", "grad_avg"],
            (true, true) => &["square_avg", "momentum_buffer", "grad_avg"],
        }
    }

    fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)?;
        at_least_0("epsilon value", self.eps)?;
        at_least_0("momentum value", self.momentum)?;
        at_least_0("weight_decay value", self.weight_decay)?;
        at_least_0("alpha value", self.alpha)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = RMSpropSettings {
            has_momentum: self.momentum > 0.0,
            centered: self.centered,
            maximize: self.maximize,
        };
        at.by(|inputs| at.parameter.rmsprop(inputs, settings))
    }
}
