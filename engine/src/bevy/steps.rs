//! Systems that go over all populations that take part: gradients, updates, schedulers; and one that settles edits.

use bevy_ecs::prelude::*;

use super::messages::fail;
use super::participation::{Learn, Minibatch};
use super::progress::{Stepped, record, tell_step};
use super::round::{Round, Running};
use crate::components::losses::DynLoss;
use crate::components::module::mode::Mode;
use crate::components::population::Population;
use crate::kernels::ir::dtype::{Dtype, Element, bf16, f16};
use crate::kernels::ir::tree::Arguments;
use crate::systems::compile::array::AnyInput;
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;
use crate::systems::optim::lr_scheduler;
use crate::systems::structure::{mode, sign};

/// Settles every population: models that were edited get the parameters that their trees have now. Systems that read
/// with [`Parameters`](crate::plugin::Parameters) come after it where there may be edits. Costs next to
/// nothing where there are none.
///
/// # Errors
///
/// If a model's tree is no model any more. All others are settled.
///
/// # Example
///
/// ```
/// # use bevy_ecs::schedule::Schedule;
/// # use neurarch::bevy_ecs::prelude::*;
/// # use neurarch::plugin::settle;
/// # use neurarch::prelude::*;
/// fn report(layers: Query<Entity, With<Linear>>, parameters: Parameters) -> Result {
///     for layer in &layers {
///         parameters.parameter::<f32>(layer, "weight")?;
///     }
///     Ok(())
/// }
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(3, 2), 5, Seed(1))?.id();
/// let edited = world.population(brains)?.models()[1];
/// world.entity_mut(edited).insert(Linear::new(4, 2));
/// let mut schedule = Schedule::default();
/// schedule.add_systems((settle, report).chain());
/// schedule.run(&mut world);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn settle(world: &mut World) -> Result<(), BevyError> {
    let mut result = Ok(());
    let mut populations = world.query_filtered::<Entity, With<Population>>();
    for population in populations.iter(world).collect::<Vec<_>>() {
        result = result.and(sign::refresh(world, population));
    }
    Ok(result?)
}

/// Computes gradients of populations with [`Learn`]: of those that have a loss since their last forward pass, which the
/// host computed, and of those that add up the gradients of several minibatches.
///
/// The first loss of a step starts from no gradients, the others add to them.
pub fn compute_gradients(world: &mut World) {
    for (population, learn) in learners(world) {
        let made = match &learn.loss {
            Some(loss) if learn.every > 1 => add_minibatch(world, population, &**loss),
            Some(_) => continue,
            None => add_gradients(world, population),
        };
        if let Err(error) = made {
            fail(world, population, &error);
        }
    }
}

/// Adds the gradients of a population's minibatch, if there is one.
fn add_minibatch(
    world: &mut World,
    population: Entity,
    loss: &dyn DynLoss,
) -> Result<(), StepError> {
    let mut found = world.query::<(&Population, &mut Minibatch)>();
    let Ok((models, mut minibatch)) = found.get_mut(world, population) else { return Ok(()) };
    let Some(Running { x, targets, models, waiting, .. }) = minibatch.take(models)? else {
        return Ok(());
    };
    resting(world, &models, &waiting, |world| {
        lose(world, population, (x, targets), loss)?;
        add_gradients(world, population)
    })
}

/// Adds the gradients of a population's loss, if it has one: to none, if it is the first of a step.
fn add_gradients(world: &mut World, population: Entity) -> Result<(), StepError> {
    if !step::has_loss(world, population) {
        return Ok(());
    }
    let known = world.get::<Round>(population).map_or(0, |round| round.losses);
    if known == 0 {
        step::zero_grad(world, population, true)?;
    }
    step::backward(world, population)?;
    if let Some(mut round) = world.get_mut::<Round>(population) {
        round.losses = known + 1;
    }
    Ok(())
}

/// Computes the loss of a minibatch.
fn lose(
    world: &mut World,
    population: Entity,
    (x, targets): (AnyInput<'_>, AnyInput<'_>),
    loss: &dyn DynLoss,
) -> Result<(), StepError> {
    step::forward_any(world, population, Arguments::each([x]))?;
    let dtype = world.get::<Population>(population).map(Population::dtype);
    let losses: Vec<f32> = match dtype {
        Some(Dtype::F64) => list(world, population, (&targets, loss), |loss: f64| loss as f32)?,
        Some(Dtype::F16) => list(world, population, (&targets, loss), f16::to_f32)?,
        Some(Dtype::BF16) => list(world, population, (&targets, loss), bf16::to_f32)?,
        _ => list(world, population, (&targets, loss), |loss: f32| loss)?,
    };
    record(world, population, losses.into_iter().enumerate());
    Ok(())
}

/// Updates the parameters of populations with [`Learn`] whose gradients are complete, and takes the gradients away:
/// [`step::step`] and [`step::zero_grad`].
pub fn update(world: &mut World) {
    for (population, learn) in learners(world) {
        let losses = world.get::<Round>(population).map_or(0, |round| round.losses);
        if losses == 0 || losses < learn.every {
            continue;
        }
        let made =
            step::step(world, population).and_then(|()| step::zero_grad(world, population, true));
        if let Some(mut round) = world.get_mut::<Round>(population) {
            round.losses = 0;
        }
        match made {
            Ok(()) => tell_step(world, population),
            Err(error) => fail(world, population, &error),
        }
    }
}

/// Moves the learning rates of every population that made a step since on by one: [`lr_scheduler::step_all`]. A
/// [`Scheduler`] that takes metrics, as that of `ReduceLROnPlateau`, waits for a [`Metric`] on the same entity.
///
/// Give the set a condition where a step is to be an epoch: `StepSystems::Schedule.run_if(…)`.
///
/// # Errors
///
/// As [`lr_scheduler::step_all`].
///
/// # Example
///
/// ```
/// # use ndarray::{Array2, Array3};
/// # use neurarch::bevy_ecs::prelude::*;
/// # use neurarch::bevy_ecs::schedule::Schedule;
/// # use neurarch::plugin::{Learn, Minibatch, add_neurarch};
/// # use neurarch::prelude::*;
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// brains.insert(SGD { lr: 1.0, ..SGD::default() })?;
/// brains.schedule_with(|model| ExponentialLR { gamma: 1.0 / (2 + model) as f64 })?;
/// let brains = brains.id();
/// world.entity_mut(brains).insert(Learn::new(CrossEntropyLoss::default()));
/// let (x, targets) = (Array3::<f32>::ones((3, 8, 4)), Array2::<i64>::zeros((3, 8)));
/// world.get_mut::<Minibatch>(brains).unwrap().put(x, targets);
/// let mut schedule = Schedule::default();
/// add_neurarch(&mut schedule);
/// schedule.run(&mut world);
/// let rates = world.population(brains)?.models().iter().map(|&model| world.get::<SGD>(model).unwrap().lr);
/// assert_eq!(rates.collect::<Vec<_>>(), [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Scheduler`]: crate::components::scheduler::Scheduler
/// [`Metric`]: crate::components::scheduler::Metric
pub fn step_schedulers(world: &mut World) -> Result<(), BevyError> {
    let stepped = world.remove_resource::<Stepped>().unwrap_or_default();
    for population in stepped.0 {
        lr_scheduler::step_all(world, population)?;
    }
    Ok(())
}

/// Has models rest that do not wait for what is done meanwhile.
pub(super) fn resting<T>(
    world: &mut World,
    models: &[Entity],
    waiting: &[bool],
    deed: impl FnOnce(&mut World) -> Result<T, StepError>,
) -> Result<T, StepError> {
    let is_active = |model: Entity| world.get::<Mode>(model).is_none_or(|mode| !mode.inactive);
    let done = models.iter().zip(waiting).filter(|(_, waits)| !**waits);
    let resting: Vec<_> = done.map(|(&model, _)| model).filter(|&model| is_active(model)).collect();
    for &model in &resting {
        mode::set_active(world, model, false)?;
    }
    let made = deed(world);
    for &model in &resting {
        mode::set_active(world, model, true)?;
    }
    made
}

/// Lists the populations that learn, in an order of their own.
fn learners(world: &mut World) -> Vec<(Entity, Learn)> {
    let mut all = world.query_filtered::<(Entity, &Learn), With<Population>>();
    let mut all: Vec<_> = all.iter(world).map(|(entity, learn)| (entity, learn.clone())).collect();
    all.sort_unstable_by_key(|(entity, _)| *entity);
    all
}

/// Computes the losses of a population's last forward pass.
fn list<L: Element>(
    world: &mut World,
    population: Entity,
    (targets, loss): (&AnyInput<'_>, &dyn DynLoss),
    to_f32: fn(L) -> f32,
) -> Result<Vec<f32>, StepError> {
    let losses = step::loss_with::<L>(world, population, targets, loss)?;
    Ok(losses.iter().copied().map(to_f32).collect())
}
