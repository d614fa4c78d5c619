//! [`Progress`]: how far a population has learned.

use bevy_ecs::prelude::*;

use super::messages::{PopulationStepped, TrainingDiverged, write};
use super::turns::{are_same, places_before};
use crate::components::population::Population;

/// How far a population with [`Learn`](super::Learn) is.
#[derive(Component, Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// How many steps all of its models have made.
    pub steps: u64,
    /// How many models have yet to learn from the minibatch that is being learned.
    pub waiting: usize,
    /// `[models]`: each model's last loss; NaN where there is none yet.
    pub losses: Vec<f32>,
    /// The models that `losses` speaks of, and as of which version and next number of the population.
    #[entities]
    models: Vec<Entity>,
    of: Option<(u64, u64)>,
}

impl Progress {
    /// Follows models that came, went or have other indices.
    pub(super) fn follow(&mut self, population: &Population) {
        let now = Some((population.version(), population.next_number()));
        if self.of == now {
            return;
        }
        let before = places_before(&self.models, self.of.map(|(_, number)| number), population);
        self.of = now;
        if !are_same(&before, self.models.len()) {
            let loss = |place: &Option<usize>| place.map_or(f32::NAN, |place| self.losses[place]);
            self.losses = before.iter().map(loss).collect();
            self.models = population.models().to_vec();
        }
    }
}

/// The populations that made a step since schedulers ran last.
#[derive(Resource, Default)]
pub(super) struct Stepped(pub(super) Vec<Entity>);

/// Writes down losses of models, by their indices, and tells of those that are not finite.
pub(super) fn record(
    world: &mut World,
    population: Entity,
    losses: impl Iterator<Item = (usize, f32)>,
) {
    let mut found = world.query::<(&Population, &mut Progress)>();
    let Ok((models, mut progress)) = found.get_mut(world, population) else { return };
    progress.follow(models);
    let mut diverged = Vec::new();
    for (index, loss) in losses {
        if let Some(last) = progress.losses.get_mut(index) {
            *last = loss;
        }
        if let Some(&model) = models.models().get(index).filter(|_| !loss.is_finite()) {
            diverged.push(TrainingDiverged { population, model, loss });
        }
    }
    if !diverged.is_empty() {
        write(world, diverged);
    }
}

/// Counts a step of a population, and tells of it.
pub(super) fn tell_step(world: &mut World, population: Entity) {
    let Some(mut progress) = world.get_mut::<Progress>(population) else { return };
    progress.steps += 1;
    let steps = progress.steps;
    write(world, [PopulationStepped { population, steps }]);
    world.get_resource_or_init::<Stepped>().0.push(population);
}
