//! Losses of yes-or-no questions: [`BCELoss`], [`BCEWithLogitsLoss`], [`SoftMarginLoss`],
//! [`MultiLabelSoftMarginLoss`] and [`HingeEmbeddingLoss`].

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayViewD};
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use super::{Loss, LossCall, Reduction, in_dtype_of};
use crate::{Scalars, scalars};

/// Returns ones in the shape of weights: their shape decides the program.
fn ones(weight: &Option<ArrayD<f64>>) -> Option<ArrayD<f64>> {
    weight.as_ref().map(|weight| ArrayD::ones(weight.shape()))
}

/// Takes the binary cross entropy of probabilities, with logarithms of at least -100.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`, and from 0 to 1; the loss is `[]`, or as the outputs if
/// `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.BCELoss`; outputs outside of 0 to 1 give NaN, where torch raises.
#[derive(Component, Clone, Debug, Default, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct BCELoss {
    /// Factors of the losses, in a shape that broadcasts to them.
    #[structural(ones)]
    #[serde(with = "crate::wire")]
    pub weight: Option<ArrayD<f64>>,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

#[scalars]
impl Loss for BCELoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        x.binary_cross_entropy(target, call.array("weight").as_ref(), self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn array_names(&self) -> &'static [&'static str] {
        &["weight"]
    }

    fn array(&self, _: &str) -> Option<ArrayViewD<'_, f64>> {
        self.weight.as_ref().map(|array| array.view())
    }
}

/// Takes the binary cross entropy of the sigmoid of the outputs, computed so that nothing overflows.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`, and from 0 to 1; the loss is `[]`, or as the outputs if
/// `reduction` is [`Reduction::None`].
///
/// # Example
///
/// ```
/// # use neurarch_components::losses::BCEWithLogitsLoss;
/// let rare = BCEWithLogitsLoss {
///     pos_weight: Some(ndarray::arr1(&[3.0, 1.0]).into_dyn()),
///     ..BCEWithLogitsLoss::default()
/// };
/// assert_eq!(rare.weight, None);
/// ```
///
/// Source: `torch.nn.BCEWithLogitsLoss`.
#[derive(Component, Clone, Debug, Default, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct BCEWithLogitsLoss {
    /// Factors of the losses, in a shape that broadcasts to them.
    #[structural(ones)]
    #[serde(with = "crate::wire")]
    pub weight: Option<ArrayD<f64>>,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
    /// Factors of the part of positive targets, in a shape that broadcasts to them.
    #[structural(ones)]
    #[serde(with = "crate::wire")]
    pub pos_weight: Option<ArrayD<f64>>,
}

#[scalars]
impl Loss for BCEWithLogitsLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let (weight, pos_weight) = (call.array("weight"), call.array("pos_weight"));
        x.binary_cross_entropy_with_logits(
            &in_dtype_of(x, target),
            weight.as_ref(),
            pos_weight.as_ref(),
            self.reduction,
        )
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn array_names(&self) -> &'static [&'static str] {
        &["weight", "pos_weight"]
    }

    fn array(&self, name: &str) -> Option<ArrayViewD<'_, f64>> {
        let array = if name == "weight" { &self.weight } else { &self.pos_weight };
        array.as_ref().map(|array| array.view())
    }
}

/// Takes `ln(1 + exp(-target · x))`.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`, and 1 or -1; the loss is `[]`, or as the outputs if
/// `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.SoftMarginLoss`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct SoftMarginLoss {
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Loss for SoftMarginLoss {
    fn forward(&self, _: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        x.soft_margin_loss(&in_dtype_of(x, target), self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Takes the mean over classes of the binary cross entropy of the sigmoid of the outputs.
///
/// # Shape
///
/// Outputs and targets are `[batch, classes]` or `[classes]`, targets 0 or 1; the loss is `[]`, or `[batch]`
/// if `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.MultiLabelSoftMarginLoss`.
#[derive(Component, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct MultiLabelSoftMarginLoss {
    /// Factors of the classes' losses.
    #[serde(with = "crate::wire")]
    pub weight: Option<ArrayD<f64>>,
    /// What becomes of the items' losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Loss for MultiLabelSoftMarginLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let (target, weight) = (in_dtype_of(x, target), call.array("weight"));
        x.multilabel_soft_margin_loss(&target, weight.as_ref(), self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn structural(&self) -> Self {
        MultiLabelSoftMarginLoss { weight: ones(&self.weight), ..*self }
    }

    fn array_names(&self) -> &'static [&'static str] {
        &["weight"]
    }

    fn array(&self, _: &str) -> Option<ArrayViewD<'_, f64>> {
        self.weight.as_ref().map(|array| array.view())
    }
}

/// Takes the outputs, distances, where the target is 1, and `max(0, margin - x)` where it is -1.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`; the loss is `[]`, or as the outputs if `reduction` is
/// [`Reduction::None`].
///
/// Source: `torch.nn.HingeEmbeddingLoss`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct HingeEmbeddingLoss {
    /// How far apart is far enough; a scalar slot, 1 at first.
    #[scalar]
    pub margin: f64,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Default for HingeEmbeddingLoss {
    fn default() -> Self {
        HingeEmbeddingLoss { margin: 1.0, reduction: Reduction::Mean }
    }
}

#[scalars]
impl Loss for HingeEmbeddingLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let margin = call.scalar("margin", x.dtype());
        x.hinge_embedding_loss(&in_dtype_of(x, target), &margin, self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
