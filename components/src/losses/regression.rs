//! [`L1Loss`], [`HuberLoss`] and [`SmoothL1Loss`]: distances of outputs and targets.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use super::{Loss, LossCall, Reduction, in_dtype_of};
use crate::{Scalars, scalars};

/// Takes the distances of outputs and targets, and reduces them: by default to their mean.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`; the loss is `[]`, or as the outputs if `reduction` is
/// [`Reduction::None`].
///
/// Source: `torch.nn.L1Loss`, without its broadcasting of unequal shapes, against which torch warns.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct L1Loss {
    /// What becomes of the distances.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Loss for L1Loss {
    fn forward(&self, _: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        x.l1_loss(&in_dtype_of(x, target), self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Takes half of the squared distances below `delta`, and `delta · (distance - ½ delta)` above it.
///
/// # Shape
///
/// As for [`L1Loss`].
///
/// # Example
///
/// ```
/// # use neurarch_components::losses::HuberLoss;
/// # use neurarch_components::module::repr::repr;
/// assert_eq!(HuberLoss::default().delta, 1.0);
/// assert_eq!(repr(&HuberLoss { delta: 0.5, ..HuberLoss::default() }), "HuberLoss()");
/// ```
///
/// Source: `torch.nn.HuberLoss`, without broadcasting; a `delta` that is not positive is not refused.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct HuberLoss {
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
    /// Where the square ends; a scalar slot, 1 at first.
    #[scalar]
    pub delta: f64,
}

impl Default for HuberLoss {
    fn default() -> Self {
        HuberLoss { reduction: Reduction::Mean, delta: 1.0 }
    }
}

#[scalars]
impl Loss for HuberLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let delta = call.scalar("delta", x.dtype());
        x.huber_loss(&in_dtype_of(x, target), &delta, self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Takes half of the squared distances, divided by `beta`, below `beta`, and `distance - ½ beta` above it.
///
/// # Shape
///
/// As for [`L1Loss`].
///
/// Source: `torch.nn.SmoothL1Loss`, without broadcasting; a negative `beta` is not refused.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct SmoothL1Loss {
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
    /// Where the square ends; a scalar slot, 1 at first.
    #[scalar]
    pub beta: f64,
}

impl Default for SmoothL1Loss {
    fn default() -> Self {
        SmoothL1Loss { reduction: Reduction::Mean, beta: 1.0 }
    }
}

#[scalars]
impl Loss for SmoothL1Loss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let beta = call.scalar("beta", x.dtype());
        x.smooth_l1_loss(&in_dtype_of(x, target), &beta, self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
