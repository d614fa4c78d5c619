//! [`Muon`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
pub use neurarch_kernels::ops::update::muon::AdjustLr;
use neurarch_kernels::ops::update::muon::MuonSettings;
use serde::{Deserialize, Serialize};

use super::check::require;
use super::{Optimizer, OptimizerError, Update};
#[cfg(feature = "reflect")]
use crate::reflect::{Reflect, ReflectComponent, ReflectDefault};
use crate::{Scalars, scalars};

/// Muon: steps along the mean gradient of a matrix, made nearly orthogonal.
///
/// It is for matrices: on a module that has other parameters a step is an error. Give biases, norms and
/// embeddings another optimizer, on their own modules or by layers without a bias.
///
/// The numbers are scalar slots; the flag, `ns_steps` and `adjust_lr_fn` are structure.
///
/// Source: `torch.optim.Muon`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
#[cfg_attr(feature = "reflect", derive(Reflect), reflect(Component, Default))]
#[component(summary_tick)]
pub struct Muon {
    /// Learning rate.
    #[scalar]
    pub lr: f64,
    /// The parameter is multiplied by `1 - lr · weight_decay` before each step.
    #[scalar]
    pub weight_decay: f64,
    /// How much is kept of the mean gradient.
    #[scalar]
    pub momentum: f64,
    /// Whether to look ahead along the mean gradient.
    pub nesterov: bool,
    /// The least norm that it is divided by.
    #[scalar]
    pub eps: f64,
    /// The coefficients of the polynomial that makes it orthogonal.
    #[scalar("a", "b", "c")]
    pub ns_coefficients: (f64, f64, f64),
    /// How often the polynomial is applied; less than 100.
    pub ns_steps: usize,
    /// What multiplies the learning rate, by the matrix's sizes.
    #[serde(with = "crate::wire")]
    #[cfg_attr(feature = "reflect", reflect(ignore))]
    pub adjust_lr_fn: AdjustLr,
}

impl Default for Muon {
    fn default() -> Self {
        Muon {
            lr: 1e-3,
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            ns_coefficients: (3.4445, -4.7750, 2.0315),
            eps: 1e-7,
            ns_steps: 5,
            adjust_lr_fn: AdjustLr::Original,
        }
    }
}

#[scalars]
impl Optimizer for Muon {
    fn states(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn keeps_step(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), OptimizerError> {
        let Muon { lr, weight_decay, momentum, ns_steps, .. } = *self;
        require(lr >= 0.0, || format!("Learning rate should be >= 0 but is: {lr:?}"))?;
        require(momentum >= 0.0, || format!("momentum should be >= 0 but is: {momentum:?}"))?;
        require(weight_decay >= 0.0, || {
            format!("weight decay should be >= 0 but is: {weight_decay:?}")
        })?;
        require(ns_steps < 100, || {
            "Number of steps must be less than 100 for computational efficiency".to_owned()
        })
    }

    fn update(&self, at: &Update<'_>) -> Var {
        let Muon { nesterov, ns_steps, adjust_lr_fn, .. } = *self;
        let settings = MuonSettings { nesterov, ns_steps, adjust_lr_fn };
        at.by(|inputs| at.parameter.muon(inputs, settings))
    }
}
