//! [`SignError`].

use bevy_ecs::prelude::*;
use neurarch_components::containers::MAX_DEPTH;
use neurarch_components::module::blueprint::TieError;
use neurarch_kernels::ir::program::Role;

use crate::errors::BindError;
use crate::errors::room::RoomError;

/// Why a model's tree is not a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The entity is no population.
    #[error("{0} is not a population")]
    NotAPopulation(Entity),
    /// The root has no layer component.
    #[error("model {index}: its root has no module component")]
    NoModule {
        /// The model's index.
        index: u32,
    },
    /// A child's name is empty, contains a dot, or is taken; torch's words.
    #[error("model {index}, {path}: {message}")]
    Name {
        /// The model's index.
        index: u32,
        /// Dotted path of the parent.
        path: String,
        /// What is wrong with the name.
        message: String,
    },
    /// A tie names what is no part of the model, or has another type.
    #[error("model {index}, {0}", .error)]
    Tie {
        /// The model's index.
        index: u32,
        /// What is tied, and why it cannot be.
        error: TieError,
    },
    /// A module is below itself.
    #[error("model {index}: its root is a child of {parent}, which is below it")]
    Cycle {
        /// The model's index.
        index: u32,
        /// The entity that has the root as its child.
        parent: Entity,
    },
    /// Modules are nested deeper than a model may be.
    #[error("model {index}, {path}: expected modules nested at most {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The model's index.
        index: u32,
        /// Dotted path of the module that is too deep.
        path: String,
    },
    /// A component that neurarch keeps was removed from a module.
    #[error("model {index}, {path}: its {component} was removed")]
    Removed {
        /// The model's index.
        index: u32,
        /// Dotted path of the module.
        path: String,
        /// What is missing.
        component: String,
    },
    /// The column of what a population's models share was removed from its entity.
    #[error("{population}, {name}: its {role} was removed")]
    SharedRemoved {
        /// The population's entity.
        population: Entity,
        /// The dotted name of what is shared.
        name: String,
        /// What the column is for.
        role: Role,
    },
    /// Rows of a model cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A resource that neurarch keeps was removed from the world, or replaced by another.
    #[error(
        "the resource {resource} that {population} was spawned with is not in the world any more"
    )]
    Missing {
        /// The population's entity.
        population: Entity,
        /// The resource's type.
        resource: &'static str,
    },
    /// All blueprints in use have more than 2²⁴ modules together.
    #[error("expected fewer than 16777216 modules in all blueprints together")]
    TooManyModules,
    /// A parameter or buffer of a model that was changed is too large for memory.
    #[error(transparent)]
    Room(#[from] RoomError),
}
