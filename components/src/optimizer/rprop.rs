//! [`Rprop`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::rprop::RpropSettings;
use serde::{Deserialize, Serialize};

use super::check::{at_least_0, require};
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Rprop: steps of a size that each element has of its own, by the gradient's sign alone.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Rprop`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Rprop {
    /// The size of the first step.
    #[scalar]
    pub lr: f64,
    /// What a size is multiplied by when the sign turns, and when it stays.
    #[scalar("etaminus", "etaplus")]
    pub etas: (f64, f64),
    /// The least and the greatest size.
    #[scalar("step_size_min", "step_size_max")]
    pub step_sizes: (f64, f64),
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Rprop {
    fn default() -> Self {
        Rprop { lr: 1e-2, etas: (0.5, 1.2), step_sizes: (1e-6, 50.0), maximize: false }
    }
}

#[scalars]
impl Optimizer for Rprop {
    fn states(&self) -> &'static [&'static str] {
        &["prev", "step_size"]
    }

    fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)?;
        let (less, more) = self.etas;
        require(0.0 < less && less < 1.0 && 1.0 < more, || {
            format!("Invalid eta values: {less:?}, {more:?}")
        })
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = RpropSettings { maximize: self.maximize };
        at.by(|inputs| at.parameter.rprop(inputs, settings))
    }
}
