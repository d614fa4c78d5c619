//! Handles of what a test knows to be there.

use neurarch::prelude::*;

/// Returns handles, or panics.
pub(crate) trait Known {
    /// Returns a population.
    fn brains(&mut self, population: Entity) -> PopulationMut<'_>;

    /// Returns a module of a model.
    fn part(&mut self, module: Entity) -> ModuleMut<'_>;
}

impl Known for World {
    fn brains(&mut self, population: Entity) -> PopulationMut<'_> {
        self.population_mut(population).unwrap()
    }

    fn part(&mut self, module: Entity) -> ModuleMut<'_> {
        self.module_mut(module).unwrap()
    }
}
