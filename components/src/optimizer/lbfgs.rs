//! [`LBFGS`].

use bevy_ecs::prelude::*;
use neurarch_kernels::lbfgs::{Lbfgs, LbfgsSettings};
use serde::{Deserialize, Serialize};

use super::OptimizerError;
use super::check::at_least_0;

/// L-BFGS: a step tries several parameters, and needs a function that computes loss and gradients anew.
///
/// It is no [`Optimizer`](super::Optimizer), since its steps are not made parameter by parameter. It belongs on the
/// root of a model.
///
/// Source: `torch.optim.LBFGS`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LBFGS {
    /// Learning rate.
    pub lr: f64,
    /// The most iterations of a step.
    pub max_iter: usize,
    /// The most evaluations of a step; `None` means `max_iter · 5 / 4`.
    pub max_eval: Option<usize>,
    /// A step ends where no number of the gradient is greater.
    pub tolerance_grad: f64,
    /// A step ends where parameters or loss change less.
    pub tolerance_change: f64,
    /// How many iterations are remembered.
    pub history_size: usize,
    /// How far to go along each direction.
    pub line_search_fn: Option<LineSearch>,
    /// Whether to climb.
    pub maximize: bool,
}

/// How far [`LBFGS`] goes along a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineSearch {
    /// To where the strong Wolfe conditions hold: torch's `"strong_wolfe"`.
    StrongWolfe,
}

impl Default for LBFGS {
    fn default() -> Self {
        LBFGS {
            lr: 1.0,
            max_iter: 20,
            max_eval: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
            history_size: 100,
            line_search_fn: None,
            maximize: false,
        }
    }
}

impl LBFGS {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// [`OptimizerError`], in torch's words.
    pub fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)
    }

    /// Returns the settings for the kernel.
    pub fn settings(&self) -> LbfgsSettings {
        LbfgsSettings {
            lr: self.lr,
            max_iter: self.max_iter,
            max_eval: self.max_eval.unwrap_or(self.max_iter * 5 / 4),
            tolerance_grad: self.tolerance_grad,
            tolerance_change: self.tolerance_change,
            history_size: self.history_size,
            strong_wolfe: self.line_search_fn == Some(LineSearch::StrongWolfe),
            maximize: self.maximize,
        }
    }
}

/// What [`LBFGS`] keeps of a model from step to step.
#[derive(Component, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LbfgsState(#[serde(with = "crate::wire")] pub Lbfgs);
