//! Schedules of learning rates: beginning them and going on.

use core::panic::Location;

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::Mode;
use neurarch_components::optimizer::DynParamGroups;
use neurarch_components::population::Population;
use neurarch_components::scheduler::{GroupSchedulers, Metric, Scheduler, SchedulerError};
use neurarch_components::warnings::Warnings;

use crate::errors::AccessError;
use crate::execute::run::{forget_steps, has_stepped};
use crate::structure::optimizers::{Change, Optimizers};
use crate::structure::root::root_of;
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
            if world.get::<Scheduler>(module).is_none()
                && let Some((_, population)) = root_of(world, module)
            {
                forget_steps(world, population);
            }
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
/// Source: `scheduler.step()`, with its warning if the optimizers have not made a step before.
#[track_caller]
pub fn step(world: &mut World, entity: Entity) -> Result<(), ScheduleError> {
    let done =
        change(world, entity, |_| Box::new(|scheduler, optimizer| scheduler.step(optimizer)))?;
    done.warn(world, Location::caller());
    Ok(())
}

/// Goes to an epoch in every schedule.
///
/// # Errors
///
/// As [`step`].
///
/// Source: `scheduler.step(epoch)`, with its warning that this is deprecated.
#[track_caller]
pub fn step_to(world: &mut World, entity: Entity, epoch: f64) -> Result<(), ScheduleError> {
    let done = change(world, entity, |_| {
        Box::new(move |scheduler, optimizer| scheduler.step_to(optimizer, epoch))
    })?;
    done.warn(world, Location::caller());
    if done.counts_steps {
        Warnings::of(world).warn(&Location::caller().to_string(), EPOCH);
    }
    Ok(())
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
    .map(|_| ())
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
    let done = change_modules(world, scheduled, |world, _, module| {
        let metric = world.get::<Metric>(module).map(|metric| metric.0);
        Box::new(move |scheduler, optimizer| match metric.filter(|_| scheduler.takes_metrics()) {
            Some(metric) => scheduler.observe(optimizer, metric),
            None => scheduler.step(optimizer),
        })
    })?;
    done.warn(world, Location::caller());
    Ok(())
}

/// torch's words.
const ORDER: &str = "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 \
     and later, you should call them in the opposite order: `optimizer.step()` before \
     `lr_scheduler.step()`.  Failure to do this will result in PyTorch skipping the first value of the \
     learning rate schedule. See more details at \
     https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate";

/// torch's words.
const EPOCH: &str = "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated \
     where possible. Please use `scheduler.step()` to step the scheduler. During the deprecation, if epoch is \
     different from None, the closed form is used instead of the new chainable form, where available. Please \
     open an issue if you are unable to replicate your use case: \
     https://github.com/pytorch/pytorch/issues/new/choose.";

/// What a step does to the scheduler of a model.
type Step = Box<dyn Fn(&mut Scheduler, &mut dyn DynParamGroups) -> Result<(), SchedulerError>>;

/// What was met while schedulers were stepped.
#[derive(Default)]
struct Done {
    /// Whether there was a scheduler.
    is_scheduled: bool,
    /// Whether the first step of one came before a step of the optimizers.
    is_early: bool,
    /// Whether one is to be stepped, not to be called with an epoch.
    counts_steps: bool,
}

impl Done {
    /// Warns of steps that came too early.
    fn warn(&self, world: &World, caller: &Location<'_>) {
        if self.is_early {
            Warnings::of(world).warn(&caller.to_string(), ORDER);
        }
    }

    /// Takes note of a scheduler whose step is next.
    fn meet(&mut self, world: &World, module: Entity, scheduler: &Scheduler) {
        let counts_steps = !scheduler.takes_epochs() && !scheduler.takes_metrics();
        self.counts_steps |= counts_steps;
        if counts_steps && scheduler.last_epoch() == 0.0 && !self.is_early {
            let population = root_of(world, module).map(|(_, population)| population);
            self.is_early = population.is_some_and(|population| !has_stepped(world, population));
        }
    }
}

fn change(
    world: &mut World,
    entity: Entity,
    step: impl Fn(usize) -> Step,
) -> Result<Done, ScheduleError> {
    let modules = modules_of(world, entity)?;
    let done = change_modules(world, modules, |_, model, _| step(model))?;
    if done.is_scheduled { Ok(done) } else { Err(ScheduleError::NoScheduler(entity)) }
}

/// Steps the schedulers of some modules, each given with its model's index.
fn change_modules(
    world: &mut World,
    modules: Vec<(usize, Entity)>,
    step: impl Fn(&World, usize, Entity) -> Step,
) -> Result<Done, ScheduleError> {
    Optimizers::init(world);
    world.resource_scope(|world, optimizers: Mut<'_, Optimizers>| {
        let mut all = Done::default();
        for (model, module) in modules {
            let Some(scheduler) = world.get::<Scheduler>(module) else { continue };
            all.meet(world, module, scheduler);
            let step = step(world, model, module);
            let Ok(mut module) = world.get_entity_mut(module) else { continue };
            let step: Change<'_> = &*step;
            let done = optimizers.change(&mut module, step);
            all.is_scheduled |= done.is_some();
            if let Some(Err(source)) = done {
                return Err(ScheduleError::Scheduler { model, source });
            }
            module.remove::<Metric>();
        }
        Ok(all)
    })
}
