//! Finds the population of an entity.

use bevy_ecs::prelude::*;
use neurarch_components::population::Population;

use crate::errors;
use crate::errors::StepError;

/// Gives the population of an entity.
pub(crate) fn population(world: &World, entity: Entity) -> Result<&Population, StepError> {
    let found = world.get::<Population>(entity);
    found.ok_or_else(|| errors::SignError::NotAPopulation(entity).into())
}
