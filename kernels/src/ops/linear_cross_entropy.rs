//! `linear_cross_entropy`: the cross entropy of a linear map, written with other ops.
//!
//! Source: `torch.nn.functional.linear_cross_entropy`, whose chunks save memory and change no result.

use crate::ir::dtype::Dtype;
use crate::ir::shape::Shape;
use crate::ir::trace::Var;
use crate::ops::reduction::reduce::Reduction;

/// The options of [`Var::linear_cross_entropy`], with torch's defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinearCrossEntropy<'a> {
    /// What is added to the logits: `[classes]`, or `[classes, ..]` with the axes that the weight has between.
    pub linear_bias: Option<&'a Var>,
    /// A weight for each class, `[classes]`.
    pub weight: Option<&'a Var>,
    /// What becomes of the items' losses.
    pub reduction: Reduction,
    /// The class index that counts for nothing; -100 if `None`. It cannot be given for probabilities.
    pub ignore_index: Option<i64>,
    /// The part of the target spread over all classes, `[]`; 0 if `None`.
    pub label_smoothing: Option<&'a Var>,
}

impl Var {
    /// Maps the last axis linearly to logits, and gives their cross entropy with targets.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, in_features]` or `[in_features]`, `linear_weight` `[classes, .., in_features]` with other axes
    /// between for a batch only; `target` is `[batch, ..]` or `[]` of i64, or probabilities, as the logits:
    /// `[batch, classes, ..]` or `[classes]`. The loss is `[]`, or without the axis of classes if `reduction` is
    /// [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.linear_cross_entropy`.
    #[must_use]
    pub fn linear_cross_entropy(
        &self,
        linear_weight: &Var,
        target: &Var,
        options: LinearCrossEntropy<'_>,
    ) -> Var {
        let trace = self.trace();
        if trace.error().is_some() {
            return trace.poison();
        }
        let LinearCrossEntropy { linear_bias, weight, reduction, ignore_index, label_smoothing } =
            options;
        let logits = match logits(self, linear_weight, linear_bias) {
            Ok(logits) => logits,
            Err(message) => return trace.fail(message),
        };
        let nothing = self.number(0.0);
        let smoothing = label_smoothing.unwrap_or(&nothing);
        if logits.id().is_some() && target.shape() == logits.shape() {
            if ignore_index.is_some() {
                return trace
                    .fail("ignore_index cannot be specified when target contains probabilities");
            }
            return logits.cross_entropy_of_probabilities(target, weight, smoothing, reduction);
        }
        if target.dtype() != Dtype::I64 {
            let (expected, given) = (logits.shape(), target.shape());
            return trace.fail(format!("Expected target size {expected}, got {given}"));
        }
        logits.cross_entropy(target, weight, smoothing, ignore_index.unwrap_or(-100), reduction)
    }
}

/// Checks sizes, in torch's words, and records the logits.
fn logits(x: &Var, weight: &Var, bias: Option<&Var>) -> Result<Var, String> {
    let rank = x.shape().rank();
    if !(1..=2).contains(&rank) {
        return Err(format!("expected input with dimensionality 1 or 2, got {rank}"));
    }
    let [classes, between @ .., of_weight] = &weight.shape()[..] else {
        let rank = weight.shape().rank();
        return Err(format!("expected linear_weight with dimensionality at least 2, got {rank}"));
    };
    let in_features = x.shape()[rank - 1];
    if in_features != *of_weight {
        return Err(format!(
            "expected equal input and linear_weight last dimensions (in_features), got {in_features} and \
             {of_weight}, respectively"
        ));
    }
    let outputs: Shape = [classes].into_iter().chain(between).copied().collect();
    if let Some(bias) = bias.filter(|bias| *bias.shape() != outputs) {
        return Err(format!("expected linear_bias shape {outputs}, got {}", bias.shape()));
    }
    if !between.is_empty() && rank == 1 {
        return Err(format!(
            "K-dimensional loss defined by linear_weight shape {} requires batched input, (N, {in_features}), got \
             unbatched input with shape {}",
            weight.shape(),
            x.shape()
        ));
    }
    let flat = weight.reshape([outputs.numel(), in_features]);
    let bias = bias.map(|bias| bias.reshape([outputs.numel()]));
    let all = x.linear(&flat, bias.as_ref());
    let shape: Shape = x.shape()[..rank - 1].iter().chain(&*outputs).copied().collect();
    Ok(all.reshape(shape))
}
