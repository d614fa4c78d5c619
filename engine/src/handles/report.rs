//! What handles say of models: summaries, text, health of gradients, histograms.

use core::fmt;

use bevy_ecs::prelude::*;

use crate::handles::{ModuleMut, ModuleRef, PopulationMut, PopulationRef, PositionMut};
use crate::report::health::{self, GradientHealth, PopulationHealth};
use crate::report::histogram::{Histogram, Numbers, histograms};
use crate::report::summary::{self, PopulationSummary, Summary, SummaryOptions};
use crate::systems::execute::step::StepError;
use crate::systems::structure::access::AccessError;
use crate::systems::system_params::repr::repr;

impl ModuleMut<'_> {
    /// Lists the layers of the module with shapes, parameters and multiply-adds: [`summary::summary`].
    ///
    /// # Errors
    ///
    /// If the module cannot take arrays of these sizes.
    pub fn summary(&mut self, options: SummaryOptions) -> Result<Summary, StepError> {
        summary::summary(self.handle.world, self.id, &options)
    }
}

impl PopulationMut<'_> {
    /// Lists the layers of each structure that models have, and the totals over all models: [`summary::summary_of_all`].
    ///
    /// # Errors
    ///
    /// If a model cannot take arrays of these sizes.
    pub fn summary(&mut self, options: SummaryOptions) -> Result<PopulationSummary, StepError> {
        summary::summary_of_all(self.handle.world, self.handle.target.clone(), &options)
    }
}

impl PositionMut<'_> {
    /// Lists the layers of the module of each structure that models have, and the totals over all models:
    /// [`summary::summary_of_all`].
    ///
    /// # Errors
    ///
    /// If a model has no such module, or it cannot take arrays of these sizes.
    pub fn summary(&mut self, options: SummaryOptions) -> Result<PopulationSummary, StepError> {
        summary::summary_of_all(self.handle.world, self.handle.target.clone(), &options)
    }
}

impl ModuleRef<'_> {
    /// Measures the gradients of the module and of all below it: [`health::check_gradient_health`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check_gradient_health(&self) -> Result<GradientHealth, AccessError> {
        health::check_gradient_health(self.world, self.id)
    }

    /// Counts the numbers of each parameter in bins: [`histograms`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn histograms(&self, of: Numbers, bins: usize) -> Result<Vec<Histogram>, AccessError> {
        histograms(self.world, self.id, of, bins)
    }
}

impl PopulationRef<'_> {
    /// Measures the gradients of each model, the worst first: [`health::check_population`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check_gradient_health(&self) -> Result<PopulationHealth, AccessError> {
        health::check_population(self.world, self.id)
    }

    /// Counts the numbers of each parameter of all models in bins: [`histograms`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn histograms(&self, of: Numbers, bins: usize) -> Result<Vec<Histogram>, AccessError> {
        histograms(self.world, self.id, of, bins)
    }
}

fn print(f: &mut fmt::Formatter<'_>, world: &World, id: Entity) -> fmt::Result {
    f.write_str(&repr(world, id).unwrap_or_else(|| "None".to_owned()))
}

/// The module and all below it as torch prints them; `None` if it was despawned.
impl fmt::Display for ModuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.world, self.id)
    }
}

/// The module and all below it as torch prints them; `None` if it was despawned.
impl fmt::Display for ModuleMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.handle.world, self.id)
    }
}

/// The models as torch prints a list of modules; `None` if the population was despawned.
impl fmt::Display for PopulationRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.world, self.id)
    }
}

/// The models as torch prints a list of modules; `None` if the population was despawned.
impl fmt::Display for PopulationMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.handle.world, self.id)
    }
}
