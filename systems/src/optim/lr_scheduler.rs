//! Schedules of learning rates: beginning them and going on.

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::Mode;
use neurarch_components::optimizer::DynParamGroups;
use neurarch_components::population::Population;
use neurarch_components::scheduler::{GroupSchedulers, Metric, Scheduler, SchedulerError};

use crate::errors::AccessError;
use crate::structure::optimizers::{Change, Optimizers};
use crate::structure::traverse::modules_of;

/// Why rates cannot be scheduled. What had been scheduled stays as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The entity is neither a population nor a module of one.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No optimizer is there to be scheduled.
    #[error("{0} has no optimizer: insert one first, the scheduler changes its rates")]
    NoOptimizer(Entity),
    /// Nothing is scheduled.
    #[error("{0} has no scheduler")]
    NoScheduler(Entity),
    /// The scheduler of one optimizer refuses.
    #[error("model {model}: {source}")]
    Scheduler {
        /// The model's index in its population.
        model: usize,
        /// Why.
        source: SchedulerError,
    },
    /// There is not one metric for each model.
    #[error("expected a metric for each of {expected} models, got {found}")]
    Metrics {
        /// How many models there are.
        expected: usize,
        /// How many metrics came.
        found: usize,
    },
}

/// Schedules every optimizer of a population's models, or those of one module and its subtree: `scheduler`
/// gives the rule, or one for each parameter group, by the model's index.
///
/// A new schedule takes the place of an old one. Optimizers that come later are not scheduled.
///
/// # Errors
///
/// If there is no optimizer, or a rule refuses. Nothing is changed then.
///
/// Source: the constructors of `torch.optim.lr_scheduler`.
pub fn schedule_with<S: GroupSchedulers>(
    world: &mut World,
    entity: Entity,
    scheduler: impl Fn(usize) -> S,
) -> Result<(), ScheduleError> {
    let modules = modules_of(world, entity)?;
    Optimizers::init(world);
    world.resource_scope(|world, optimizers: Mut<'_, Optimizers>| {
        let mut begun = Vec::new();
        for (model, module) in modules {
            let Some(optimizer) = optimizers.on(world, module) else { continue };
            let mut optimizer = optimizer.clone_box();
            let scheduler = Scheduler::attach(&scheduler(model), &mut *optimizer)
                .map_err(|source| ScheduleError::Scheduler { model, source })?;
            begun.push((module, scheduler, optimizer));
        }
        if begun.is_empty() {
            return Err(ScheduleError::NoOptimizer(entity));
        }
        for (module, scheduler, optimizer) in begun {
            if let Ok(mut module) = world.get_entity_mut(module) {
                optimizer.insert(&mut module);
                module.insert(scheduler);
            }
        }
        Ok(())
    })
}

/// Goes one step on in every schedule of a population's models, or of one module and its subtree.
///
/// # Errors
///
/// If nothing is scheduled, or a schedule has ended. Nothing is changed then but the rates of the models
/// before that one.
///
/// Source: `scheduler.step()`.
pub fn step(world: &mut World, entity: Entity) -> Result<(), ScheduleError> {
    change(world, entity, |_| Box::new(|scheduler, optimizer| scheduler.step(optimizer)))
}

/// Goes to an epoch in every schedule.
///
/// # Errors
///
/// As [`step`].
///
/// Source: `scheduler.step(epoch)`.
pub fn step_to(world: &mut World, entity: Entity, epoch: f64) -> Result<(), ScheduleError> {
    change(world, entity, |_| {
        Box::new(move |scheduler, optimizer| scheduler.step_to(optimizer, epoch))
    })
}

/// Goes one step on with what was measured of each model, such as its loss.
///
/// # Errors
///
/// If there is not one metric for each model (of one model's module: one), nothing is scheduled, or a
/// schedule takes no metric.
///
/// Source: `ReduceLROnPlateau.step(metrics)`.
pub fn step_with_metrics(
    world: &mut World,
    entity: Entity,
    metrics: &[f64],
) -> Result<(), ScheduleError> {
    let expected = world.get::<Population>(entity).map_or(1, Population::len);
    if metrics.len() != expected {
        return Err(ScheduleError::Metrics { expected, found: metrics.len() });
    }
    let is_one = metrics.len() == 1;
    change(world, entity, |model| {
        let metric = metrics[if is_one { 0 } else { model }];
        Box::new(move |scheduler, optimizer| scheduler.observe(optimizer, metric))
    })
}

/// Goes one step on in every schedule of a population, as a system does: a scheduler that takes metrics waits for a
/// [`Metric`] beside it, and inactive models are passed over. A population without schedulers is passed over.
///
/// # Errors
///
/// If a schedule has ended.
pub fn step_all(world: &mut World, population: Entity) -> Result<(), ScheduleError> {
    let mut scheduled = modules_of(world, population)?;
    let models = world.get::<Population>(population).map_or(&[][..], Population::models);
    let is_due = |(model, module): (usize, Entity)| {
        // What is passed over does not change by a bit.
        let mode = models.get(model).and_then(|&root| world.get::<Mode>(root));
        if mode.is_some_and(|mode| mode.inactive) {
            return None;
        }
        let scheduler = world.get::<Scheduler>(module)?;
        let metric = world.get::<Metric>(module);
        (!scheduler.takes_metrics() || metric.is_some()).then_some(())
    };
    scheduled.retain(|&at| is_due(at).is_some());
    if scheduled.is_empty() {
        return Ok(());
    }
    change_modules(world, scheduled, |world, _, module| {
        let metric = world.get::<Metric>(module).map(|metric| metric.0);
        Box::new(move |scheduler, optimizer| match metric.filter(|_| scheduler.takes_metrics()) {
            Some(metric) => scheduler.observe(optimizer, metric),
            None => scheduler.step(optimizer),
        })
    })
    .map(|_| ())
}

/// What a step does to the scheduler of a model.
type Step = Box<dyn Fn(&mut Scheduler, &mut dyn DynParamGroups) -> Result<(), SchedulerError>>;

fn change(
    world: &mut World,
    entity: Entity,
    step: impl Fn(usize) -> Step,
) -> Result<(), ScheduleError> {
    let modules = modules_of(world, entity)?;
    let is_scheduled = change_modules(world, modules, |_, model, _| step(model))?;
    is_scheduled.then_some(()).ok_or(ScheduleError::NoScheduler(entity))
}

/// Steps the schedulers of some modules, each given with its model's index; says whether there was one.
fn change_modules(
    world: &mut World,
    modules: Vec<(usize, Entity)>,
    step: impl Fn(&World, usize, Entity) -> Step,
) -> Result<bool, ScheduleError> {
    Optimizers::init(world);
    world.resource_scope(|world, optimizers: Mut<'_, Optimizers>| {
        let mut is_scheduled = false;
        for (model, module) in modules {
            if world.get::<Scheduler>(module).is_none() {
                continue;
            }
            let step = step(world, model, module);
            let Ok(mut module) = world.get_entity_mut(module) else { continue };
            let step: Change<'_> = &*step;
            let done = optimizers.change(&mut module, step);
            is_scheduled |= done.is_some();
            if let Some(Err(source)) = done {
                return Err(ScheduleError::Scheduler { model, source });
            }
            module.remove::<Metric>();
        }
        Ok(is_scheduled)
    })
}
