//! Optimizers: components that say how a model learns. On the root for the model, on a module for its
//! subtree (torch's parameter groups); the nearest wins.

use core::any::Any;
use core::fmt::Debug;

use bevy_ecs::prelude::*;
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::ops::adam::{AdamRates, AdamSettings};
use neurarch_kernels::ops::sgd::{SgdMomentum, SgdRates, SgdSettings};
use neurarch_kernels::program::trace::{Trace, Var};
use neurarch_kernels::program::{Scalar, ScalarOf};

/// A rule that changes a parameter by its gradient.
///
/// Rates are scalar slots, read from each model's own component: a sweep over them is one blueprint.
/// What decides which ops run (`nesterov`, whether there is momentum) is structure.
///
/// Source: `torch.optim.Optimizer`.
pub trait Optimizer: Component + Clone + Debug + PartialEq {
    /// Names what is kept for each parameter beside the count of steps, in order: companion columns of
    /// the parameter's own type, zero at first.
    fn states(&self) -> &'static [&'static str];

    /// Writes down one update: stores the parameter and its states, and gives the steps after it.
    fn update(&self, at: &Update<'_>) -> Var;

    /// Gives a copy in which every scalar slot has a fixed value: what decides the program.
    fn structural(&self) -> Self;

    /// Reads a scalar slot; `None` if there is none of that name.
    fn scalar(&self, name: &str) -> Option<f64>;
}

/// Where an [`Optimizer`] updates: one parameter of one position.
#[derive(Clone, Copy)]
pub struct Update<'a> {
    /// The recording.
    pub trace: &'a Trace,
    /// The position whose entity has the optimizer.
    pub owner: usize,
    /// The parameter's place in its module, and its count's in `steps`.
    pub index: usize,
    /// The parameter before the update.
    pub parameter: &'a Var,
    /// Its gradient.
    pub gradient: &'a Var,
    /// Its states, in the order of [`Optimizer::states`].
    pub states: &'a [Var],
    /// How often each parameter of the module has been updated: f32, `[parameters]`.
    pub steps: &'a Var,
}

impl Update<'_> {
    /// Gives a number of the optimizer, in double precision.
    pub fn scalar(&self, name: &'static str) -> Var {
        let scalar = Scalar { name, of: ScalarOf::Optimizer, position: self.owner };
        self.trace.scalar(scalar, Dtype::F64)
    }
}

/// [`Optimizer`] behind a pointer; every optimizer is one.
pub trait DynOptimizer: Any + Debug + Send + Sync {
    /// See [`Optimizer::states`].
    fn states(&self) -> &'static [&'static str];
    /// See [`Optimizer::update`].
    fn update(&self, at: &Update<'_>) -> Var;
    /// See [`Optimizer::structural`].
    fn structural(&self) -> Box<dyn DynOptimizer>;
    /// See [`Optimizer::scalar`].
    fn scalar(&self, name: &str) -> Option<f64>;
    /// Says whether the two record the same update: one type, equal structural fields.
    fn is_like(&self, other: &dyn DynOptimizer) -> bool;
    /// Says whether the two are of one type.
    fn is_of_one_type(&self, other: &dyn DynOptimizer) -> bool;
    /// Says whether the two are equal, scalar slots included.
    fn equals(&self, other: &dyn DynOptimizer) -> bool;
    /// Copies.
    fn clone_box(&self) -> Box<dyn DynOptimizer>;
    /// Adds the optimizer as a component.
    fn insert(&self, entity: &mut EntityWorldMut<'_>);
}

impl<O: Optimizer> DynOptimizer for O {
    fn states(&self) -> &'static [&'static str] {
        Optimizer::states(self)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        Optimizer::update(self, at)
    }

    fn structural(&self) -> Box<dyn DynOptimizer> {
        Box::new(Optimizer::structural(self))
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        Optimizer::scalar(self, name)
    }

    fn is_like(&self, other: &dyn DynOptimizer) -> bool {
        let other = (other as &dyn Any).downcast_ref::<O>();
        other.is_some_and(|other| Optimizer::structural(self) == Optimizer::structural(other))
    }

    fn is_of_one_type(&self, other: &dyn DynOptimizer) -> bool {
        (other as &dyn Any).is::<O>()
    }

    fn equals(&self, other: &dyn DynOptimizer) -> bool {
        (other as &dyn Any).downcast_ref::<O>() == Some(self)
    }

    fn clone_box(&self) -> Box<dyn DynOptimizer> {
        Box::new(self.clone())
    }

    fn insert(&self, entity: &mut EntityWorldMut<'_>) {
        entity.insert(self.clone());
    }
}

/// Stochastic gradient descent, with momentum if `momentum` is not 0.
///
/// The numbers are scalar slots, except that whether `momentum` is 0 is structure, as are the flags.
///
/// Source: `torch.optim.SGD`; its `lr` has the default 1e-3 here as there.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct SGD {
    /// Learning rate.
    pub lr: f64,
    /// How much of the last step's direction is kept.
    pub momentum: f64,
    /// How much of the gradient the direction leaves out.
    pub dampening: f64,
    /// Multiple of the parameter that is added to its gradient.
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

/// Adam: steps scaled by running means of the gradient and of its square.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.Adam`.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    pub eps: f64,
    /// Multiple of the parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false }
    }
}

/// Adam whose weight decay shrinks the parameter itself, not by way of the gradient.
///
/// The numbers are scalar slots; the flags are structure.
///
/// Source: `torch.optim.AdamW`.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// How much is kept of the running means of the gradient and of its square.
    pub betas: (f64, f64),
    /// What is added to the root of the mean square.
    pub eps: f64,
    /// The parameter is multiplied by `1 - lr · weight_decay` before each step.
    pub weight_decay: f64,
    /// Whether to climb.
    pub maximize: bool,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 1e-2, maximize: false }
    }
}

impl Optimizer for SGD {
    fn states(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
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

    fn structural(&self) -> Self {
        // Any number but 0 stands for all others.
        let momentum = if self.momentum == 0.0 { 0.0 } else { 1.0 };
        let Self { nesterov, maximize, .. } = *self;
        SGD { lr: 0.0, momentum, dampening: 0.0, weight_decay: 0.0, nesterov, maximize }
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        match name {
            "lr" => Some(self.lr),
            "momentum" => Some(self.momentum),
            "dampening" => Some(self.dampening),
            "weight_decay" => Some(self.weight_decay),
            _ => None,
        }
    }
}

/// Records the update that [`Adam`] and [`AdamW`] have in common.
fn update_adam(at: &Update<'_>, decoupled: bool, maximize: bool) -> Var {
    let [exp_avg, exp_avg_sq] = at.states else {
        at.trace.fail("adam: expected the states exp_avg and exp_avg_sq");
        return at.steps.clone();
    };
    let rates = AdamRates {
        lr: &at.scalar("lr"),
        beta1: &at.scalar("beta1"),
        beta2: &at.scalar("beta2"),
        eps: &at.scalar("eps"),
        weight_decay: &at.scalar("weight_decay"),
    };
    let settings = AdamSettings { index: at.index, decoupled, maximize };
    let after = at.parameter.adam(at.gradient, (exp_avg, exp_avg_sq), at.steps, &rates, settings);
    at.trace.store(at.parameter, &after.parameter);
    at.trace.store(exp_avg, &after.exp_avg);
    at.trace.store(exp_avg_sq, &after.exp_avg_sq);
    after.steps
}

/// Implements [`Optimizer`] for a component with the fields of [`Adam`].
macro_rules! adam {
    ($optimizer:ident, decoupled: $decoupled:literal) => {
        impl Optimizer for $optimizer {
            fn states(&self) -> &'static [&'static str] {
                &["exp_avg", "exp_avg_sq"]
            }

            fn update(&self, at: &Update<'_>) -> Var {
                update_adam(at, $decoupled, self.maximize)
            }

            fn structural(&self) -> Self {
                let betas = (0.0, 0.0);
                $optimizer { lr: 0.0, betas, eps: 0.0, weight_decay: 0.0, maximize: self.maximize }
            }

            fn scalar(&self, name: &str) -> Option<f64> {
                match name {
                    "lr" => Some(self.lr),
                    "beta1" => Some(self.betas.0),
                    "beta2" => Some(self.betas.1),
                    "eps" => Some(self.eps),
                    "weight_decay" => Some(self.weight_decay),
                    _ => None,
                }
            }
        }
    };
}

adam!(Adam, decoupled: false);
adam!(AdamW, decoupled: true);
