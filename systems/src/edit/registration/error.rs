//! [`RegistrationError`]: why nothing was registered, in torch's words.

use neurarch_components::hook::HookKind;

use crate::errors::{AccessError, InitError, LookupError, ParametrizeError, SignError};
use crate::structure::spawn::{REQUIRES_GRAD, SpawnError};

/// Why nothing was registered, assigned or deleted. Everything is as it was then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// What is registered belongs to one module, or to the same one of each model of a population.
    #[error("expected a module, or a population and a path, got all modules")]
    AllModules,
    /// The name is empty; torch's words.
    #[error("{what} name can't be empty string \"\"")]
    EmptyName {
        /// What was registered: `parameter`, `buffer` or `module`.
        what: &'static str,
    },
    /// The name has a dot; torch's words.
    #[error("{what} name can't contain \".\"{got}", got = if *.what == "module" { format!(", got: {name}") } else { String::new() })]
    Dot {
        /// What was registered.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The module has something else of that name; torch's words.
    #[error("attribute '{name}' already exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// The value is of the wrong kind to be registered; torch's words.
    #[error("cannot assign '{given}' object to {what} '{name}' ({expected} required)")]
    Kind {
        /// What was registered.
        what: &'static str,
        /// The name.
        name: String,
        /// The type of the value.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The value is of the wrong kind to be assigned over what is there; torch's words.
    #[error("cannot assign '{given}' as {what} '{name}' ({expected} expected)")]
    AssignKind {
        /// What is there: `parameter`, `child module` or `buffer`.
        what: &'static str,
        /// The name.
        name: String,
        /// The type of the value.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A child is no module; torch's words.
    #[error("{given} is not a Module subclass")]
    NotAModuleType {
        /// The type of the value.
        given: String,
    },
    /// The entity has no layer component; torch's words.
    #[error("cannot assign {what} before Module.__init__() call")]
    NotInitialized {
        /// What was registered.
        what: &'static str,
    },
    /// There is nothing of that name; torch's words.
    #[error("'{class}' object has no attribute '{name}'")]
    NoAttribute {
        /// The module's type.
        class: String,
        /// The name.
        name: String,
    },
    /// What is computed cannot be deleted; torch's words.
    #[error("property of '{class}' object has no deleter")]
    NoDeleter {
        /// The module's type.
        class: String,
    },
    /// A parametrized tensor cannot be assigned.
    #[error(transparent)]
    Parametrize(#[from] ParametrizeError),
    /// A submodule is to be set at the empty path; torch's words.
    #[error("Cannot set the submodule without a target name!")]
    NoTarget,
    /// A parameter of integers needs no gradient; torch's words.
    #[error("parameter '{name}': {REQUIRES_GRAD}")]
    RequiresGrad {
        /// The name.
        name: String,
    },
    /// Something that stays is the same under another name.
    #[error("'{name}' is in use as '{by}'")]
    InUse {
        /// What was to go.
        name: String,
        /// The other name.
        by: String,
    },
    /// A registration hook failed.
    #[error("{kind} {number}: {message}")]
    Hook {
        /// Which kind.
        kind: HookKind,
        /// Its place among those of the kind.
        number: usize,
        /// What it said.
        message: String,
    },
    /// A part of a path is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The numbers cannot be drawn.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The child cannot be spawned.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The model's tree would be no model.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl From<AccessError> for RegistrationError {
    fn from(error: AccessError) -> Self {
        RegistrationError::Lookup(error.into())
    }
}

impl RegistrationError {
    /// Names the exception that torch raises: `KeyError`, `TypeError`, `AttributeError`, `ValueError`; or
    /// `RuntimeError` where it has none.
    pub fn exception(&self) -> &'static str {
        match self {
            RegistrationError::EmptyName { .. }
            | RegistrationError::Dot { .. }
            | RegistrationError::Exists { .. } => "KeyError",
            RegistrationError::Kind { .. }
            | RegistrationError::AssignKind { .. }
            | RegistrationError::NotAModuleType { .. } => "TypeError",
            RegistrationError::NotInitialized { .. }
            | RegistrationError::NoAttribute { .. }
            | RegistrationError::NoDeleter { .. }
            | RegistrationError::Lookup(_) => "AttributeError",
            RegistrationError::NoTarget
            | RegistrationError::Parametrize(ParametrizeError::Invalid(_)) => "ValueError",
            RegistrationError::AllModules
            | RegistrationError::RequiresGrad { .. }
            | RegistrationError::InUse { .. }
            | RegistrationError::Hook { .. }
            | RegistrationError::Parametrize(_)
            | RegistrationError::Init(_)
            | RegistrationError::Spawn(_)
            | RegistrationError::Sign(_) => "RuntimeError",
        }
    }
}
