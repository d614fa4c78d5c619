//! Evolution.

use crate::handles::PopulationMut;
use crate::systems::evolve::{self, EvolveError, Noise};
use bevy_ecs::prelude::*;

/// How the models of a population take over from each other, mix, change at random and multiply.
///
/// ```
/// use ndarray::Array2;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(2, 1), 100, Seed(7))?;
/// let observation = Array2::<f32>::ones((100, 2));
/// let fitness = |y: ndarray::ArrayD<f32>| y.iter().map(|y| -(y - 3.0).abs()).collect::<Vec<_>>();
/// for _ in 0..20 {
///     let fitness = fitness(brains.forward(&observation)?);
///     // The ten best stay; the others become changed copies of them.
///     let mut ranking: Vec<usize> = (0..100).collect();
///     ranking.sort_by(|&a, &b| fitness[b].total_cmp(&fitness[a]));
///     let mut parents = vec![0; 100];
///     ranking.iter().enumerate().for_each(|(rank, &model)| parents[model] = ranking[rank % 10]);
///     brains.overwrite(&parents)?;
///     let noise = |model| Noise::normal(if parents[model] == model { 0.0 } else { 0.3 });
///     brains.perturb_with(noise, |_| true)?;
/// }
/// let best = fitness(brains.forward(&observation)?).into_iter().fold(f32::MIN, f32::max);
/// assert!(best > -0.1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl PopulationMut<'_> {
    /// Overwrites every model `i` with what model `parents[i]` was: [`evolve::overwrite`].
    ///
    /// # Errors
    ///
    /// If `parents` is not an index for each model, of a model of the same blueprint, with an optimizer of the
    /// same type if there is optimizer state.
    pub fn overwrite(&mut self, parents: &[usize]) -> Result<(), EvolveError> {
        evolve::overwrite(self.handle.world, self.id, parents)
    }

    /// Gives every model `i` the optimizers, and the settings that are scalar slots, which model
    /// `parents[i]` had: [`evolve::overwrite_hyperparameters`].
    ///
    /// # Errors
    ///
    /// If `parents` is not an index for each model, of a model of the same blueprint.
    pub fn overwrite_hyperparameters(&mut self, parents: &[usize]) -> Result<(), EvolveError> {
        evolve::overwrite_hyperparameters(self.handle.world, self.id, parents)
    }

    /// Makes every model `i` a mixture of the two models `parents[i]`, parameter by parameter:
    /// [`evolve::crossover`].
    ///
    /// # Errors
    ///
    /// As [`overwrite`](Self::overwrite), for either parent.
    pub fn crossover(&mut self, parents: &[(usize, usize)]) -> Result<(), EvolveError> {
        evolve::crossover(self.handle.world, self.id, parents)
    }

    /// Adds the same kind of noise to all parameters of all models: [`evolve::perturb`].
    ///
    /// # Errors
    ///
    /// If the population was despawned, or the noise has a negative deviation or no rate.
    pub fn perturb(&mut self, noise: Noise) -> Result<(), EvolveError> {
        evolve::perturb(self.handle.world, self.id, |_| noise, |_| true)
    }

    /// Adds noise to the parameters that `is_chosen` says by name, for each model by its index:
    /// [`evolve::perturb`].
    ///
    /// # Errors
    ///
    /// As [`perturb`](Self::perturb).
    pub fn perturb_with(
        &mut self,
        noise: impl Fn(usize) -> Noise,
        is_chosen: impl Fn(&str) -> bool,
    ) -> Result<(), EvolveError> {
        evolve::perturb(self.handle.world, self.id, noise, is_chosen)
    }

    /// Clones models, by index, into new entities; gives their roots: [`evolve::clone_models`].
    ///
    /// # Errors
    ///
    /// If an index is none of a model.
    pub fn clone_models(&mut self, models: &[usize]) -> Result<Vec<Entity>, EvolveError> {
        evolve::clone_models(self.handle.world, self.id, models)
    }
}
