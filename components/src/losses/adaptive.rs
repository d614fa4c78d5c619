//! [`AdaptiveLogSoftmaxWithLoss`]: a softmax over many classes that spends little on rare ones.

use bevy_ecs::prelude::*;
use neurarch_kernels::arithmetic::elementary;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::Reduction;
use crate::layers::{Linear, ModuleList, Sequential};
use crate::module::call::Watcher;
use crate::module::{Call, Declare, Module};

/// Returns the logarithm of the probability of each target class, and minus their mean as the loss.
///
/// The head decides between the first classes, up to the first cutoff, and clusters; each cluster's tail
/// decides between the classes from one cutoff to the next, by way of fewer features the rarer they are.
/// Classes are in the order of how often they come.
///
/// A module of `input` and `target`, which gives `(output, loss)`.
///
/// | value                    | shape                                     |
/// |--------------------------|-------------------------------------------|
/// | `input`                  | `[batch, in_features]` or `[in_features]` |
/// | `target`, `output`       | `[batch]` or `[]`; targets are i64        |
/// | `loss`                   | `[]`                                      |
/// | `head.weight`, `.bias`   | `[cutoffs[0] + clusters, in_features]`, `[..]` |
/// | `tail.i.0.weight`        | `[in_features / div_value^(i + 1), in_features]` |
/// | `tail.i.1.weight`        | `[classes of the cluster, as above]`      |
///
/// # Example
///
/// ```
/// # use neurarch_components::losses::AdaptiveLogSoftmaxWithLoss;
/// let softmax = AdaptiveLogSoftmaxWithLoss::new(64, 1000, [20, 200]);
/// assert_eq!((softmax.div_value, softmax.head_bias), (4.0, false));
/// ```
///
/// Source: `torch.nn.AdaptiveLogSoftmaxWithLoss`. A target that is no class gives NaN, where torch raises. A tail
/// that no target of a call needs has no gradient where a forward pass is eager, as in torch, and one of zeros where
/// it is planned, since a plan does not see targets; `train_step` always takes zeros. Cutoffs that do not fit are an
/// error of the first call.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct AdaptiveLogSoftmaxWithLoss {
    /// Size of the last axis of `input`.
    pub in_features: usize,
    /// How many classes there are.
    pub n_classes: usize,
    /// The first class of each cluster, ascending.
    pub cutoffs: Vec<usize>,
    /// By how much the features of a tail are fewer than those of the one before.
    pub div_value: f64,
    /// Whether the head has a bias.
    pub head_bias: bool,
}

impl AdaptiveLogSoftmaxWithLoss {
    /// Makes a layer with torch's defaults.
    pub fn new(in_features: usize, n_classes: usize, cutoffs: impl Into<Vec<usize>>) -> Self {
        let (cutoffs, div_value, head_bias) = (cutoffs.into(), 4.0, false);
        AdaptiveLogSoftmaxWithLoss { in_features, n_classes, cutoffs, div_value, head_bias }
    }

    /// Says what is wrong with the cutoffs.
    fn wrong_cutoffs(&self) -> Option<&'static str> {
        if self.cutoffs.is_empty() {
            return Some("cutoffs should be a sequence of length larger than 0");
        }
        let ascends = self.cutoffs.is_sorted_by(|a, b| a < b);
        let fits = self.cutoffs.iter().all(|&cutoff| 0 < cutoff && cutoff < self.n_classes);
        (!ascends || !fits).then_some(
            "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where \
             each value is between 1 and n_classes-1",
        )
    }

    /// Lists the clusters: the first class of each, and the one behind its last.
    fn clusters(&self) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.cutoffs.iter().skip(1).copied().chain([self.n_classes]);
        self.cutoffs.iter().copied().zip(ends)
    }

    /// Returns the logarithms of the probabilities of all classes. `path` is that of this module from the one
    /// that `call` is of, empty for itself.
    ///
    /// # Shape
    ///
    /// `x` is `[batch, in_features]`, the result `[batch, n_classes]`.
    ///
    /// Source: `torch.nn.AdaptiveLogSoftmaxWithLoss.log_prob`.
    pub fn log_prob(&self, call: &Call<'_>, path: &str, x: &Var) -> Var {
        self.log_prob_of(call, path, x, |_, _| true)
    }

    /// [`log_prob`](AdaptiveLogSoftmaxWithLoss::log_prob) of the clusters that are needed, by their first class
    /// and the one behind their last; that of others is 0.
    fn log_prob_of(
        &self,
        call: &Call<'_>,
        path: &str,
        x: &Var,
        is_needed: impl Fn(usize, usize) -> bool,
    ) -> Var {
        if let Some(wrong) = self.wrong_cutoffs() {
            return call.trace.fail(wrong);
        }
        let below = |name: String| if path.is_empty() { name } else { format!("{path}.{name}") };
        let head = call.child(&below("head".into()), x).log_softmax(-1);
        if head.id().is_none() {
            return head;
        }
        let shortlist = self.cutoffs[0];
        let mut parts = vec![head.slice(-1, 0..shortlist)];
        for (cluster, (start, end)) in self.clusters().enumerate() {
            if !is_needed(start, end) {
                parts.push(call.trace.constant(0.0, x.dtype(), [head.shape()[0], end - start]));
                continue;
            }
            let tail = call.child(&below(format!("tail.{cluster}")), x).log_softmax(-1);
            let place = shortlist + cluster;
            parts.push(tail + head.slice(-1, place..place + 1));
        }
        Var::cat(&parts.iter().collect::<Vec<_>>(), -1)
    }

    /// Returns the most likely class of each item, in i64; `path` is as for
    /// [`log_prob`](AdaptiveLogSoftmaxWithLoss::log_prob).
    ///
    /// # Shape
    ///
    /// `x` is `[batch, in_features]`, the result `[batch]`.
    ///
    /// Source: `torch.nn.AdaptiveLogSoftmaxWithLoss.predict`.
    pub fn predict(&self, call: &Call<'_>, path: &str, x: &Var) -> Var {
        self.log_prob(call, path, x).argmax(-1)
    }

    /// Says what is wrong with the shapes of a call.
    fn mismatch(x: &Shape, target: &Shape) -> Option<String> {
        let size = format!("but found inputs with size torch.Size({x})");
        match (target.rank(), x.rank()) {
            (1, _) if x.first() != target.first() => {
                Some("Input and target should have the same size in the batch dimension.".into())
            }
            (1, 2) | (0, 1) => None,
            (1, _) => Some(format!("1D target tensor expects 2D input tensors, {size}")),
            (0, _) => Some(format!("0D target tensor expects 1D input tensors, {size}")),
            _ => Some("0D or 1D target tensor expected, multi-target not supported".into()),
        }
    }
}

impl Module for AdaptiveLogSoftmaxWithLoss {
    fn declare(&self, declare: &mut Declare) {
        let AdaptiveLogSoftmaxWithLoss { in_features, div_value, head_bias, .. } = *self;
        let first = self.cutoffs.first().copied().unwrap_or(0);
        let out_features = first.saturating_add(self.cutoffs.len());
        declare.child("head", Linear { in_features, out_features, bias: head_bias });
        let tail = self.clusters().enumerate().map(|(cluster, (start, end))| {
            // Python's `//` of floats; a size that is none becomes 0.
            let divisor = elementary::pow(div_value, (cluster + 1) as f64);
            let hidden = (in_features as f64 / divisor).floor() as usize;
            let narrow = Linear::new(in_features, hidden).without_bias();
            let wide = Linear::new(hidden, end.saturating_sub(start)).without_bias();
            Sequential::new().push(narrow).push(wide)
        });
        declare.child("tail", ModuleList::from_iter(tail));
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([x, target]) = call.named_values(arguments, ["input_", "target_"]) else {
            return call.trace.poison().into();
        };
        if x.id().is_none() || target.id().is_none() {
            return call.trace.poison().into();
        }
        if let Some(wrong) = Self::mismatch(x.shape(), target.shape()) {
            return call.trace.fail(wrong).into();
        }
        let items = target.shape().clone();
        let (x, target) = match items.rank() {
            0 => (x.reshape([1, x.shape().numel()]), target.reshape([1])),
            _ => (x, target),
        };
        // An eager pass sees the targets of its models.
        let may_leave_out = call.watcher.is_none_or(Watcher::may_leave_out);
        let targets = target.read::<i64>().ok().filter(|_| may_leave_out);
        let is_needed = |start: usize, end: usize| {
            let within = |&target: &i64| (start as i64..end as i64).contains(&target);
            targets.as_ref().is_none_or(|targets| targets.iter().any(within))
        };
        let log_prob = self.log_prob_of(call, "", &x, is_needed);
        let losses = log_prob.nll_loss(&target, None, i64::MIN, Reduction::None);
        let loss = losses.mean(&[], false);
        ((-losses).reshape(items), loss).into()
    }
}
