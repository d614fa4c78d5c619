//! [`TripletMarginLoss`] and [`TripletMarginWithDistanceLoss`]: an anchor nearer to one thing than to another.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::Reduction;
use crate::layers::PairwiseDistance;
use crate::module::{Call, Declare, Module};
use crate::{Scalars, scalars};

/// What the two are called with.
const INPUTS: [&str; 3] = ["anchor", "positive", "negative"];

/// Takes `max(0, margin + d(anchor, positive) - d(anchor, negative))`, `d` being the `p`-norm of the difference.
///
/// A module of `anchor`, `positive` and `negative`.
///
/// # Shape
///
/// All are `[batch, size]` or `[size]`; the loss is `[]`, or `[batch]` if `reduction` is [`Reduction::None`].
///
/// Source: `torch.nn.TripletMarginLoss`; a margin that is not positive is not refused.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct TripletMarginLoss {
    /// How much nearer is near enough; a scalar slot, 1 at first.
    #[scalar]
    pub margin: f64,
    /// Which norm.
    pub p: f64,
    /// What is added to differences; a scalar slot, 1e-6 at first.
    #[scalar]
    pub eps: f64,
    /// Whether the negative is compared with the nearer of anchor and positive.
    pub swap: bool,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl Default for TripletMarginLoss {
    fn default() -> Self {
        TripletMarginLoss {
            margin: 1.0,
            p: 2.0,
            eps: 1e-6,
            swap: false,
            reduction: Reduction::Mean,
        }
    }
}

#[scalars]
impl Module for TripletMarginLoss {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([anchor, positive, negative]) = call.named_values(arguments, INPUTS) else {
            return call.trace.poison().into();
        };
        let [margin, eps] = ["margin", "eps"].map(|name| call.scalar(name, anchor.dtype()));
        let TripletMarginLoss { p, swap, reduction, .. } = *self;
        anchor.triplet_margin_loss(&positive, &negative, &margin, p, &eps, swap, reduction).into()
    }
}

/// [`TripletMarginLoss`] with a distance of your own: a module of two values, the child `distance_function`.
///
/// # Shape
///
/// As for [`TripletMarginLoss`], as far as the distance has it so.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::PairwiseDistance;
/// # use neurarch_components::losses::TripletMarginWithDistanceLoss;
/// # use neurarch_components::module::repr::repr;
/// let taxi = PairwiseDistance { p: 1.0, ..PairwiseDistance::default() };
/// let loss = TripletMarginWithDistanceLoss::new(taxi);
/// assert_eq!(loss.margin, 1.0);
/// assert!(repr(&loss).contains("(distance_function): PairwiseDistance()"));
/// ```
///
/// Source: `torch.nn.TripletMarginWithDistanceLoss`; a margin that is not positive is not refused.
#[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[component(summary_tick)]
pub struct TripletMarginWithDistanceLoss<D: Module = PairwiseDistance> {
    /// The distance, as the child is described before it is spawned.
    #[structural(Module::structural)]
    pub distance_function: D,
    /// How much nearer is near enough; a scalar slot, 1 at first.
    #[scalar]
    pub margin: f64,
    /// Whether the negative is compared with the nearer of anchor and positive.
    pub swap: bool,
    /// What becomes of the losses.
    #[serde(with = "crate::wire")]
    pub reduction: Reduction,
}

impl<D: Module> TripletMarginWithDistanceLoss<D> {
    /// Makes a loss of that distance with torch's defaults.
    pub fn new(distance_function: D) -> Self {
        let (margin, swap, reduction) = (1.0, false, Reduction::Mean);
        TripletMarginWithDistanceLoss { distance_function, margin, swap, reduction }
    }
}

impl Default for TripletMarginWithDistanceLoss {
    fn default() -> Self {
        Self::new(PairwiseDistance::default())
    }
}

#[scalars]
impl<D: Module> Module for TripletMarginWithDistanceLoss<D> {
    fn type_name(&self) -> &'static str {
        "TripletMarginWithDistanceLoss"
    }

    fn declare(&self, declare: &mut Declare) {
        declare.child("distance_function", self.distance_function.clone());
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([anchor, positive, negative]) = call.named_values(arguments, INPUTS) else {
            return call.trace.poison().into();
        };
        let distance = |a: &Var, b: &Var| {
            let path = "distance_function";
            call.one_value(path, call.child_with(path, Arguments::each([a.clone(), b.clone()])))
        };
        let margin = call.scalar("margin", anchor.dtype());
        let Self { swap, reduction, .. } = *self;
        anchor
            .triplet_margin_with_distance_loss(
                &positive, &negative, distance, &margin, swap, reduction,
            )
            .into()
    }
}
