//! [`CrossEntropyLoss`]: how unlikely the outputs make the right classes.

use bevy_ecs::prelude::*;
use ndarray::{ArrayView1, ArrayViewD};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use super::{Loss, LossCall, Reduction, Targets};
use crate::{Scalars, scalars};

/// Takes minus the log-softmax of the outputs at the target class, and reduces over the batch.
///
/// # Shape
///
/// The outputs are `[batch, classes]` or `[batch, classes, ..]`, logits, or `[classes]` for one item; the
/// targets `[batch]`, `[batch, ..]` or `[]`, i64 class indices, or, as the outputs, probabilities of classes;
/// the loss is `[]`, or without the axis of classes if `reduction` is [`Reduction::None`].
///
/// # Example
///
/// ```
/// # use neurarch_components::losses::CrossEntropyLoss;
/// let loss = CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() };
/// assert_eq!(loss.ignore_index, -100);
/// ```
///
/// Source: `torch.nn.CrossEntropyLoss`.
#[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct CrossEntropyLoss {
    /// The part of the target spread over all classes, from 0 to 1. A scalar slot.
    #[scalar]
    pub label_smoothing: f64,
    /// The class index that counts for nothing.
    pub ignore_index: i64,
    /// What becomes of the items' losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
    /// A weight for each class.
    #[structural(ones)]
    pub weight: Option<Vec<f64>>,
}

impl Default for CrossEntropyLoss {
    fn default() -> Self {
        CrossEntropyLoss {
            label_smoothing: 0.0,
            ignore_index: -100,
            reduction: Reduction::Mean,
            weight: None,
        }
    }
}

#[scalars]
impl Loss for CrossEntropyLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let smoothing = call.scalar("label_smoothing", x.dtype());
        let weight = call.array("weight");
        if target.dtype() != Dtype::I64 {
            let weight = weight.as_ref();
            return x.cross_entropy_of_probabilities(target, weight, &smoothing, self.reduction);
        }
        x.cross_entropy(target, weight.as_ref(), &smoothing, self.ignore_index, self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }

    fn targets(&self, x: &Type) -> Targets {
        Targets::classes(x, self.ignore_index)
    }

    fn array_names(&self) -> &'static [&'static str] {
        &["weight"]
    }

    fn array(&self, _: &str) -> Option<ArrayViewD<'_, f64>> {
        of_classes(&self.weight)
    }
}

/// Returns weights of classes as an array.
pub(super) fn of_classes(weight: &Option<Vec<f64>>) -> Option<ArrayViewD<'_, f64>> {
    weight.as_ref().map(|weight| ArrayView1::from(weight).into_dyn())
}

/// Returns as many ones as there are weights: their number decides the program.
pub(super) fn ones(weight: &Option<Vec<f64>>) -> Option<Vec<f64>> {
    weight.as_ref().map(|weight| vec![1.0; weight.len()])
}
