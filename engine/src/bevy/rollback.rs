//! Rollback in a host's schedules: [`Rollback`] on a population, and schedules that save and load a tick.

#[cfg(feature = "app")]
use bevy_app::prelude::*;
use bevy_ecs::prelude::*;
use bevy_ecs::schedule::ScheduleLabel;

use super::messages::write;
use super::participation::{Actions, Learn, Minibatch, Observations, Think, ThinkEvery};
use super::progress::Progress;
use super::round::Round;
use super::turns::Turns;
use crate::components::population::Population;
use crate::components::saved::CopiedTypes;
use crate::components::warnings::Warnings;
use crate::systems::rollback::{self, RollbackError, Snapshots};

/// Has a population take part in rollback: its last ticks are kept, so many of them, whenever [`SaveWorld`] runs. `RollbackPlugin`
/// has an example.
///
/// Source: `bevy_ggrs`'s component of that name.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "reflect", derive(bevy_reflect::Reflect), reflect(Component))]
pub struct Rollback(pub usize);

/// The tick that [`SaveWorld`] saves and [`LoadWorld`] loads: the host sets it. Without it, it is 0.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollbackTick(pub u64);

/// The schedule that saves a tick: the host runs it.
///
/// Source: the schedule of that name in `bevy_ggrs`.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct SaveWorld;

/// The schedule that goes back to a tick: the host runs it.
///
/// Source: the schedule of that name in `bevy_ggrs`.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoadWorld;

/// The parts of [`SaveWorld`], in order.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SaveSystems {
    /// Checksums are computed: of populations with [`Checksum`].
    Checksum,
    /// Populations are saved.
    Snapshot,
}

/// The parts of [`LoadWorld`], in order.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadSystems {
    /// Populations go back.
    Data,
    /// The host puts models that were made anew in the place of those that they were: see [`ModelRevived`].
    Mapping,
}

/// Has a checksum of a population computed whenever [`SaveWorld`] runs: peers that are in step have the same. It is 0 at first.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

/// A model that was despawned since a tick is there again, in an entity of its own.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelRevived {
    /// The population's entity.
    pub population: Entity,
    /// What was its root at the tick.
    pub before: Entity,
    /// Its root.
    pub model: Entity,
}

/// A population could not be saved, or go back.
#[derive(Message, Clone, Debug, PartialEq)]
pub struct RollbackFailed {
    /// The population's entity.
    pub population: Entity,
    /// The tick.
    pub tick: u64,
    /// Why.
    pub error: RollbackError,
}

/// Makes the schedules [`SaveWorld`] and [`LoadWorld`], with the systems that save and load populations with [`Rollback`].
///
/// A host with a netcode crate of its own leaves it out and puts [`save_snapshots`] and [`load_snapshots`] into that crate's
/// schedules; with `bevy_ggrs`: `SaveWorldSystems::Snapshot` and `LoadWorldSystems::Data`.
///
/// # Example
///
/// ```
/// use bevy_app::prelude::*;
/// use neurarch::bevy_ecs::prelude::*;
/// use neurarch::evolve::Noise;
/// use neurarch::plugin::{LoadWorld, Rollback, RollbackPlugin, RollbackTick, SaveWorld};
/// use neurarch::prelude::*;
///
/// let mut app = App::new();
/// app.add_plugins(RollbackPlugin);
/// let world = app.world_mut();
/// let brains = world.spawn_population(&Linear::new(3, 2), 100, Seed(1))?.id();
/// world.entity_mut(brains).insert(Rollback(8));
///
/// // What a netcode crate asks for: save a tick, run on, load it.
/// world.insert_resource(RollbackTick(60));
/// world.run_schedule(SaveWorld);
/// let before = world.population_mut(brains)?.stack::<f32>("weight")?;
/// world.population_mut(brains)?.perturb(Noise::normal(0.1))?;
/// world.insert_resource(RollbackTick(60));
/// world.run_schedule(LoadWorld);
/// assert_eq!(world.population_mut(brains)?.stack::<f32>("weight")?, before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "app")]
#[derive(Clone, Copy, Debug, Default)]
pub struct RollbackPlugin;

#[cfg(feature = "app")]
impl Plugin for RollbackPlugin {
    fn build(&self, app: &mut App) {
        app.init_resource::<RollbackTick>()
            .add_message::<ModelRevived>()
            .add_message::<RollbackFailed>()
            .init_schedule(SaveWorld)
            .init_schedule(LoadWorld)
            .configure_sets(SaveWorld, (SaveSystems::Checksum, SaveSystems::Snapshot).chain())
            .configure_sets(LoadWorld, (LoadSystems::Data, LoadSystems::Mapping).chain())
            .add_systems(SaveWorld, save_checksums.in_set(SaveSystems::Checksum))
            .add_systems(SaveWorld, save_snapshots.in_set(SaveSystems::Snapshot))
            .add_systems(LoadWorld, load_snapshots.in_set(LoadSystems::Data));
        #[cfg(feature = "reflect")]
        app.register_type::<Rollback>();
    }
}

/// Has snapshots copy what the plugin keeps of populations: what they see and do, turns, minibatches, progress.
pub(crate) fn copy_types(world: &mut World) {
    CopiedTypes::register::<Think>(world);
    CopiedTypes::register::<ThinkEvery>(world);
    CopiedTypes::register::<Observations>(world);
    CopiedTypes::register::<Actions>(world);
    CopiedTypes::register::<Learn>(world);
    CopiedTypes::register::<Minibatch>(world);
    CopiedTypes::register::<Progress>(world);
    CopiedTypes::register::<Round>(world);
    CopiedTypes::register::<Turns>(world);
}

/// Saves all populations with [`Rollback`] at the tick that [`RollbackTick`] says. What fails is told by [`RollbackFailed`].
pub fn save_snapshots(world: &mut World) {
    copy_types(world);
    let tick = world.get_resource::<RollbackTick>().map_or(0, |tick| tick.0);
    for (population, depth) in participants(world) {
        let known = world.get::<Snapshots>(population).map(Snapshots::depth);
        let kept = match known == Some(depth) {
            true => Ok(()),
            false => rollback::keep_snapshots(world, population, depth),
        };
        if let Err(error) = kept.and_then(|()| rollback::save(world, population, tick)) {
            fail(world, population, tick, error);
        }
    }
}

/// Makes all populations with [`Rollback`] what they were at the tick that [`RollbackTick`] says. Models that were made anew
/// are told by [`ModelRevived`], what fails by [`RollbackFailed`].
pub fn load_snapshots(world: &mut World) {
    let tick = world.get_resource::<RollbackTick>().map_or(0, |tick| tick.0);
    for (population, _) in participants(world) {
        match rollback::restore(world, population, tick) {
            Ok(restored) => {
                let revived = restored.revived.into_iter();
                let told =
                    revived.map(|(before, model)| ModelRevived { population, before, model });
                write(world, told);
            }
            Err(error) => fail(world, population, tick, error),
        }
    }
}

/// Computes the [`Checksum`] of all populations that have one.
pub fn save_checksums(world: &mut World) {
    let mut all = world.query_filtered::<Entity, (With<Checksum>, With<Population>)>();
    for population in all.iter(world).collect::<Vec<_>>() {
        match rollback::checksum(world, population) {
            Ok(sum) => {
                if let Some(mut checksum) = world.get_mut::<Checksum>(population) {
                    checksum.0 = sum;
                }
            }
            Err(error) => {
                let tick = world.get_resource::<RollbackTick>().map_or(0, |tick| tick.0);
                fail(world, population, tick, error);
            }
        }
    }
}

/// Lists the populations that take part, in an order of their own.
fn participants(world: &mut World) -> Vec<(Entity, usize)> {
    let mut all = world.query_filtered::<(Entity, &Rollback), With<Population>>();
    let mut all: Vec<_> = all.iter(world).map(|(population, of)| (population, of.0)).collect();
    all.sort_unstable();
    all
}

fn fail(world: &mut World, population: Entity, tick: u64, error: RollbackError) {
    Warnings::of(world).warn("rollback", &format!("population {population}: {error}"));
    write(world, [RollbackFailed { population, tick, error }]);
}
