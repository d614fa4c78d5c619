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

/// How many models a population has, and of which type their parameters are: of the population's own where some are, else
/// of the one that all models have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Models {
    pub(crate) count: usize,
    pub(crate) dtype: Dtype,
}

impl Models {
    pub(crate) fn of(population: &Population) -> Self {
        let own = population.dtype();
        let groups = population.groups().iter().filter(|group| !group.members.is_empty());
        let mut types = groups.map(|group| group.structure().dtype_below(0, own));
        let first = types.next().unwrap_or(own);
        let dtype = if types.all(|dtype| dtype == first) { first } else { own };
        Models { count: population.len(), dtype }
    }
}

impl Default for Models {
    /// None, as before the first call.
    fn default() -> Self {
        Models { count: 0, dtype: Dtype::F32 }
    }
}
