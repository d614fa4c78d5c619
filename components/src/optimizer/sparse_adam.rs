//! [`SparseAdam`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::sparse_adam::SparseAdamSettings;
use serde::{Deserialize, Serialize};

use super::check::{betas, require};
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Adam on the rows that have a gradient, as those of an [`Embedding`](crate::layers::Embedding) that were looked up:
/// the others stay as they are, their running means too.
///
/// The numbers are scalar slots; the flag is structure.
///
/// Source: `torch.optim.SparseAdam`, of the gradients of `nn.Embedding(sparse=True)`. Gradients are dense here: a row
/// whose gradient is 0 in every element counts as one that was not looked up.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct SparseAdam {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    #[scalar("beta1", "beta2")]
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    #[scalar]
    pub eps: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for SparseAdam {
    fn default() -> Self {
        SparseAdam { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, maximize: false }
    }
}

#[scalars]
impl Optimizer for SparseAdam {
    fn states(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn check(&self) -> Result<(), OptimizerError> {
        let SparseAdam { lr, eps, .. } = *self;
        require(lr > 0.0, || format!("Invalid learning rate: {lr:?}"))?;
        require(eps > 0.0, || format!("Invalid epsilon value: {eps:?}"))?;
        betas(self.betas)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let settings = SparseAdamSettings { maximize: self.maximize };
        at.by(|inputs| at.parameter.sparse_adam(inputs, settings))
    }
}
