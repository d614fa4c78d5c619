//! [`EvolveWorld`]: evolution on bevy's [`World`], by one-line callers of the functions in
//! [`systems::evolve`](crate::systems::evolve).

use bevy_ecs::prelude::*;

use crate::systems::evolve::{self, EvolveError, Noise};

/// How the models of a population take over from each other, mix, change at random and multiply.
///
/// ```
/// use ndarray::Array2;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(2, 1), 100, Seed(7))?;
/// let observation = Array2::<f32>::ones((100, 2));
/// let fitness = |y: ndarray::ArrayD<f32>| y.iter().map(|y| -(y - 3.0).abs()).collect::<Vec<_>>();
/// for _ in 0..20 {
///     let fitness = fitness(world.forward(brains, &observation)?);
///     // The ten best stay; the others become changed copies of them.
///     let mut ranking: Vec<usize> = (0..100).collect();
///     ranking.sort_by(|&a, &b| fitness[b].total_cmp(&fitness[a]));
///     let mut parents = vec![0; 100];
///     ranking.iter().enumerate().for_each(|(rank, &model)| parents[model] = ranking[rank % 10]);
///     world.overwrite(brains, &parents)?;
///     let noise = |model| Noise::normal(if parents[model] == model { 0.0 } else { 0.3 });
///     world.perturb_with(brains, noise, |_| true)?;
/// }
/// let best = fitness(world.forward(brains, &observation)?).into_iter().fold(f32::MIN, f32::max);
/// assert!(best > -0.1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EvolveWorld {
    /// Overwrites every model `i` with what model `parents[i]` was: [`evolve::overwrite`].
    ///
    /// # Errors
    ///
    /// If `parents` is not an index for each model, of a model of the same blueprint, with an optimizer of the
    /// same type if there is optimizer state.
    fn overwrite(&mut self, population: Entity, parents: &[usize]) -> Result<(), EvolveError>;

    /// Gives every model `i` the optimizers, and the settings that are scalar slots, which model
    /// `parents[i]` had: [`evolve::overwrite_hyperparameters`].
    ///
    /// # Errors
    ///
    /// If `parents` is not an index for each model, of a model of the same blueprint.
    fn overwrite_hyperparameters(
        &mut self,
        population: Entity,
        parents: &[usize],
    ) -> Result<(), EvolveError>;

    /// Makes every model `i` a mixture of the two models `parents[i]`, parameter by parameter:
    /// [`evolve::crossover`].
    ///
    /// # Errors
    ///
    /// As [`overwrite`](EvolveWorld::overwrite), for either parent.
    fn crossover(
        &mut self,
        population: Entity,
        parents: &[(usize, usize)],
    ) -> Result<(), EvolveError>;

    /// Adds the same kind of noise to all parameters of all models: [`evolve::perturb`].
    ///
    /// # Errors
    ///
    /// If the entity is no population, or the noise has a negative deviation or no rate.
    fn perturb(&mut self, population: Entity, noise: Noise) -> Result<(), EvolveError>;

    /// Adds noise to the parameters that `is_chosen` says by name, for each model by its index:
    /// [`evolve::perturb`].
    ///
    /// # Errors
    ///
    /// As [`perturb`](EvolveWorld::perturb).
    fn perturb_with(
        &mut self,
        population: Entity,
        noise: impl Fn(usize) -> Noise,
        is_chosen: impl Fn(&str) -> bool,
    ) -> Result<(), EvolveError>;

    /// Clones models, by index, into new entities; gives their roots: [`evolve::clone_models`].
    ///
    /// # Errors
    ///
    /// If an index is none of a model.
    fn clone_models(
        &mut self,
        population: Entity,
        models: &[usize],
    ) -> Result<Vec<Entity>, EvolveError>;
}

impl EvolveWorld for World {
    fn overwrite(&mut self, population: Entity, parents: &[usize]) -> Result<(), EvolveError> {
        evolve::overwrite(self, population, parents)
    }

    fn overwrite_hyperparameters(
        &mut self,
        population: Entity,
        parents: &[usize],
    ) -> Result<(), EvolveError> {
        evolve::overwrite_hyperparameters(self, population, parents)
    }

    fn crossover(
        &mut self,
        population: Entity,
        parents: &[(usize, usize)],
    ) -> Result<(), EvolveError> {
        evolve::crossover(self, population, parents)
    }

    fn perturb(&mut self, population: Entity, noise: Noise) -> Result<(), EvolveError> {
        evolve::perturb(self, population, |_| noise, |_| true)
    }

    fn perturb_with(
        &mut self,
        population: Entity,
        noise: impl Fn(usize) -> Noise,
        is_chosen: impl Fn(&str) -> bool,
    ) -> Result<(), EvolveError> {
        evolve::perturb(self, population, noise, is_chosen)
    }

    fn clone_models(
        &mut self,
        population: Entity,
        models: &[usize],
    ) -> Result<Vec<Entity>, EvolveError> {
        evolve::clone_models(self, population, models)
    }
}
