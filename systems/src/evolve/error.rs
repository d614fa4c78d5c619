//! [`EvolveError`].

use bevy_ecs::entity::Entity;

use crate::errors::SignError;
use crate::structure::spawn::SpawnError;
use neurarch_components::module::blueprint::UNINITIALIZED_USE;

/// Why models cannot evolve. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvolveError {
    /// There is no such population, or one of its models is none.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Clones cannot be spawned.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The list is not as long as the population.
    #[error("expected parents for each of {expected} models, got {given}")]
    Length {
        /// How many models there are.
        expected: usize,
        /// How many entries the list has.
        given: usize,
    },
    /// An entity is no model of the population.
    #[error("{entity} is no model of population {population}")]
    NotAModel {
        /// What was given.
        entity: Entity,
        /// The population.
        population: Entity,
    },
    /// An index is none of a model; torch's words.
    #[error("index {index} is out of bounds for a population of {models} models")]
    NoSuchModel {
        /// What was given.
        index: usize,
        /// How many models there are.
        models: usize,
    },
    /// A model and its parent are of different structure.
    #[error("model {model} cannot have the numbers of model {parent}: their blueprints differ")]
    Blueprint {
        /// The model's index.
        model: usize,
        /// The parent's index.
        parent: usize,
    },
    /// A model's optimizer would find the state of another one.
    #[error(
        "model {model} cannot have the optimizer state of model {parent}: their optimizers differ; \
         overwrite hyperparameters first"
    )]
    Optimizer {
        /// The model's index.
        model: usize,
        /// The parent's index.
        parent: usize,
    },
    /// A standard deviation is negative, infinite or NaN; torch's words.
    #[error("model {model}: normal expects std >= 0.0, but found std {std}")]
    Std {
        /// The model's index.
        model: usize,
        /// What was given.
        std: f64,
    },
    /// The shape of a parameter that is to change is not known yet; torch's words.
    #[error(
        "'{name}': Attempted to use an uninitialized parameter in perturb. {UNINITIALIZED_USE}"
    )]
    Uninitialized {
        /// The dotted name.
        name: String,
    },
    /// A mutation rate is no probability.
    #[error("model {model}: expected a rate in [0, 1], got {rate}")]
    Rate {
        /// The model's index.
        model: usize,
        /// What was given.
        rate: f64,
    },
}
