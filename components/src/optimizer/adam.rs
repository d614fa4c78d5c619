//! [`Adam`] and [`AdamW`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use serde::{Deserialize, Serialize};

use super::check::adaptive;
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Adam: steps scaled by running means of the gradient and of its square.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Adam`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Adam {
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
    /// Whether the greatest mean square so far scales the steps.
    pub amsgrad: bool,
    /// Whether the parameter itself is multiplied by `1 - lr · weight_decay` instead, as [`AdamW`] does.
    pub decoupled_weight_decay: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Adam {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            amsgrad: false,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

/// Adam whose weight decay shrinks the parameter itself, not by way of the gradient.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.AdamW`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct AdamW {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    #[scalar("beta1", "beta2")]
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    #[scalar]
    pub eps: f64,
    /// The parameter is multiplied by `1 - lr · weight_decay` before each step.
    #[scalar]
    pub weight_decay: f64,
    /// Whether the greatest mean square so far scales the steps.
    pub amsgrad: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 1e-2,
            amsgrad: false,
            maximize: false,
        }
    }
}

/// Records the update that [`Adam`] and [`AdamW`] have in common; with a third state, amsgrad's.
fn update_adam(at: &Update<'_>, decoupled: bool, maximize: bool) -> Var {
    let [exp_avg, exp_avg_sq, greatest @ ..] = at.states else {
        at.trace.fail("adam: expected the states exp_avg and exp_avg_sq");
        return at.steps.clone();
    };
    let rates = AdamRates {
        lr: &at.scalar("lr"),
        beta1: &at.scalar("beta1"),
        beta2: &at.scalar("beta2"),
        eps: &at.scalar("eps"),
        weight_decay: &at.scalar("weight_decay"),
    };
    let settings = AdamSettings { index: at.index, decoupled, maximize };
    let after = match greatest.first() {
        None => at.parameter.adam(at.gradient, (exp_avg, exp_avg_sq), at.steps, &rates, settings),
        Some(before) => {
            let states = (exp_avg, exp_avg_sq, before);
            let (after, greatest) =
                at.parameter.amsgrad(at.gradient, states, at.steps, &rates, settings);
            at.trace.store(before, &greatest);
            after
        }
    };
    at.trace.store(at.parameter, &after.parameter);
    at.trace.store(exp_avg, &after.exp_avg);
    at.trace.store(exp_avg_sq, &after.exp_avg_sq);
    after.steps
}

/// Implements [`Optimizer`] for a component with the fields of [`AdamW`].
macro_rules! adam {
    ($optimizer:ident, |$of:ident| $decoupled:expr) => {
        #[scalars]
        impl Optimizer for $optimizer {
            fn states(&self) -> &'static [&'static str] {
                match self.amsgrad {
                    true => &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
                    false => &["exp_avg", "exp_avg_sq"],
                }
            }

            fn check(&self) -> Result<(), OptimizerError> {
                adaptive(self.lr, self.eps, self.betas, self.weight_decay)
            }

            fn update(&self, at: &Update<'_>) -> Var {
                let $of = self;
                update_adam(at, $decoupled, self.maximize)
            }
        }
    };
}

adam!(Adam, |adam| adam.decoupled_weight_decay);
adam!(AdamW, |_adam| true);
