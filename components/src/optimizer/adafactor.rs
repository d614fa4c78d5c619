//! [`Adafactor`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::update::adafactor::AdafactorSettings;
use serde::{Deserialize, Serialize};

use super::check::require;
use super::{Form, Optimizer, OptimizerError, StateEntry, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Adafactor: steps scaled by the mean square of the gradient, of which only means of rows and columns are
/// kept.
///
/// The numbers are scalar slots, except that whether there is an `eps.0` is structure, as is the flag.
///
/// Source: `torch.optim.Adafactor`. Its state here takes twice the parameter's memory.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Adafactor {
    /// The greatest learning rate.
    #[scalar]
    pub lr: f64,
    /// The power of the step by which means follow new gradients.
    #[scalar]
    pub beta2_decay: f64,
    /// The least root of the mean square (if `None`, the distance from 1 to the next number of the parameter's
    /// type), and the least size of a parameter.
    #[scalar("eps1", "eps2")]
    pub eps: (Option<f64>, f64),
    /// The greatest size of a step before it is scaled.
    #[scalar]
    pub d: f64,
    /// The parameter is multiplied by `1 - lr · weight_decay` before each step.
    #[scalar]
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adafactor {
    fn default() -> Self {
        Adafactor {
            lr: 1e-2,
            beta2_decay: -0.8,
            eps: (None, 1e-3),
            d: 1.0,
            weight_decay: 0.0,
            maximize: false,
        }
    }
}

#[scalars]
impl Optimizer for Adafactor {
    fn states(&self) -> &'static [&'static str] {
        &["row_var", "col_var"]
    }

    fn state_entry(&self, state: usize, shape: &[usize]) -> Option<StateEntry> {
        let (name, form) = match (state, shape.len()) {
            (0, 0 | 1) => ("variance", Form::Elements),
            (0, _) => ("row_var", Form::Rows),
            (1, 2..) => ("col_var", Form::Columns),
            _ => return None,
        };
        Some(StateEntry { name, form })
    }

    fn check(&self) -> Result<(), OptimizerError> {
        let Adafactor { lr, beta2_decay, eps: (eps1, eps2), d, weight_decay, .. } = *self;
        require(lr >= 0.0, || format!("Learning rate should be >= 0 but is: {lr:?}"))?;
        require(beta2_decay <= 0.0, || {
            format!("beta2_decay should be <= 0 but is: {beta2_decay:?}")
        })?;
        if let Some(eps1) = eps1 {
            require(eps1 >= 0.0, || format!("epsilon1 should be >= 0 but is: {eps1:?}"))?;
        }
        require(eps2 >= 0.0, || format!("epsilon2 should be >= 0 but is: {eps2:?}"))?;
        require(d >= 1.0, || format!("Clipping threshold d should be >= 1 but is: {d:?}"))?;
        require(weight_decay >= 0.0, || {
            format!("weight_decay should be >= 0 but is: {weight_decay:?}")
        })
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let least = match at.parameter.dtype() {
            Dtype::F64 => f64::EPSILON,
            _ => f64::from(f32::EPSILON),
        };
        let rate = |name| match (name, self.eps.0) {
            ("eps1", None) => at.trace.constant(least, Dtype::F64, []),
            _ => at.scalar(name),
        };
        let settings = AdafactorSettings { maximize: self.maximize };
        at.by_rates(&rate, |inputs| at.parameter.adafactor(inputs, settings))
    }
}
