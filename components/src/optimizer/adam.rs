//! [`Adam`] and [`AdamW`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ops::adam::{AdamRates, AdamSettings};
use neurarch_kernels::program::trace::Var;

use super::{Optimizer, Update, scalars};

/// Adam: steps scaled by running means of the gradient and of its square.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Adam`.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false }
    }
}

/// Adam whose weight decay shrinks the parameter itself, not by way of the gradient.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.AdamW`.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    pub eps: f64,
    /// The parameter is multiplied by `1 - lr · weight_decay` before each step.
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 1e-2, maximize: false }
    }
}

/// Records the update that [`Adam`] and [`AdamW`] have in common.
fn update_adam(at: &Update<'_>, decoupled: bool, maximize: bool) -> Var {
    let [exp_avg, exp_avg_sq] = at.states else {
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
    let after = at.parameter.adam(at.gradient, (exp_avg, exp_avg_sq), at.steps, &rates, settings);
    at.trace.store(at.parameter, &after.parameter);
    at.trace.store(exp_avg, &after.exp_avg);
    at.trace.store(exp_avg_sq, &after.exp_avg_sq);
    after.steps
}

/// Implements [`Optimizer`] for a component with the fields of [`Adam`].
macro_rules! adam {
    ($optimizer:ident, decoupled: $decoupled:literal) => {
        impl Optimizer for $optimizer {
            fn states(&self) -> &'static [&'static str] {
                &["exp_avg", "exp_avg_sq"]
            }

            fn update(&self, at: &Update<'_>) -> Var {
                update_adam(at, $decoupled, self.maximize)
            }

            fn structural(&self) -> Self {
                let betas = (0.0, 0.0);
                $optimizer { lr: 0.0, betas, eps: 0.0, weight_decay: 0.0, maximize: self.maximize }
            }

            scalars! {
                "lr" => lr,
                "beta1" => betas.0,
                "beta2" => betas.1,
                "eps" => eps,
                "weight_decay" => weight_decay,
            }
        }
    };
}

adam!(Adam, decoupled: false);
adam!(AdamW, decoupled: true);
