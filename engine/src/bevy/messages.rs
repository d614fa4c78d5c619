//! What happened to populations in a host's schedules, as bevy's messages.

use std::collections::HashSet;

use bevy_ecs::entity::{EntityHashMap, EntityHashSet};
use bevy_ecs::prelude::*;

use crate::components::population::Population;
use crate::components::warnings::Warnings;
use crate::systems::execute::step::StepError;

/// All models of a population with [`Learn`](super::Learn) have made a step.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq)]
pub struct PopulationStepped {
    /// The population's entity.
    pub population: Entity,
    /// How many steps it has made, this one too.
    pub steps: u64,
}

/// A population cannot run or learn: it was left as it is, and its minibatch is dropped.
///
/// The error is a warning of the crate `tracing` as well, once for each text.
#[derive(Message, Clone, Debug, PartialEq)]
pub struct StepFailed {
    /// The population's entity.
    pub population: Entity,
    /// Why.
    pub error: StepError,
}

/// The loss of a model is not finite. The host may reset that model alone:
/// `world.module_mut(model)?.reset_parameters()`.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
pub struct TrainingDiverged {
    /// The population's entity.
    pub population: Entity,
    /// The model's root.
    pub model: Entity,
    /// NaN, or infinite.
    pub loss: f32,
}

/// A model came into a population.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelSpawned {
    /// The population's entity.
    pub population: Entity,
    /// The model's root.
    pub model: Entity,
}

/// A model left its population, or went with it.
#[derive(Message, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelDespawned {
    /// The population's entity.
    pub population: Entity,
    /// The model's root, which may be no entity any more.
    pub model: Entity,
}

/// Writes messages, if somebody made them known.
pub(crate) fn write<M: Message>(world: &mut World, all: impl IntoIterator<Item = M>) {
    if let Some(mut messages) = world.get_resource_mut::<Messages<M>>() {
        messages.write_batch(all);
    }
}

/// Says that a population cannot run or learn.
pub(super) fn fail(world: &mut World, population: Entity, error: &StepError) {
    Warnings::of(world).warn("plugin", &format!("population {population}: {error}"));
    write(world, [StepFailed { population, error: error.clone() }]);
}

/// What was known of a population's models.
#[derive(Debug, Default)]
pub struct Known {
    version: u64,
    models: Vec<Entity>,
}

/// Tells which models came and went since it last ran: [`ModelSpawned`], [`ModelDespawned`]. It reads the populations whose
/// models changed, and of those the models that did, if few.
pub fn report_models(
    populations: Query<(Entity, &Population)>,
    mut known: Local<EntityHashMap<Known>>,
    spawned: Option<ResMut<Messages<ModelSpawned>>>,
    despawned: Option<ResMut<Messages<ModelDespawned>>>,
) {
    let (Some(mut spawned), Some(mut despawned)) = (spawned, despawned) else { return };
    let mut changes = Changes::default();
    let mut n_known = 0;
    for (population, found) in &populations {
        let is_new = !known.contains_key(&population);
        let of = known.entry(population).or_default();
        n_known += 1;
        if is_new || of.version != found.version() {
            changes.compare(population, of, found);
        }
    }
    if n_known < known.len() {
        known.retain(|&population, of| {
            let stays = populations.contains(population);
            if !stays {
                let all = of.models.iter().map(|&model| ModelDespawned { population, model });
                changes.despawned.extend(all);
            }
            stays
        });
    }
    if !changes.despawned.is_empty() {
        despawned.write_batch(changes.despawned);
    }
    if !changes.spawned.is_empty() {
        spawned.write_batch(changes.spawned);
    }
}

/// Says whether there are populations, or were at the last look: a condition of [`report_models`].
pub(super) fn have_models(populations: Query<(), With<Population>>, mut had: Local<bool>) -> bool {
    let has = !populations.is_empty();
    std::mem::replace(&mut *had, has) || has
}

/// Which models came and went.
#[derive(Default)]
struct Changes {
    spawned: Vec<ModelSpawned>,
    despawned: Vec<ModelDespawned>,
}

impl Changes {
    /// Compares what was known of a population with what is.
    fn compare(&mut self, population: Entity, known: &mut Known, found: &Population) {
        let models = found.models();
        let longest = models.len().max(known.models.len());
        let indices: Vec<usize> = match found.turnover(known.version) {
            Some(turnover) if !known.models.is_empty() => {
                let changed: HashSet<usize> = turnover.map(|index| index as usize).collect();
                let mut changed: Vec<_> = changed.into_iter().collect();
                changed.extend(models.len().min(known.models.len())..longest);
                changed.sort_unstable();
                changed.dedup();
                changed
            }
            _ => (0..longest).collect(),
        };
        let at = |list: &[Entity]| -> Vec<Entity> {
            indices.iter().filter_map(|&index| list.get(index).copied()).collect()
        };
        let (before, after) = (at(&known.models), at(models));
        let were: EntityHashSet = before.iter().copied().collect();
        let are: EntityHashSet = after.iter().copied().collect();
        let gone = before.into_iter().filter(|model| !are.contains(model));
        self.despawned.extend(gone.map(|model| ModelDespawned { population, model }));
        let came = after.into_iter().filter(|model| !were.contains(model));
        self.spawned.extend(came.map(|model| ModelSpawned { population, model }));
        known.version = found.version();
        known.models.clear();
        known.models.extend_from_slice(models);
    }
}
