//! Learning-rate schedulers: a component beside an optimizer that changes its rates from step to step.
//!
//! Each rule computes as torch's chainable form does, from the rate that the optimizer has: what is set
//! by hand in between is scheduled on.

mod composed;
mod cosine;
mod cycle;
mod decay;
mod form;
mod groups;
mod lambda;
mod plateau;
mod state;
mod swa;

use core::any::Any;
use core::fmt;
use core::fmt::Debug;

use bevy_ecs::prelude::*;
use serde::{Deserialize, Serialize};

pub use composed::{ChainedScheduler, SequentialLR};
pub use cosine::{CosineAnnealingLR, CosineAnnealingWarmRestarts};
pub use cycle::{Anneal, CyclicLR, CyclicMode, OneCycleLR};
pub use decay::{ConstantLR, ExponentialLR, LinearLR, MultiStepLR, PolynomialLR, StepLR};
pub(crate) use form::SchedulerForm;
pub use groups::GroupSchedulers;
pub use lambda::{LambdaLR, MultiplicativeLR};
pub use plateau::{Mode, ReduceLROnPlateau, ThresholdMode};
pub use swa::SWALR;

use crate::optimizer::{DynOptimizer, DynParamGroups};

/// Why rates cannot be scheduled; torch's words.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
    /// The scheduler changes momentum, and the optimizer has none.
    #[error("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")]
    NoMomentum,
    /// The optimizer has no learning rate.
    #[error("the optimizer has no scalar slot named lr")]
    NoRate,
    /// More steps than the schedule has.
    #[error("Tried to step {step} times. The specified number of total steps is {total}")]
    Over {
        /// The step that was asked for.
        step: f64,
        /// How many there are.
        total: usize,
    },
    /// The scheduler is stepped by a metric.
    #[error("ReduceLROnPlateau.step() missing 1 required positional argument: 'metrics'")]
    NoMetric,
    /// The scheduler is stepped without a metric.
    #[error("expected a ReduceLROnPlateau, whose steps take metrics")]
    Metric,
    /// There is not one scheduler for each parameter group.
    #[error("Expected {expected} schedulers, one for each parameter group, but got {found}")]
    Groups {
        /// How many groups the optimizer has.
        expected: usize,
        /// How many schedulers came.
        found: usize,
    },
    /// A state is of another scheduler.
    #[error("the state of a scheduler has {found:?}, expected {expected:?}")]
    State {
        /// The names that the scheduler's state has.
        expected: Vec<String>,
        /// The names that came.
        found: Vec<String>,
    },
    /// The scheduler cannot be part of another one.
    #[error(
        "{composed} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to \
         be specified when calling `step`, but got one at index {index} in the given schedulers sequence."
    )]
    Plateau {
        /// Which one it should be part of.
        composed: &'static str,
        /// Its place there.
        index: usize,
    },
}

/// The rates that a scheduler changes: those of one parameter group.
pub struct ParamGroup<'a> {
    optimizer: &'a mut dyn DynOptimizer,
    initial_lr: &'a mut Option<f64>,
}

impl ParamGroup<'_> {
    /// Returns the learning rate.
    pub fn lr(&self) -> f64 {
        self.optimizer.scalar("lr").unwrap_or_default()
    }

    /// Changes the learning rate.
    pub fn set_lr(&mut self, lr: f64) {
        if let Some(rate) = self.optimizer.scalar_mut("lr") {
            *rate = lr;
        }
    }

    /// Returns the rate that the schedule began with.
    pub fn initial_lr(&self) -> f64 {
        self.initial_lr.unwrap_or_else(|| self.lr())
    }

    /// Changes the rate that the schedule is said to have begun with.
    pub fn set_initial_lr(&mut self, lr: f64) {
        *self.initial_lr = Some(lr);
    }

    /// Returns the momentum to be changed, or Adam's first beta; `None` if the optimizer has neither.
    pub fn momentum(&mut self) -> Option<&mut f64> {
        let name = if self.optimizer.scalar("momentum").is_some() { "momentum" } else { "beta1" };
        self.optimizer.scalar_mut(name)
    }
}

/// How far a scheduler has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// How many steps it has done, torch's `last_epoch`; fractions come from [`Scheduler::step_to`] alone.
    pub last_epoch: f64,
    /// Whether this is the step that a scheduler begins with.
    pub is_initial: bool,
}

/// A rule by which a learning rate changes.
///
/// Implement it for a schedule of your own: [`lr`](Self::lr) is all that most need.
///
/// Source: `torch.optim.lr_scheduler.LRScheduler`.
pub trait LRScheduler: Any + Debug + Send + Sync {
    /// Checks the settings, and prepares the rates for the step that follows at once.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    fn attach(&mut self, _group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        Ok(())
    }

    /// Returns the next learning rate; `progress` is that of the step it is for.
    ///
    /// # Errors
    ///
    /// If there is no such step.
    fn lr(&mut self, progress: Progress, group: &mut ParamGroup<'_>)
    -> Result<f64, SchedulerError>;

    /// Returns the learning rate at an epoch, from that which the schedule began with; `None` if it depends
    /// on more.
    fn closed_form(&self, _epoch: f64, _initial_lr: f64) -> Option<f64> {
        None
    }

    /// Goes one step on, or to an epoch.
    ///
    /// # Errors
    ///
    /// If there is no such step.
    fn step(
        &mut self,
        progress: &mut Progress,
        group: &mut ParamGroup<'_>,
        to: Option<f64>,
    ) -> Result<(), SchedulerError> {
        let epoch = to.unwrap_or(progress.last_epoch + 1.0);
        let at = Progress { last_epoch: epoch, ..*progress };
        let closed = to.and_then(|epoch| self.closed_form(epoch, group.initial_lr()));
        let lr = closed.map_or_else(|| self.lr(at, group), Ok)?;
        progress.last_epoch = epoch;
        group.set_lr(lr);
        Ok(())
    }

    /// Returns whether steps take a metric: then [`observe`](Self::observe) makes them.
    fn takes_metrics(&self) -> bool {
        false
    }

    /// Returns whether fractions of epochs are what steps are for, as in [`CosineAnnealingWarmRestarts`]: torch neither warns
    /// of a step to an epoch then, nor of one before the optimizer's.
    fn takes_epochs(&self) -> bool {
        false
    }

    /// Goes one step on with what was measured.
    fn observe(&mut self, _metric: f64, _progress: &mut Progress, _group: &mut ParamGroup<'_>) {}

    /// Lists the schedulers that this one is made of.
    fn parts(&mut self) -> &mut [Timed] {
        &mut []
    }

    /// Takes the schedulers that this one is made of, as they were written in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be made of these.
    fn set_parts(&mut self, parts: Vec<Timed>) -> Result<(), SchedulerError> {
        match parts.len() {
            0 => Ok(()),
            n => refuse(format!("a scheduler of no others is given {n}")),
        }
    }

    /// Returns whether the rule has functions, which no file holds: of such a rule files say how far it has come, and it is
    /// read where the same rule is there already.
    ///
    /// Source: `LambdaLR.state_dict`, which leaves functions out.
    fn has_functions(&self) -> bool {
        false
    }

    /// Returns the type's path in Rust.
    fn rust_name(&self) -> &'static str {
        core::any::type_name::<Self>()
    }

    /// Lists what the rule has come to beside its settings and its [`Progress`], by torch's names.
    fn state(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Goes on from one of the numbers that [`state`](Self::state) lists.
    fn set_state(&mut self, _name: &str, _number: f64) {}

    /// Copies.
    fn clone_box(&self) -> Box<dyn LRScheduler>;
}

impl Clone for Box<dyn LRScheduler> {
    fn clone(&self) -> Self {
        self.clone_box()
    }
}

/// A rule that is chosen at run time.
impl LRScheduler for Box<dyn LRScheduler> {
    fn attach(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        (**self).attach(group)
    }

    fn lr(
        &mut self,
        progress: Progress,
        group: &mut ParamGroup<'_>,
    ) -> Result<f64, SchedulerError> {
        (**self).lr(progress, group)
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        (**self).closed_form(epoch, initial_lr)
    }

    fn step(
        &mut self,
        progress: &mut Progress,
        group: &mut ParamGroup<'_>,
        to: Option<f64>,
    ) -> Result<(), SchedulerError> {
        (**self).step(progress, group, to)
    }

    fn takes_metrics(&self) -> bool {
        (**self).takes_metrics()
    }

    fn takes_epochs(&self) -> bool {
        (**self).takes_epochs()
    }

    fn observe(&mut self, metric: f64, progress: &mut Progress, group: &mut ParamGroup<'_>) {
        (**self).observe(metric, progress, group);
    }

    fn parts(&mut self) -> &mut [Timed] {
        (**self).parts()
    }

    fn set_parts(&mut self, parts: Vec<Timed>) -> Result<(), SchedulerError> {
        (**self).set_parts(parts)
    }

    fn has_functions(&self) -> bool {
        (**self).has_functions()
    }

    fn rust_name(&self) -> &'static str {
        (**self).rust_name()
    }

    fn state(&self) -> Vec<(&'static str, f64)> {
        (**self).state()
    }

    fn set_state(&mut self, name: &str, number: f64) {
        (**self).set_state(name, number);
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        (**self).clone_box()
    }
}

/// A rule, and how far it has come.
#[derive(Clone, Debug)]
pub struct Timed {
    progress: Progress,
    rule: Box<dyn LRScheduler>,
}

impl Timed {
    fn of(rule: Box<dyn LRScheduler>) -> Self {
        let progress = Progress { last_epoch: -1.0, is_initial: false };
        Timed { progress, rule }
    }

    /// Does what torch's constructor does to the optimizer.
    fn attach(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        self.rule.attach(group)?;
        let lr = group.initial_lr();
        group.set_initial_lr(lr);
        self.begin(group)
    }

    fn begin(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        self.progress.is_initial = true;
        let begun = self.step(group, None);
        self.progress.is_initial = false;
        begun
    }

    fn step(&mut self, group: &mut ParamGroup<'_>, to: Option<f64>) -> Result<(), SchedulerError> {
        self.rule.step(&mut self.progress, group, to)
    }

    /// Takes a step back that was done for nothing: in the parts, where there are some.
    fn undo(&mut self) {
        match self.rule.parts() {
            [] => self.progress.last_epoch -= 1.0,
            parts => parts.iter_mut().for_each(Timed::undo),
        }
    }
}

/// What was measured of the model or module that it is inserted on: a [`Scheduler`] there that takes metrics makes its
/// next step by it, and takes it away.
#[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[component(storage = "SparseSet")]
pub struct Metric(pub f64);

/// Changes the rates of the optimizer on the same entity.
///
/// Made by `schedule` of the systems, which does to the optimizer what torch's constructor does.
///
/// Source: the object that `torch.optim.lr_scheduler.StepLR(optimizer, …)` and the like give.
#[derive(Component, Clone)]
#[component(storage = "SparseSet")]
pub struct Scheduler {
    /// For each parameter group; at least one.
    groups: Vec<Scheduled>,
}

/// That of one group is written as it was before there were several: training states have a hash of the text.
impl Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Scheduler");
        match self.groups.as_slice() {
            [Scheduled { initial_lr, timed }] => {
                text.field("initial_lr", initial_lr).field("timed", timed).finish()
            }
            groups => text.field("groups", &groups).finish(),
        }
    }
}

/// The schedule of one parameter group.
#[derive(Clone, Debug)]
struct Scheduled {
    initial_lr: Option<f64>,
    timed: Timed,
}

impl Scheduler {
    /// Begins a schedule: sets the optimizer's rates for its first steps.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, the optimizer has not what is scheduled, or there is not one of several schedulers
    /// for each group. Its rates are then those of before.
    pub fn attach(
        schedulers: &impl GroupSchedulers,
        optimizer: &mut dyn DynParamGroups,
    ) -> Result<Self, SchedulerError> {
        let rules = schedulers.of_groups(optimizer.n_groups())?.into_iter();
        let begin = |rule| Scheduled { initial_lr: None, timed: Timed::of(rule) };
        let mut scheduler = Scheduler { groups: rules.map(begin).collect() };
        scheduler.change(optimizer, |timed, group| timed.attach(group))?;
        Ok(scheduler)
    }

    /// Goes one step on.
    ///
    /// # Errors
    ///
    /// If there is no such step, or it takes a metric. Nothing is changed then.
    pub fn step(&mut self, optimizer: &mut dyn DynParamGroups) -> Result<(), SchedulerError> {
        self.change(optimizer, |timed, group| timed.step(group, None))
    }

    /// Goes to an epoch.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    ///
    /// Source: `scheduler.step(epoch)`.
    pub fn step_to(
        &mut self,
        optimizer: &mut dyn DynParamGroups,
        epoch: f64,
    ) -> Result<(), SchedulerError> {
        self.change(optimizer, |timed, group| timed.step(group, Some(epoch)))
    }

    /// Goes one step on with what was measured.
    ///
    /// # Errors
    ///
    /// If the scheduler is stepped without a metric. Nothing is changed then.
    ///
    /// Source: `ReduceLROnPlateau.step(metrics)`.
    pub fn observe(
        &mut self,
        optimizer: &mut dyn DynParamGroups,
        metric: f64,
    ) -> Result<(), SchedulerError> {
        self.change(optimizer, |Timed { progress, rule }, group| {
            if !rule.takes_metrics() {
                return Err(SchedulerError::Metric);
            }
            rule.observe(metric, progress, group);
            Ok(())
        })
    }

    /// Returns whether steps take a metric.
    pub fn takes_metrics(&self) -> bool {
        self.groups.iter().any(|group| group.timed.rule.takes_metrics())
    }

    /// Returns whether torch has no warnings about its steps: see [`LRScheduler::takes_epochs`].
    pub fn takes_epochs(&self) -> bool {
        self.groups.iter().any(|group| group.timed.rule.takes_epochs())
    }

    /// Returns the number of steps done.
    pub fn last_epoch(&self) -> f64 {
        self.groups.first().map_or(0.0, |group| group.timed.progress.last_epoch)
    }

    /// Changes the schedule and the rates of all groups, or of none.
    fn change(
        &mut self,
        optimizer: &mut dyn DynParamGroups,
        change: impl Fn(&mut Timed, &mut ParamGroup<'_>) -> Result<(), SchedulerError>,
    ) -> Result<(), SchedulerError> {
        let groups = optimizer.n_groups();
        self.follow(optimizer);
        // What was changed before a group that refuses.
        let before = (groups > 1).then(|| (self.groups.clone(), optimizer.clone_box()));
        let changed = self.groups.iter_mut().enumerate().try_for_each(|(number, scheduled)| {
            let optimizer = optimizer.group_mut(number).ok_or(SchedulerError::NoRate)?;
            scheduled.change(optimizer, &change)
        });
        if let (Err(_), Some((scheduled, rates))) = (&changed, before) {
            self.groups = scheduled;
            for number in 0..groups {
                if let Some((own, before)) = optimizer.group_mut(number).zip(rates.group(number)) {
                    own.assign(before);
                }
            }
        }
        changed
    }

    /// Has as many groups as the optimizer: one that was added goes on from where group 0 is, and begins with the rate that it
    /// has.
    fn follow(&mut self, optimizer: &dyn DynParamGroups) {
        self.groups.truncate(optimizer.n_groups());
        for number in self.groups.len()..optimizer.n_groups() {
            let initial_lr = optimizer.group(number).and_then(|group| group.scalar("lr"));
            let timed = self.groups[0].timed.clone();
            self.groups.push(Scheduled { initial_lr, timed });
        }
    }
}

impl Scheduled {
    /// Changes the schedule and the rates, or neither.
    fn change(
        &mut self,
        optimizer: &mut dyn DynOptimizer,
        change: impl FnOnce(&mut Timed, &mut ParamGroup<'_>) -> Result<(), SchedulerError>,
    ) -> Result<(), SchedulerError> {
        optimizer.scalar("lr").ok_or(SchedulerError::NoRate)?;
        let names = ["lr", "momentum", "beta1"];
        let rates = names.map(|name| optimizer.scalar(name));
        // A rule that fails has changed nothing of itself, but of several the first ones may have gone on.
        let parts = (!self.timed.rule.parts().is_empty()).then(|| self.timed.clone());
        let Scheduled { initial_lr, timed } = self;
        let changed = change(timed, &mut ParamGroup { optimizer: &mut *optimizer, initial_lr });
        if changed.is_err() {
            for (name, before) in names.into_iter().zip(rates) {
                if let Some((rate, before)) = optimizer.scalar_mut(name).zip(before) {
                    *rate = before;
                }
            }
            if let Some(parts) = parts {
                self.timed = parts;
            }
        }
        changed
    }
}

/// Refuses a setting, in torch's words.
fn refuse<T>(words: impl Into<String>) -> Result<T, SchedulerError> {
    Err(SchedulerError::Setting(words.into()))
}
