//! [`StepSystems`]: the order of a step, and which systems are in it.

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{IntoScheduleConfigs, Schedule, ScheduleConfigs, ScheduleLabel};
#[cfg(feature = "app")]
use bevy_ecs::schedule::{LogLevel, ScheduleBuildSettings, SingleThreadedExecutor};
use bevy_ecs::system::ScheduleSystem;

use super::budget::{begin_frame, is_any_spent};
use super::forward::run_forward;
use super::messages::{have_models, report_models};
use super::participation::{Learn, Think};
use super::steps::{compute_gradients, step_schedulers, update};
use super::training::train_tiles;
use crate::components::population::Population;

/// The parts of a step, in the order in which [`order_step`] has them run.
///
/// [`Observe`](StepSystems::Observe), [`Act`](StepSystems::Act) and [`Loss`](StepSystems::Loss) are empty by default: they
/// are the host's.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepSystems {
    /// The host writes what the models see.
    Observe,
    /// Models run.
    Forward,
    /// The host uses what the models gave.
    Act,
    /// The host gives minibatches to populations that learn, or computes losses.
    Loss,
    /// All of learning: `Backward`, `Step` and `Schedule`.
    Learn,
    /// Gradients are computed.
    Backward,
    /// Parameters are updated.
    Step,
    /// Learning rates change.
    Schedule,
}

/// The schedule of a plugin's learning systems, with the sets `Backward`, `Step` and `Schedule`. It has one thread for
/// its systems, and two systems whose order is open are an error.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learning;

/// Puts the parts of a step in their order in `schedule`.
pub fn order_step(schedule: &mut Schedule) {
    use StepSystems::{Act, Backward, Forward, Learn, Loss, Observe, Schedule as Schedulers, Step};
    schedule.configure_sets((Observe, Forward, Act, Loss, Learn).chain());
    schedule.configure_sets((Backward, Step, Schedulers).chain().in_set(Learn));
}

/// Returns neurarch's systems of a part of a step, with their conditions, for hosts that place them themselves. Those of
/// the host's parts are none; those of [`StepSystems::Learn`] are all learning systems.
///
/// # Example
///
/// ```
/// # use neurarch::bevy_ecs::prelude::*;
/// # use neurarch::bevy_ecs::schedule::Schedule;
/// use neurarch::plugin::{StepSystems, get_systems};
///
/// let mut thinking = Schedule::default();
/// thinking.add_systems(get_systems(StepSystems::Forward));
/// let mut learning = Schedule::default();
/// learning.add_systems(get_systems(StepSystems::Learn));
/// # thinking.run(&mut World::new());
/// # learning.run(&mut World::new());
/// ```
pub fn get_systems(set: StepSystems) -> ScheduleConfigs<ScheduleSystem> {
    let learning = any::<Learn>;
    match set {
        StepSystems::Observe => report_models.before(set).run_if(have_models),
        StepSystems::Forward => run_forward.in_set(set).run_if(any::<Think>),
        StepSystems::Backward => compute_gradients.in_set(set).run_if(learning),
        StepSystems::Step => (train_tiles, update).chain().in_set(set).run_if(learning),
        StepSystems::Schedule => step_schedulers.in_set(set).run_if(learning),
        StepSystems::Learn => (
            get_systems(StepSystems::Backward),
            get_systems(StepSystems::Step),
            get_systems(StepSystems::Schedule),
        )
            .chain(),
        StepSystems::Act | StepSystems::Loss => ScheduleConfigs::Configs {
            configs: Vec::new(),
            collective_conditions: Vec::new(),
            metadata: Default::default(),
        },
    }
}

/// Puts a step into a schedule of `bevy_ecs`: the order of its parts, and the systems of neurarch in them. What takes part
/// are populations with [`Think`] or [`Learn`].
///
/// The host adds the rest: it writes what the models see in [`StepSystems::Observe`], uses what they give in
/// [`StepSystems::Act`], and gives them a [`Minibatch`](super::Minibatch) or calls
/// [`loss`](crate::PopulationMut::loss) in [`StepSystems::Loss`].
///
/// # Example
///
/// ```
/// use ndarray::{Array2, Array3};
/// use neurarch::bevy_ecs::prelude::*;
/// use neurarch::bevy_ecs::schedule::Schedule;
/// use neurarch::plugin::{Learn, Minibatch, add_neurarch};
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(3, 2), 100, Seed(1))?.id();
/// world.population_mut(brains)?.insert(SGD { lr: 0.1, ..SGD::default() })?;
/// world.entity_mut(brains).insert(Learn::new(CrossEntropyLoss::default()));
///
/// fn give(mut learners: Query<&mut Minibatch>) {
///     for mut minibatch in &mut learners {
///         minibatch.put(Array3::<f32>::ones((100, 8, 3)), Array2::<i64>::zeros((100, 8)));
///     }
/// }
///
/// let before = world.population_mut(brains)?.stack::<f32>("weight")?;
/// let mut schedule = Schedule::default();
/// add_neurarch(&mut schedule);
/// schedule.add_systems(give.in_set(StepSystems::Loss));
/// schedule.run(&mut world);
/// assert_ne!(world.population_mut(brains)?.stack::<f32>("weight")?, before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn add_neurarch(schedule: &mut Schedule) {
    order_step(schedule);
    schedule.add_systems(begin_frame.run_if(is_any_spent).before(StepSystems::Observe));
    for set in [StepSystems::Observe, StepSystems::Forward, StepSystems::Learn] {
        schedule.add_systems(get_systems(set));
    }
}

/// Makes the schedule [`Learning`], with the learning systems if `has_systems`.
#[cfg(feature = "app")]
pub(super) fn learning_schedule(has_systems: bool) -> Schedule {
    let mut schedule = Schedule::new(Learning);
    schedule.set_executor(SingleThreadedExecutor::new());
    schedule.set_build_settings(ScheduleBuildSettings {
        ambiguity_detection: LogLevel::Error,
        ..ScheduleBuildSettings::default()
    });
    order_step(&mut schedule);
    if has_systems {
        schedule.add_systems(get_systems(StepSystems::Learn));
    }
    schedule
}

/// Runs the schedule [`Learning`].
#[cfg(feature = "app")]
pub(super) fn learn(world: &mut World) {
    // A host that took it away wants nobody to learn.
    let _ = world.try_run_schedule(Learning);
}

/// Says whether some population has a component.
pub(super) fn any<C: Component>(populations: Query<(), (With<C>, With<Population>)>) -> bool {
    !populations.is_empty()
}
