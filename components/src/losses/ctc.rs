//! [`CTCLoss`]: labels without their places in a sequence of frames.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::Reduction;
use crate::module::{Call, Module};

/// Takes minus the logarithm of the probability of each item's labels, over all ways to stretch them over
/// the frames with blanks between.
///
/// A module of `log_probs`, `targets`, `input_lengths` and `target_lengths`; the lengths may be tuples of
/// numbers.
///
/// # Shape
///
/// `log_probs` is `[frames, batch, classes]`, `targets` is `[batch, labels]` or `[labels of all]`, the lengths
/// are `[batch]`; for one item they are `[frames, classes]`, `[labels]` and `[]`. All but `log_probs` are of
/// i64. The loss is `[]`, or as the lengths if `reduction` is [`Reduction::None`]; the mean is that of losses
/// divided by their numbers of labels.
///
/// Source: `torch.nn.CTCLoss`. Lengths and labels that do not fit give NaN, where torch raises. As in torch the
/// gradient takes `log_probs` to be `log_softmax` of logits, and has none of its own.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct CTCLoss {
    /// The class that stands for no label.
    pub blank: usize,
    /// What becomes of the items' losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
    /// Whether items whose labels do not fit into their frames have loss and gradient 0, not infinity.
    pub zero_infinity: bool,
}

impl Module for CTCLoss {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let names = ["log_probs", "targets", "input_lengths", "target_lengths"];
        let Some([log_probs, targets, input_lengths, target_lengths]) =
            call.bind_or_none(arguments, names, 4)
        else {
            return call.trace.poison().into();
        };
        let (Tree::Leaf(log_probs), Tree::Leaf(targets)) = (log_probs, targets) else {
            return call.trace.fail("CTCLoss.forward(): expected Tensors").into();
        };
        let lengths = [input_lengths, target_lengths].map(|of| lengths(call, of));
        let CTCLoss { blank, reduction, zero_infinity } = *self;
        log_probs
            .ctc_loss(&targets, &lengths[0], &lengths[1], blank, reduction, zero_infinity)
            .into()
    }
}

/// Makes a value of lengths, which may be numbers.
fn lengths(call: &Call<'_>, lengths: Tree) -> Var {
    let number = |tree: &Tree| match tree {
        Tree::Number(length) => Some(call.trace.constant(*length, Dtype::I64, [1])),
        _ => None,
    };
    let numbers: Option<Vec<_>> = match &lengths {
        Tree::Leaf(lengths) => return lengths.clone(),
        Tree::Tuple(items) => items.iter().map(number).collect(),
        other => number(other).map(|length| vec![length]),
    };
    match numbers {
        Some(numbers) if !numbers.is_empty() => Var::cat(&numbers.iter().collect::<Vec<_>>(), 0),
        _ => call.trace.fail("CTCLoss.forward(): expected lengths"),
    }
}
