//! Optimizers: components that say how a model learns. On the root for the model, on a module for its
//! subtree; the nearest wins. [`ParamGroups`] are several groups of parameters of one optimizer.

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod asgd;
mod average;
mod check;
mod groups;
mod lbfgs;
mod muon;
mod nadam;
mod radam;
mod rmsprop;
mod rprop;
mod sgd;
mod sparse_adam;

use core::any::Any;
use core::fmt::Debug;

use bevy_ecs::component::Mutable;
use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Scalar, ScalarOf};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::update::rule::{UpdateInputs, Updated};

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use adamax::Adamax;
pub use asgd::ASGD;
pub use average::{AverageFn, AveragedModel};
pub use check::OptimizerError;
pub use groups::{DynParamGroups, NamedParameter, OptimizerComponent, ParamGroups};
pub use lbfgs::{LBFGS, LbfgsState, LineSearch};
pub use muon::{AdjustLr, Muon};
pub use nadam::NAdam;
pub use radam::RAdam;
pub use rmsprop::RMSprop;
pub use rprop::Rprop;
pub use sgd::SGD;
pub use sparse_adam::SparseAdam;

/// A rule that changes a parameter by its gradient.
///
/// Rates are scalar slots, read from each model's own component: a sweep over them is one blueprint.
/// What decides which ops run (`nesterov`, whether there is momentum) is structure. [`#[scalars]`](macro@crate::scalars)
/// writes the last four methods by the fields that have `#[scalar]`.
///
/// Source: `torch.optim.Optimizer`.
pub trait Optimizer: Component<Mutability = Mutable> + Clone + Debug + PartialEq {
    /// Names what is kept for each parameter beside the count of steps, in order: companion columns of
    /// the parameter's own type, zero at first. At most 255, each by a name of its own, none of them `step`: a training
    /// step with others is an error.
    fn states(&self) -> &'static [&'static str];

    /// Says how a state of a parameter of that shape appears in the optimizer's state dict; `None` if it does
    /// not: it is not used then.
    fn state_entry(&self, state: usize, shape: &[usize]) -> Option<StateEntry> {
        let _ = shape;
        self.states().get(state).map(|&name| StateEntry { name, form: Form::Elements })
    }

    /// Returns the number that fills a state in the state dict before the first step, if torch makes it so early.
    fn initial(&self, state: usize) -> Option<f64> {
        let _ = state;
        None
    }

    /// Returns whether the state dict has the count of steps.
    fn keeps_step(&self) -> bool {
        true
    }

    /// Checks the numbers and flags.
    ///
    /// # Errors
    ///
    /// [`OptimizerError`], in torch's words. Models do not learn by such an optimizer: the step fails.
    fn check(&self) -> Result<(), OptimizerError> {
        Ok(())
    }

    /// Writes down one update: stores the parameter and its states, and gives the steps after it.
    fn update(&self, at: &Update<'_>) -> Var;

    /// Returns a copy in which every scalar slot has a fixed value: what decides the program.
    fn structural(&self) -> Self;

    /// Reads a scalar slot; `None` if there is none of that name.
    fn scalar(&self, name: &str) -> Option<f64>;

    /// Returns a scalar slot to be changed, as a scheduler does; `None` if there is none of that name.
    fn scalar_mut(&mut self, name: &str) -> Option<&mut f64>;

    /// Names the scalar slots that a file of the optimizer's state has, so that what a scheduler made of them goes
    /// on; some may not be there.
    fn scalar_names(&self) -> &'static [&'static str] {
        &["lr"]
    }
}

/// How a state appears in an optimizer's state dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// torch's name of it.
    pub name: &'static str,
    /// Which of its numbers torch keeps.
    pub form: Form,
}

/// Which numbers of a state torch keeps: a state here always has as many as its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All, in the parameter's shape.
    Elements,
    /// The first, which all others equal, as an f32 of shape `[]`; where its sign is negative, as a number of the
    /// parameter's type without the sign: torch gives it that type when it is loaded.
    Number,
    /// The first ones: `[.., rows, 1]` for a parameter of `[.., rows, columns]`.
    Rows,
    /// The first ones: `[.., 1, columns]` for a parameter of `[.., rows, columns]`.
    Columns,
}

/// Where an [`Optimizer`] updates: one parameter of one position.
#[derive(Clone, Copy)]
pub struct Update<'a> {
    /// The recording.
    pub trace: &'a Trace,
    /// The position whose entity has the optimizer.
    pub owner: usize,
    /// The number of its group there.
    pub group: usize,
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
    /// Returns a number of the optimizer, in double precision.
    pub fn scalar(&self, name: &'static str) -> Var {
        let of = ScalarOf::Optimizer { group: self.group };
        let scalar = Scalar { name, of, position: self.owner };
        self.trace.scalar(scalar, Dtype::F64)
    }

    /// Records the update by `rule` with the optimizer's numbers for rates, and what it stores. Gives the steps
    /// after it.
    pub fn by(&self, rule: impl FnOnce(&UpdateInputs<'_>) -> Updated) -> Var {
        self.by_rates(&|name| self.scalar(name), rule)
    }

    /// [`by`](Update::by) with rates from elsewhere.
    pub fn by_rates(
        &self,
        rate: &dyn Fn(&'static str) -> Var,
        rule: impl FnOnce(&UpdateInputs<'_>) -> Updated,
    ) -> Var {
        let Update { gradient, states, steps, index, .. } = *self;
        let after = rule(&UpdateInputs { gradient, states, steps, index, rate });
        if after.states.len() != states.len() {
            let (given, expected) = (after.states.len(), states.len());
            return self.trace.fail(format!(
                "expected an update of {expected} states, as the optimizer declares, got {given}"
            ));
        }
        self.trace.store(self.parameter, &after.parameter);
        for (before, after) in states.iter().zip(&after.states) {
            self.trace.store(before, after);
        }
        after.steps
    }
}

/// [`Optimizer`] behind a pointer; every optimizer is one.
pub trait DynOptimizer: Any + Debug + Send + Sync {
    /// See [`Optimizer::states`].
    fn states(&self) -> &'static [&'static str];
    /// See [`Optimizer::state_entry`].
    fn state_entry(&self, state: usize, shape: &[usize]) -> Option<StateEntry>;
    /// See [`Optimizer::initial`].
    fn initial(&self, state: usize) -> Option<f64>;
    /// See [`Optimizer::keeps_step`].
    fn keeps_step(&self) -> bool;
    /// See [`Optimizer::check`].
    ///
    /// # Errors
    ///
    /// As there.
    fn check(&self) -> Result<(), OptimizerError>;
    /// See [`Optimizer::update`].
    fn update(&self, at: &Update<'_>) -> Var;
    /// See [`Optimizer::structural`].
    fn structural(&self) -> Box<dyn DynOptimizer>;
    /// See [`Optimizer::scalar`].
    fn scalar(&self, name: &str) -> Option<f64>;
    /// See [`Optimizer::scalar_mut`].
    fn scalar_mut(&mut self, name: &str) -> Option<&mut f64>;
    /// See [`Optimizer::scalar_names`].
    fn scalar_names(&self) -> &'static [&'static str];
    /// Returns whether the two record the same update: one type, equal structural fields.
    fn is_like(&self, other: &dyn DynOptimizer) -> bool;
    /// Returns whether the two are of one type.
    fn is_of_one_type(&self, other: &dyn DynOptimizer) -> bool;
    /// Returns whether the two are equal, scalar slots included.
    fn equals(&self, other: &dyn DynOptimizer) -> bool;
    /// Copies.
    fn clone_box(&self) -> Box<dyn DynOptimizer>;
    /// Becomes a copy of `other`, if the two are of one type; says whether they are.
    fn assign(&mut self, other: &dyn DynOptimizer) -> bool;
}

impl<O: Optimizer> DynOptimizer for O {
    fn states(&self) -> &'static [&'static str] {
        Optimizer::states(self)
    }

    fn state_entry(&self, state: usize, shape: &[usize]) -> Option<StateEntry> {
        Optimizer::state_entry(self, state, shape)
    }

    fn initial(&self, state: usize) -> Option<f64> {
        Optimizer::initial(self, state)
    }

    fn keeps_step(&self) -> bool {
        Optimizer::keeps_step(self)
    }

    fn check(&self) -> Result<(), OptimizerError> {
        Optimizer::check(self)
    }

    fn update(&self, at: &Update<'_>) -> Var {
        match check::states(Optimizer::states(self)) {
            Ok(()) => Optimizer::update(self, at),
            Err(OptimizerError(text)) => at.trace.fail(text),
        }
    }

    fn structural(&self) -> Box<dyn DynOptimizer> {
        Box::new(Optimizer::structural(self))
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        Optimizer::scalar(self, name)
    }

    fn scalar_mut(&mut self, name: &str) -> Option<&mut f64> {
        Optimizer::scalar_mut(self, name)
    }

    fn scalar_names(&self) -> &'static [&'static str] {
        Optimizer::scalar_names(self)
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

    fn assign(&mut self, other: &dyn DynOptimizer) -> bool {
        let other = (other as &dyn Any).downcast_ref::<O>();
        other.map(|other| self.clone_from(other)).is_some()
    }
}
