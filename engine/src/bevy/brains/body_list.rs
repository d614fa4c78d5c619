//! [`Bodies`]: the body of each model of a population.

use bevy_ecs::lifecycle::{Discard, Insert};
use bevy_ecs::prelude::*;

use crate::bevy::brains::bodies::BrainOf;
use crate::components::population::Population;
use crate::components::population::tree::Model;
use crate::systems::structure::sign::SignError;

/// The body of each model of a population, in the order of the models' indices: a component of the population's entity.
///
/// Observers of [`BrainOf`] patch it, and the population's own list of indices that got or lost a model.
#[derive(Component, Default)]
pub(crate) struct Bodies {
    of: Vec<Entity>,
    version: Option<u64>,
}

/// Says that a world has the observers which [`Bodies`] needs.
#[derive(Resource)]
struct Observed;

impl Bodies {
    /// Returns the body of each model, by index; [`Entity::PLACEHOLDER`] where there is none.
    pub(crate) fn of(&self) -> &Vec<Entity> {
        &self.of
    }

    /// Brings the list up to date; says whether models came, went or were born since.
    pub(crate) fn follow(world: &mut World, brains: Entity) -> Result<bool, SignError> {
        let not_a_population = SignError::NotAPopulation(brains);
        if world.get::<Population>(brains).is_none() {
            return Err(not_a_population);
        }
        if world.get_resource::<Observed>().is_none() {
            world.insert_resource(Observed);
            world.add_observer(
                |on: On<Insert<BrainOf>>,
                 brains: Query<(&BrainOf, &Model)>,
                 lists: Query<(&Population, &mut Bodies)>| {
                    if let Ok((of, model)) = brains.get(on.entity) {
                        Bodies::patch(lists, on.entity, model, of.0);
                    }
                },
            );
            world.add_observer(
                |on: On<Discard<BrainOf>>,
                 brains: Query<&Model>,
                 lists: Query<(&Population, &mut Bodies)>| {
                    if let Ok(model) = brains.get(on.entity) {
                        Bodies::patch(lists, on.entity, model, Entity::PLACEHOLDER);
                    }
                },
            );
        }
        if world.get::<Bodies>(brains).is_none() {
            world.entity_mut(brains).insert(Bodies::default());
        }
        let found = world.get::<Population>(brains).zip(world.get::<Bodies>(brains));
        let (found, bodies) = found.ok_or(not_a_population)?;
        let (version, models) = (found.version(), found.models());
        if bodies.version == Some(version) {
            return Ok(false);
        }
        let turnover = bodies.version.and_then(|since| Some(found.turnover(since)?.collect()));
        let stale: Vec<u32> = turnover.unwrap_or_else(|| (0..models.len() as u32).collect());
        let body = |index: u32| {
            let index = index as usize;
            let of = world.get::<BrainOf>(*models.get(index)?);
            Some((index, of.map_or(Entity::PLACEHOLDER, |of| of.0)))
        };
        let patches: Vec<_> = stale.into_iter().filter_map(body).collect();
        let count = models.len();
        if let Some(mut bodies) = world.get_mut::<Bodies>(brains) {
            bodies.of.resize(count, Entity::PLACEHOLDER);
            patches.into_iter().for_each(|(index, body)| bodies.of[index] = body);
            bodies.version = Some(version);
        }
        Ok(true)
    }

    /// Says which body a model has, if its place is known.
    fn patch(
        mut lists: Query<(&Population, &mut Bodies)>,
        brain: Entity,
        model: &Model,
        body: Entity,
    ) {
        let Ok((found, mut bodies)) = lists.get_mut(model.population) else { return };
        let index = model.index as usize;
        if found.models().get(index) == Some(&brain)
            && let Some(of) = bodies.of.get_mut(index)
        {
            *of = body;
        }
    }
}
