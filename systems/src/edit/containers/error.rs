//! [`EditError`]: why a live container was not changed, in torch's words where torch has some.

use bevy_ecs::prelude::*;
use neurarch_components::containers::ContainerError;
use neurarch_kernels::ir::dtype::Dtype;

use crate::edit::registration::RegistrationError;
use crate::errors::AccessError;
use crate::errors::LookupError;
use crate::errors::SignError;
use crate::structure::spawn::SpawnError;

/// Why a live container was not changed or read. Everything is as it was then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// What a description of the container refuses, too: an index, a name, a slice.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A module or parameter cannot be registered.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// Modules of this type have no such operation. torch's `AttributeError`.
    #[error("'{class}' object has no attribute '{operation}'")]
    NoOperation {
        /// The type of the module.
        class: String,
        /// The operation.
        operation: &'static str,
    },
    /// The entries of a list have numbers. torch's `TypeError`.
    #[error("'{given}' object cannot be interpreted as an integer")]
    NotAnIndex {
        /// The type of the key, as Python calls it.
        given: &'static str,
    },
    /// One container can be read at a time.
    #[error("expected a container of one model, got one of each model of {0}")]
    ManyModels(Entity),
    /// Hooks can be for every module, edits cannot.
    #[error("expected a module or a population, got all modules")]
    AllModules,
    /// The entity of a [`LiveModule`](neurarch_components::containers::LiveModule) has no layer component, or
    /// is part of a model.
    #[error("expected {0} to be a module that is part of no model")]
    NotApart(Entity),
    /// The entity of a [`LiveModule`](neurarch_components::containers::LiveModule) can go to one place only.
    #[error("expected one place for {0}, got one in each of several models, or several")]
    OnePlace(Entity),
    /// The numbers of a [`LiveModule`](neurarch_components::containers::LiveModule) are of another type than
    /// those of the model.
    #[error("'{name}': expected elements of {expected}, got {given}")]
    Dtype {
        /// The parameter or buffer.
        name: String,
        /// The element type that it would have.
        expected: Dtype,
        /// The element type that it has.
        given: Dtype,
    },
}

impl From<AccessError> for EditError {
    fn from(error: AccessError) -> Self {
        EditError::Registration(error.into())
    }
}

impl From<LookupError> for EditError {
    fn from(error: LookupError) -> Self {
        EditError::Registration(error.into())
    }
}

impl From<SignError> for EditError {
    fn from(error: SignError) -> Self {
        EditError::Registration(error.into())
    }
}

impl From<SpawnError> for EditError {
    fn from(error: SpawnError) -> Self {
        EditError::Registration(error.into())
    }
}
