//! Evolution: models of a population take over the numbers of others, mix them, and change at random.
//!
//! Everything is done once for each column, in parallel, on the entities that there are: models keep their
//! entities, indices, numbers and modes, and no archetype changes. Only [`clone_models`] makes entities, and [`park`] has
//! dead models taken over by others.

mod clone;
mod crossover;
mod error;
mod family;
mod hyperparameters;
pub mod park;
mod perturb;

use bevy_ecs::prelude::*;

pub use clone::clone_models;
pub use crossover::crossover;
pub use error::EvolveError;
pub use hyperparameters::overwrite_hyperparameters;
pub use perturb::{Noise, perturb};

use family::Family;

/// Overwrites every model with another one: model `i` has the numbers that model `parents[i]` had before.
///
/// These are parameters, buffers, gradients (and whether there are any), and the optimizer's state with its counts
/// of steps. A model that is its own parent stays as it is; parents may repeat and swap. Each row is
/// written at most once, and set aside only where models exchange their numbers in a circle.
///
/// Entities, indices, numbers, random states and modes stay, and so do settings: for optimizers and for
/// settings that are scalar slots there is [`overwrite_hyperparameters`]. An inactive model is overwritten
/// like any other, since the list names it. What the population [shares](crate::structure::shared) stays as it is. As after any other write to parameters, a forward pass that was
/// not followed by `backward` yet is stale.
///
/// # Shape
///
/// `parents` is `[models]`: indices.
///
/// # Errors
///
/// [`EvolveError`]: for a list that is too short or too long, an index that is none, a parent of another
/// blueprint, or one with an optimizer of another type where there is optimizer state.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::evolve;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(1, 1), 3, 3, 7, Dtype::F32)?;
/// let biases = ndarray::array![[1.0_f32], [2.0], [3.0]].into_dyn();
/// access::unstack(&mut world, layers, "bias", biases.view())?;
/// evolve::overwrite(&mut world, layers, &[2, 0, 2])?;
/// let biases = access::stack::<f32>(&mut world, layers, "bias", None)?;
/// assert_eq!(biases, ndarray::array![[3.0], [1.0], [3.0]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `load_state_dict(copy.deepcopy(parent.state_dict()))`, of models and optimizers.
pub fn overwrite(
    world: &mut World,
    population: Entity,
    parents: &[usize],
) -> Result<(), EvolveError> {
    let families = Family::list(world, population, parents.iter().map(|&parent| [parent]))?;
    for family in families {
        let sources = family.parents.iter().map(|&[parent]| parent).collect();
        family.copy(world, population, vec![sources])?;
    }
    Ok(())
}
