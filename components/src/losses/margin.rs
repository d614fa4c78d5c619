//! Losses that want something ahead of something else by a margin: [`MultiMarginLoss`],
//! [`MultiLabelMarginLoss`], [`MarginRankingLoss`] and [`CosineEmbeddingLoss`].

use bevy_ecs::prelude::*;
use ndarray::ArrayViewD;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::cross_entropy::{of_classes, ones};
use super::{Loss, LossCall, Reduction, Targets, in_dtype_of};
use crate::module::{Call, Module};
use crate::{Scalars, scalars};

/// Takes the mean over classes of `max(0, margin - x_target + x_class)ᵖ`, the target's class left out.
///
/// # Shape
///
/// The outputs are `[batch, classes]` or `[classes]`, the targets `[batch]` or `[]`, i64 class indices. The
/// loss is `[]`, or as the targets if `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.MultiMarginLoss`.
#[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct MultiMarginLoss {
    /// The exponent: 1 or 2; another one is an error of the first call.
    pub p: u32,
    /// How far ahead is far enough; a scalar slot, 1 at first.
    #[scalar]
    pub margin: f64,
    /// A weight for each class as a target.
    #[structural(ones)]
    pub weight: Option<Vec<f64>>,
    /// What becomes of the items' losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Default for MultiMarginLoss {
    fn default() -> Self {
        MultiMarginLoss { p: 1, margin: 1.0, weight: None, reduction: Reduction::Mean }
    }
}

#[scalars]
impl Loss for MultiMarginLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let (margin, weight) = (call.scalar("margin", x.dtype()), call.array("weight"));
        x.multi_margin_loss(target, self.p, &margin, weight.as_ref(), self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn targets(&self, x: &Type) -> Targets {
        let classes = x.shape.last().copied().unwrap_or(0);
        // None is ignored: that number is no class in any case.
        Targets::Classes { classes, ignore_index: 0 }
    }

    fn array_names(&self) -> &'static [&'static str] {
        &["weight"]
    }

    fn array(&self, _: &str) -> Option<ArrayViewD<'_, f64>> {
        of_classes(&self.weight)
    }
}

/// Takes the mean over classes of `max(0, 1 - x_target + x_class)`, summed over an item's targets, for all
/// classes that are none of them.
///
/// # Shape
///
/// Outputs and targets are `[batch, classes]` or `[classes]`; targets are i64 class indices, each item's up to
/// the first number below 0. The loss is `[]`, or `[batch]` if `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.MultiLabelMarginLoss`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct MultiLabelMarginLoss {
    /// What becomes of the items' losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Loss for MultiLabelMarginLoss {
    fn forward(&self, _: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        x.multilabel_margin_loss(target, self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Takes the three values that a loss of two inputs and a target is called with.
fn inputs_and_target(call: &Call<'_>, arguments: Arguments) -> Option<[Var; 3]> {
    let [a, b, target] = call.named_values(arguments, ["input1", "input2", "target"])?;
    let target = in_dtype_of(&a, &target);
    Some([a, b, target])
}

/// Takes `max(0, margin - target · (input1 - input2))`: a target of 1 wants the first to be larger, -1 the
/// second.
///
/// A module of `input1`, `input2` and `target`.
///
/// # Shape
///
/// All are `[batch]` or of another shape; the loss is `[]`, or of that shape if `reduction` is
/// [`Reduction::None`].
///
/// Source: `torch.nn.MarginRankingLoss`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct MarginRankingLoss {
    /// How far ahead is far enough; a scalar slot, 0 at first.
    #[scalar]
    pub margin: f64,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

#[scalars]
impl Module for MarginRankingLoss {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([a, b, target]) = inputs_and_target(call, arguments) else {
            return call.trace.poison().into();
        };
        a.margin_ranking_loss(&b, &target, &call.scalar("margin", a.dtype()), self.reduction).into()
    }
}

/// Takes `1 - cos` where the target is 1 and `max(0, cos - margin)` where it is -1, of the angle between the
/// inputs.
///
/// A module of `input1`, `input2` and `target`.
///
/// # Shape
///
/// The inputs are `[batch, size]` and the target `[batch]`, or `[size]` and `[]`. The loss is `[]`, or as the
/// target if `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.CosineEmbeddingLoss`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct CosineEmbeddingLoss {
    /// The cosine that is small enough; a scalar slot, 0 at first.
    #[scalar]
    pub margin: f64,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

#[scalars]
impl Module for CosineEmbeddingLoss {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([a, b, target]) = inputs_and_target(call, arguments) else {
            return call.trace.poison().into();
        };
        let margin = call.scalar("margin", a.dtype());
        a.cosine_embedding_loss(&b, &target, &margin, self.reduction).into()
    }
}
