//! [`MSELoss`]: the mean squared error.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use super::{Loss, LossCall, Reduction, in_dtype_of};

/// Squares the differences between outputs and targets, and reduces them: by default to their mean.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`; the loss is `[]`, or as the outputs if `reduction` is
/// [`Reduction::None`].
///
/// Source: `torch.nn.MSELoss`, without its broadcasting of unequal shapes, against which torch warns.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct MSELoss {
    /// What becomes of the squares.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Loss for MSELoss {
    fn forward(&self, _: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        x.mse_loss(&in_dtype_of(x, target), self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
