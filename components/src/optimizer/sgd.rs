//! [`SGD`]: gradient descent.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings};
use serde::{Deserialize, Serialize};

use super::check::{at_least_0, require};
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Stochastic gradient descent, with momentum if `momentum` is not 0.
///
/// The numbers are scalar slots, except that whether `momentum` is 0 is structure, as are the flags.
///
/// Source: `torch.optim.SGD`; its `lr` has the default 1e-3 here as there.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct SGD {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// How much of the last step's direction is kept.
    #[scalar]
    #[structural(is_nonzero)]
    pub momentum: f64,
    /// How much of the gradient the direction leaves out.
    #[scalar]
    pub dampening: f64,
    /// Multiple of the parameter that is added to its gradient.
    #[scalar]
    pub weight_decay: f64,
    /// Whether to look ahead along the direction. Needs momentum, and no dampening.
    pub nesterov: bool,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for SGD {
    fn default() -> Self {
        SGD {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            maximize: false,
        }
    }
}

/// Returns 1 for any number but 0: of momentum, only whether there is some is structure.
fn is_nonzero(number: &f64) -> f64 {
    if *number == 0.0 { 0.0 } else { 1.0 }
}

#[scalars]
impl Optimizer for SGD {
    fn states(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    fn keeps_step(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr)?;
        at_least_0("momentum value", self.momentum)?;
        at_least_0("weight_decay value", self.weight_decay)?;
        let is_plain = self.momentum > 0.0 && self.dampening == 0.0;
        require(!self.nesterov || is_plain, || {
            "Nesterov momentum requires a momentum and zero dampening".to_owned()
        })
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let rates = SgdRates { lr: &at.scalar("lr"), weight_decay: &at.scalar("weight_decay") };
        let momentum = at
            .states
            .first()
            .map(|buffer| (buffer, [at.scalar("momentum"), at.scalar("dampening")]));
        let momentum = momentum.as_ref().map(|(buffer, [momentum, dampening])| SgdMomentum {
            buffer,
            momentum,
            dampening,
        });
        let Self { nesterov, maximize, .. } = *self;
        let settings = SgdSettings { index: at.index, nesterov, maximize };
        let after = at.parameter.sgd(at.gradient, at.steps, &rates, momentum.as_ref(), settings);
        at.trace.store(at.parameter, &after.parameter);
        if let Some((before, after)) = at.states.first().zip(after.buffer) {
            at.trace.store(before, &after);
        }
        after.steps
    }
}
