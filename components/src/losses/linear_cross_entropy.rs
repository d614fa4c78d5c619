//! [`LinearCrossEntropyLoss`]: cross entropy behind a linear map of its own.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::ops::loss::linear_cross_entropy::LinearCrossEntropy;
use serde::{Deserialize, Serialize};

use super::Reduction;
use super::cross_entropy::ones;
use crate::layers::Linear;
use crate::module::repr::{boolean, float, tuple};
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// Maps inputs linearly to logits, and gives their cross entropy with targets.
///
/// A module of `input` and `target`.
///
/// | value           | shape                                                                              |
/// |-----------------|------------------------------------------------------------------------------------|
/// | `input`         | `[batch, in_features]` or `[in_features]`                                            |
/// | `target`        | `[batch, ..]` or `[]`, i64 classes; or probabilities `[batch, num_classes, ..]`, `[num_classes]` |
/// | `linear.weight` | `[num_classes · out_features, in_features]`                                          |
/// | `linear.bias`   | `[num_classes · out_features]`; absent if `!bias`                                    |
/// | `weight`        | `[num_classes]`, a buffer; absent if none is given                                   |
/// | loss            | `[]`, or without the axis of classes if `reduction` is [`Reduction::None`]           |
///
/// where `..` are the sizes `out_features`.
///
/// # Example
///
/// ```
/// # use neurarch_components::losses::LinearCrossEntropyLoss;
/// let loss = LinearCrossEntropyLoss { bias: true, ..LinearCrossEntropyLoss::new(5, 10) };
/// assert!(loss.out_features.is_empty());
/// ```
///
/// Source: `torch.nn.LinearCrossEntropyLoss`, without `options`: those are about memory, and change no result.
#[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct LinearCrossEntropyLoss {
    /// Size of the last axis of `input`.
    pub in_features: usize,
    /// How many classes there are.
    pub num_classes: usize,
    /// The axes of the loss behind the batch; none at first.
    pub out_features: Vec<usize>,
    /// Whether the linear map has a bias; not at first.
    pub bias: bool,
    /// A weight for each class.
    #[structural(ones)]
    pub weight: Option<Vec<f64>>,
    /// What becomes of the items' losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
    /// The class index that counts for nothing; -100 if `None`. It cannot be given for probabilities.
    pub ignore_index: Option<i64>,
    /// The part of the target spread over all classes, from 0 to 1. A scalar slot.
    #[scalar]
    pub label_smoothing: f64,
}

impl LinearCrossEntropyLoss {
    /// Makes a loss with torch's defaults.
    pub fn new(in_features: usize, num_classes: usize) -> Self {
        LinearCrossEntropyLoss {
            in_features,
            num_classes,
            out_features: Vec::new(),
            bias: false,
            weight: None,
            reduction: Reduction::Mean,
            ignore_index: None,
            label_smoothing: 0.0,
        }
    }

    /// Counts the outputs of the linear map.
    fn outputs(&self) -> usize {
        self.num_classes * self.out_features.iter().product::<usize>()
    }
}

#[scalars]
impl Module for LinearCrossEntropyLoss {
    fn declare(&self, declare: &mut Declare) {
        match &self.weight {
            Some(weight) => declare.buffer("weight", [weight.len()], true),
            None => declare.no_buffer("weight"),
        };
        let linear = Linear::new(self.in_features, self.outputs());
        declare.child("linear", Linear { bias: self.bias, ..linear });
    }

    fn reset(&self, name: &str) -> Init {
        match &self.weight {
            Some(weight) if name == "weight" => Init::Numbers(weight.clone().into()),
            _ => Init::Zeros,
        }
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([input, target]) = call.named_values(arguments, ["input", "target"]) else {
            return call.trace.poison().into();
        };
        let (classes, trace) = (self.num_classes, call.trace);
        if let Some(weight) = self.weight.as_ref().filter(|weight| weight.len() != classes) {
            let given = weight.len();
            return trace
                .fail(format!("expected weight shape to be ({classes},), got ({given},)"))
                .into();
        }
        let outputs = [classes].into_iter().chain(self.out_features.iter().copied());
        let outputs: Vec<_> = outputs.collect();
        let linear = call.parameter("linear.weight");
        let linear =
            linear.reshape(outputs.iter().copied().chain([self.in_features]).collect::<Vec<_>>());
        let bias = self.bias.then(|| call.parameter("linear.bias").reshape(outputs.as_slice()));
        let weight = self.weight.as_ref().map(|_| call.buffer("weight"));
        let options = LinearCrossEntropy {
            linear_bias: bias.as_ref(),
            weight: weight.as_ref(),
            reduction: self.reduction,
            ignore_index: self.ignore_index,
            label_smoothing: Some(&call.scalar("label_smoothing", input.dtype())),
        };
        input.linear_cross_entropy(&linear, &target, options).into()
    }

    fn extra_repr(&self) -> String {
        let index = self.ignore_index.map_or("None".to_owned(), |index| index.to_string());
        format!(
            "in_features={}, num_classes={}, out_features={}, bias={}, reduction={}, ignore_index={index}, \
             label_smoothing={}, options=None",
            self.in_features,
            self.num_classes,
            tuple(&self.out_features),
            boolean(self.bias),
            self.reduction.name(),
            float(self.label_smoothing)
        )
    }
}
