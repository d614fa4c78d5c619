//! Losses that are logarithms of likelihoods: [`NLLLoss`], [`KLDivLoss`], [`PoissonNLLLoss`] and
//! [`GaussianNLLLoss`].

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

/// Declares a negative log-likelihood under a name of torch's.
macro_rules! nll_loss {
    ($(#[$doc:meta])* $loss:ident) => {
        $(#[$doc])*
        #[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $loss {
            /// A weight for each class.
            #[structural(ones)]
            pub weight: Option<Vec<f64>>,
            /// The target that counts for nothing.
            pub ignore_index: i64,
            /// What becomes of the items' losses; the mean is a weighted one.
            #[serde(with = "crate::wire")]
            pub reduction: Reduction,
        }

        impl Default for $loss {
            fn default() -> Self {
                $loss { weight: None, ignore_index: -100, reduction: Reduction::Mean }
            }
        }

        #[scalars]
        impl Loss for $loss {
            fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
                let weight = call.array("weight");
                x.nll_loss(target, weight.as_ref(), self.ignore_index, self.reduction)
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
    };
}

nll_loss! {
    /// Takes minus the output at the target class, outputs being logarithms of probabilities.
    ///
    /// # Shape
    ///
    /// The outputs are `[batch, classes]` or `[batch, classes, ..]`, or `[classes]` for one item; the targets
    /// `[batch]`, `[batch, ..]` or `[]`, i64 class indices. The loss is `[]`, or as the targets if `reduction`
    /// is [`Reduction::None`].
    ///
    /// Source: `torch.nn.NLLLoss`.
    NLLLoss
}
nll_loss! {
    /// [`NLLLoss`] under torch's older name.
    ///
    /// Source: `torch.nn.NLLLoss2d`, deprecated there.
    NLLLoss2d
}

/// What becomes of the parts of a [`KLDivLoss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum KLDivReduction {
    /// They stay as they are: `'none'`.
    None,
    /// They are added up, and divided by the size of the first axis: `'batchmean'`, the divergence itself.
    BatchMean,
    /// They are added up: `'sum'`.
    Sum,
    /// They are averaged: `'mean'`.
    #[default]
    Mean,
}

/// Takes the Kullback-Leibler divergence of distributions whose logarithms the outputs are from the targets.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`: probabilities, or their logarithms if `log_target`. The loss
/// is `[]`, or as the outputs if `reduction` is [`KLDivReduction::None`].
///
/// Source: `torch.nn.KLDivLoss`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct KLDivLoss {
    /// What becomes of the parts of the sum.
    pub reduction: KLDivReduction,
    /// Whether targets are logarithms of probabilities.
    pub log_target: bool,
}

/// torch's warning of [`KLDivReduction::Mean`].
const MEAN: &str = "reduction: 'mean' divides the total loss by both the batch size and the support size.\
    'batchmean' divides only by the batch size, and aligns with the KL div math definition.\
    'mean' will be changed to behave the same as 'batchmean' in the next major release.";

impl Loss for KLDivLoss {
    fn forward(&self, _: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        if self.reduction == KLDivReduction::Mean {
            x.trace().warn(MEAN);
        }
        let parts = x.kl_div(&in_dtype_of(x, target), self.log_target);
        match self.reduction {
            KLDivReduction::None => parts,
            KLDivReduction::Sum => parts.sum(&[], false),
            KLDivReduction::Mean => parts.mean(&[], false),
            KLDivReduction::BatchMean => {
                let items = x.shape().first().copied().unwrap_or(1);
                parts.sum(&[], false) / items as f64
            }
        }
    }

    fn reduction(&self) -> Reduction {
        match self.reduction {
            KLDivReduction::None => Reduction::None,
            KLDivReduction::Sum => Reduction::Sum,
            KLDivReduction::Mean | KLDivReduction::BatchMean => Reduction::Mean,
        }
    }
}

/// Takes minus the log-likelihood of counts under Poisson distributions whose rates, or the logarithms of
/// whose rates, the outputs are.
///
/// # Shape
///
/// The targets are as the outputs, `[batch, ..]`; the loss is `[]`, or as the outputs if `reduction` is
/// [`Reduction::None`].
///
/// Source: `torch.nn.PoissonNLLLoss`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct PoissonNLLLoss {
    /// Whether outputs are logarithms of rates.
    pub log_input: bool,
    /// Whether the part that only targets decide is added, by Stirling's approximation.
    pub full: bool,
    /// What is added to rates before their logarithm is taken; a scalar slot, 1e-8 at first.
    #[scalar]
    pub eps: f64,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Default for PoissonNLLLoss {
    fn default() -> Self {
        PoissonNLLLoss { log_input: true, full: false, eps: 1e-8, reduction: Reduction::Mean }
    }
}

#[scalars]
impl Loss for PoissonNLLLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let (target, eps) = (in_dtype_of(x, target), call.scalar("eps", x.dtype()));
        x.poisson_nll_loss(&target, self.log_input, self.full, &eps, self.reduction)
    }

    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Takes minus the log-likelihood of targets under normal distributions of given means and variances.
///
/// A module of `input` (the means), `target` and `var`, which may be a number.
///
/// # Shape
///
/// `input` and `target` are `[batch, ..]`; `var` is as `input`, or lacks its last axis, or has size 1 along one
/// axis. The loss is `[]`, or as `input` if `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.GaussianNLLLoss`, which refuses negative variances.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct GaussianNLLLoss {
    /// Whether the constant part, `½ ln 2π`, is added.
    pub full: bool,
    /// What variances are at least; a scalar slot, 1e-6 at first.
    #[scalar]
    pub eps: f64,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Default for GaussianNLLLoss {
    fn default() -> Self {
        GaussianNLLLoss { full: false, eps: 1e-6, reduction: Reduction::Mean }
    }
}

#[scalars]
impl Module for GaussianNLLLoss {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([x, target, var]) = call.bind_or_none(arguments, ["input", "target", "var"], 3)
        else {
            return call.trace.poison().into();
        };
        let (Tree::Leaf(x), Tree::Leaf(target)) = (x, target) else {
            return call.trace.fail("GaussianNLLLoss.forward(): expected Tensors").into();
        };
        let var = match var {
            Tree::Leaf(var) => var,
            Tree::Number(var) if var < 0.0 => {
                return call.trace.fail("var has negative entry/entries").into();
            }
            Tree::Number(var) => call.trace.constant(var, x.dtype(), x.shape().clone()),
            _ => return call.trace.fail("GaussianNLLLoss.forward(): expected Tensors").into(),
        };
        let (target, eps) = (in_dtype_of(&x, &target), call.scalar("eps", x.dtype()));
        x.gaussian_nll_loss(&target, &var, self.full, &eps, self.reduction).into()
    }
}
