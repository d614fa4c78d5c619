//! neurarch in a host's schedule: named sets, systems that are one call each, and what systems query, read and write.
//!
//! `bevy_app` is no dependency: [`add_neurarch`] takes a schedule, which in a Bevy app is that of
//! `FixedUpdate` or any other. A host without bevy's app calls [`World::clear_trackers`] now and then, as an app does
//! after each frame: until then bevy keeps a list of all components that were removed, those of models that went too.

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::Schedule;

#[doc(inline)]
pub use crate::bevy::bodies::{Brain, BrainOf, Outlives};
#[doc(inline)]
pub use crate::bevy::commands::{BrainCommands, BrainError, Brains};
#[doc(inline)]
pub use crate::bevy::neighbors::nearest;
#[doc(inline)]
pub use crate::bevy::park::{Birth, Parked, Parking, bear, park, stock};
#[doc(inline)]
pub use crate::bevy::recurrent::{Hidden, think_recurrent};
#[doc(inline)]
pub use crate::bevy::sample::{
    ActionStream, ActionStreams, categorical, categorical_log_prob, gaussian, gaussian_log_prob,
};
#[doc(inline)]
pub use crate::bevy::think::{ThinkError, think};
#[doc(inline)]
pub use crate::components::module::mode::Mode;
#[doc(inline)]
pub use crate::components::population::Population;
#[doc(inline)]
pub use crate::components::population::tree::{Model, ModuleName};
#[doc(inline)]
pub use crate::systems::execute::sets::{StepSystems, order_step};
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;
use crate::systems::optim::lr_scheduler;
use crate::systems::structure::sign;
#[doc(inline)]
pub use crate::systems::system_params::commands::ParameterCommands;
#[doc(inline)]
pub use crate::systems::system_params::parameters::Parameters;

/// Puts the parts of a step in their order, and learning into its parts: [`go_back`] in
/// [`StepSystems::Backward`], [`update`] in [`StepSystems::Step`], [`step_schedulers`] in [`StepSystems::Schedule`].
///
/// The host adds the rest: it writes what the models see in [`StepSystems::Observe`], calls
/// [`forward`](crate::PopulationMut::forward) in [`StepSystems::Forward`] and
/// [`loss`](crate::PopulationMut::loss) in [`StepSystems::Loss`].
///
/// # Example
///
/// ```
/// use bevy_ecs::schedule::Schedule;
/// use ndarray::{Array2, Array3};
/// use neurarch::plugin::add_neurarch;
/// use neurarch::prelude::*;
/// use neurarch::bevy_ecs::prelude::*;
///
/// #[derive(Resource)]
/// struct Brains(Entity);
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(3, 2), 100, Seed(1))?.id();
/// world.population_mut(brains)?.insert(SGD { lr: 0.1, ..SGD::default() })?;
/// world.insert_resource(Brains(brains));
///
/// fn learn(world: &mut World) -> Result<(), BevyError> {
///     let brains = world.resource::<Brains>().0;
///     world.population_mut(brains)?.forward(&Array3::<f32>::ones((100, 8, 3)))?;
///     let targets = Array2::<i64>::zeros((100, 8));
///     world.population_mut(brains)?.loss::<f32, i64>(&targets, &CrossEntropyLoss::default())?;
///     Ok(())
/// }
///
/// let before = world.population_mut(brains)?.stack::<f32>("weight")?;
/// let mut schedule = Schedule::default();
/// add_neurarch(&mut schedule);
/// schedule.add_systems(learn.in_set(StepSystems::Loss));
/// schedule.run(&mut world);
/// assert_ne!(world.population_mut(brains)?.stack::<f32>("weight")?, before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn add_neurarch(schedule: &mut Schedule) {
    order_step(schedule);
    schedule.add_systems((
        go_back.in_set(StepSystems::Backward),
        update.in_set(StepSystems::Step),
        step_schedulers.in_set(StepSystems::Schedule),
    ));
}

/// Settles every population: models that were edited get the parameters that their trees have now. Systems that read
/// with [`Parameters`] come after it where there may be edits. Costs next to
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
    for population in populations(world) {
        result = result.and(sign::refresh(world, population));
    }
    Ok(result?)
}

/// The populations that went back in this run of the schedule.
#[derive(Resource, Default)]
struct Learning(Vec<Entity>);

/// Goes back in every population that has a loss since its last forward pass, from no gradients:
/// [`step::zero_grad`] and [`step::backward`].
///
/// # Errors
///
/// As [`step::backward`].
pub fn go_back(world: &mut World) -> Result<(), BevyError> {
    let mut learning = Vec::new();
    world.insert_resource(Learning::default());
    for population in populations(world) {
        if step::has_loss(world, population) {
            step::zero_grad(world, population, true)?;
            step::backward(world, population)?;
            learning.push(population);
        }
    }
    world.insert_resource(Learning(learning));
    Ok(())
}

/// Updates the parameters that have a gradient, in every population with an optimizer, and takes the
/// gradients away: [`step::step`] and [`step::zero_grad`].
///
/// # Errors
///
/// As [`step::step`].
pub fn update(world: &mut World) -> Result<(), BevyError> {
    for population in populations(world) {
        match step::step(world, population) {
            Ok(()) => step::zero_grad(world, population, true)?,
            // One that does not learn.
            Err(StepError::NoOptimizer { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Moves the learning rates of every population that went back in this run of the schedule on by a step:
/// [`lr_scheduler::step_all`]. A [`Scheduler`] that takes metrics, as that of `ReduceLROnPlateau`, waits for a
/// [`Metric`] on the same entity.
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
/// # use bevy_ecs::schedule::Schedule;
/// # use ndarray::{Array2, Array3};
/// # use neurarch::plugin::add_neurarch;
/// # use neurarch::prelude::*;
/// # use neurarch::bevy_ecs::prelude::*;
/// #[derive(Resource)]
/// struct Brains(Entity);
///
/// fn learn(world: &mut World) -> Result<(), BevyError> {
///     let brains = world.resource::<Brains>().0;
///     world.population_mut(brains)?.forward(&Array3::<f32>::ones((3, 8, 4)))?;
///     world.population_mut(brains)?.loss::<f32, i64>(&Array2::zeros((3, 8)), &CrossEntropyLoss::default())?;
///     Ok(())
/// }
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?.id();
/// world.population_mut(brains)?.insert(SGD { lr: 1.0, ..SGD::default() })?;
/// world.population_mut(brains)?.schedule_with(|model| ExponentialLR { gamma: 1.0 / (2 + model) as f64 })?;
/// world.insert_resource(Brains(brains));
/// let mut schedule = Schedule::default();
/// add_neurarch(&mut schedule);
/// schedule.add_systems(learn.in_set(StepSystems::Loss));
/// schedule.run(&mut world);
/// let rates = world.population(brains)?.models().iter().map(|&model| world.get::<SGD>(model).unwrap().lr);
/// assert_eq!(rates.collect::<Vec<_>>(), [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Scheduler`]: crate::components::scheduler::Scheduler
/// [`Metric`]: crate::components::scheduler::Metric
pub fn step_schedulers(world: &mut World) -> Result<(), BevyError> {
    let learning = world.remove_resource::<Learning>().unwrap_or_default();
    for population in learning.0 {
        lr_scheduler::step_all(world, population)?;
    }
    Ok(())
}

fn populations(world: &mut World) -> Vec<Entity> {
    world.query_filtered::<Entity, With<Population>>().iter(world).collect()
}
