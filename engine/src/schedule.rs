//! [`ScheduleWorld`]: learning rates that change from step to step.

use bevy_ecs::prelude::*;

use crate::components::scheduler::LRScheduler;
use crate::systems::optim::lr_scheduler::{self, ScheduleError};

/// Schedules of learning rates in a [`World`]: of all models of a population, or of one module and its
/// subtree.
///
/// # Example
///
/// ```
/// # use neurarch::prelude::*;
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// world.insert_with(brains, |model| SGD { lr: 0.1 * (1 + model) as f64, ..SGD::default() })?;
/// world.schedule(brains, StepLR { step_size: 30, gamma: 0.1 })?;
/// for _ in 0..30 {
///     // An epoch of training steps, then:
///     world.step_schedulers(brains)?;
/// }
/// let first = world.models(brains)?[0];
/// assert!((world.get::<SGD>(first).unwrap().lr - 0.01).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ScheduleWorld {
    /// Schedules every optimizer there: [`lr_scheduler::schedule_with`].
    ///
    /// # Errors
    ///
    /// If there is no optimizer, or the scheduler refuses it.
    fn schedule(
        &mut self,
        entity: Entity,
        scheduler: impl LRScheduler + Clone,
    ) -> Result<(), ScheduleError>;

    /// Schedules each model as `scheduler` says by its index: [`lr_scheduler::schedule_with`].
    ///
    /// # Errors
    ///
    /// As [`schedule`](ScheduleWorld::schedule).
    fn schedule_with<S: LRScheduler>(
        &mut self,
        entity: Entity,
        scheduler: impl Fn(usize) -> S,
    ) -> Result<(), ScheduleError>;

    /// Goes one step on: [`lr_scheduler::step`].
    ///
    /// # Errors
    ///
    /// If nothing is scheduled, or a schedule has ended.
    fn step_schedulers(&mut self, entity: Entity) -> Result<(), ScheduleError>;

    /// Goes to an epoch: [`lr_scheduler::step_to`].
    ///
    /// # Errors
    ///
    /// As [`step_schedulers`](ScheduleWorld::step_schedulers).
    fn step_schedulers_to(&mut self, entity: Entity, epoch: f64) -> Result<(), ScheduleError>;

    /// Goes one step on with a metric of each model: [`lr_scheduler::step_with_metrics`].
    ///
    /// # Errors
    ///
    /// As [`step_schedulers`](ScheduleWorld::step_schedulers), and if there is not a metric for each model.
    fn step_schedulers_with_metrics(
        &mut self,
        entity: Entity,
        metrics: &[f64],
    ) -> Result<(), ScheduleError>;
}

impl ScheduleWorld for World {
    fn schedule(
        &mut self,
        entity: Entity,
        scheduler: impl LRScheduler + Clone,
    ) -> Result<(), ScheduleError> {
        lr_scheduler::schedule_with(self, entity, |_| scheduler.clone())
    }

    fn schedule_with<S: LRScheduler>(
        &mut self,
        entity: Entity,
        scheduler: impl Fn(usize) -> S,
    ) -> Result<(), ScheduleError> {
        lr_scheduler::schedule_with(self, entity, scheduler)
    }

    fn step_schedulers(&mut self, entity: Entity) -> Result<(), ScheduleError> {
        lr_scheduler::step(self, entity)
    }

    fn step_schedulers_to(&mut self, entity: Entity, epoch: f64) -> Result<(), ScheduleError> {
        lr_scheduler::step_to(self, entity, epoch)
    }

    fn step_schedulers_with_metrics(
        &mut self,
        entity: Entity,
        metrics: &[f64],
    ) -> Result<(), ScheduleError> {
        lr_scheduler::step_with_metrics(self, entity, metrics)
    }
}
