//! Finds the population of an entity.

use bevy_ecs::prelude::*;
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::Dtype;

use crate::errors;
use crate::errors::StepError;

/// Returns the population of an entity.
pub(crate) fn population(world: &World, entity: Entity) -> Result<&Population, StepError> {
    let found = world.get::<Population>(entity);
    found.ok_or_else(|| errors::SignError::NotAPopulation(entity).into())
}

/// How many models a population has, and of which type their parameters are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Models {
    pub(crate) count: usize,
    pub(crate) dtype: Dtype,
}

impl Models {
    pub(crate) fn of(population: &Population) -> Self {
        Models { count: population.len(), dtype: population.dtype() }
    }
}

impl Default for Models {
    /// None, as before the first call.
    fn default() -> Self {
        Models { count: 0, dtype: Dtype::F32 }
    }
}
