//! [`CrossEntropyLoss`]: how unlikely the outputs make the right classes.

use neurarch_kernels::program::trace::Var;
use neurarch_kernels::shape::Type;

use super::{Loss, LossCall, Reduction, Targets};

/// Takes minus the log-softmax of the outputs at the target class, and reduces over the batch.
///
/// # Shape
///
/// The outputs are `[batch, classes]` or `[batch, classes, ..]`, logits; the targets `[batch]` or
/// `[batch, ..]`, i64 class indices; the loss is `[]`, or as the targets if `reduction` is
/// [`Reduction::None`].
///
/// # Example
///
/// ```
/// # use neurarch_components::losses::CrossEntropyLoss;
/// let loss = CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() };
/// assert_eq!(loss.ignore_index, -100);
/// ```
///
/// Source: `torch.nn.CrossEntropyLoss` with class indices.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropyLoss {
    /// The part of the target spread over all classes, from 0 to 1. A scalar slot.
    pub label_smoothing: f64,
    /// The target that counts for nothing.
    pub ignore_index: i64,
    /// What becomes of the items' losses.
    pub reduction: Reduction,
    /// A weight for each class.
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

impl Loss for CrossEntropyLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let smoothing = call.scalar("label_smoothing", x.dtype());
        x.cross_entropy(target, call.arrays.first(), &smoothing, self.ignore_index, self.reduction)
    }

    fn targets(&self, x: &Type) -> Targets {
        let axis = usize::from(x.shape.rank() > 1);
        let classes = x.shape.get(axis).copied().unwrap_or(0);
        Targets::Classes { classes, ignore_index: self.ignore_index }
    }

    fn structural(&self) -> Self {
        let weight = self.weight.as_ref().map(|weight| vec![1.0; weight.len()]);
        CrossEntropyLoss { label_smoothing: 0.0, weight, ..self.clone() }
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        (name == "label_smoothing").then_some(self.label_smoothing)
    }

    fn arrays(&self) -> &[Vec<f64>] {
        self.weight.as_slice()
    }
}
