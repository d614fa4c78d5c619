//! [`CheckpointError`]: why populations cannot be saved or restored.

use std::io;
use std::path::{Path, PathBuf};

use neurarch_components::saved::SavedError;

use super::format::HeaderError;
use crate::errors::{SignError, StepError};
use crate::evolve::EvolveError;

/// Why populations cannot be saved to a checkpoint, or restored from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no checkpoint, or one that cannot be read here.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The index was changed since it was written.
    #[error("the index was changed: its checksum is wrong")]
    IndexSum,
    /// The index says what cannot be.
    #[error("the index is wrong: {0}")]
    Index(String),
    /// A part of the sections was changed since it was written.
    #[error("bytes {start} to {end} were changed: their checksum is wrong")]
    Sum {
        /// Where the part begins in the file.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// A module or an optimizer is of a type whose settings nobody knows how to write down.
    #[error(
        "{}the type {ty} is not registered: `world.register_module_type::<{name}>()` registers a module, \
         `world.register_saved::<{name}>()` any other component",
        prefix(.path),
        name = short(.ty)
    )]
    Unregistered {
        /// Dotted path of the module; empty for a root.
        path: String,
        /// The type's name in Rust.
        ty: &'static str,
    },
    /// A component cannot be written down or read.
    #[error(transparent)]
    Component(#[from] SavedError),
    /// The file has a structure that is not the one of its modules.
    #[error("{path}: {message}")]
    Structure {
        /// Dotted path of the module.
        path: String,
        /// What was expected, and what the file has.
        message: String,
    },
    /// The models cannot run where they lie.
    #[error("the models {0}: restore them, and run them then")]
    Live(&'static str),
    /// There is no such population.
    #[error("expected a population below {populations}, got {index}")]
    NoSuchPopulation {
        /// What was asked for.
        index: usize,
        /// How many there are.
        populations: usize,
    },
    /// A population has not as many models as the one that is to be restored over it.
    #[error("expected a population of {expected} models, got {given}")]
    Models {
        /// How many the checkpoint has.
        expected: usize,
        /// How many the population has.
        given: usize,
    },
    /// Checkpoints are not parts of one population.
    #[error("{}: is no part of the population that the first file has a part of", .path.display())]
    Shard {
        /// The file of another population, or with a model that another file has as well.
        path: PathBuf,
    },
    /// There is no such model.
    #[error("expected a model below {models}, got {index}")]
    NoSuchModel {
        /// What was asked for.
        index: usize,
        /// How many there are.
        models: usize,
    },
    /// A model was asked for twice.
    #[error("model {index} is listed twice")]
    Twice {
        /// Its number.
        index: usize,
    },
    /// What the models were called with does not fit, or they cannot be planned.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A model is gone that was just spawned: an observer of the host's despawned it.
    #[error("a model was despawned while it was restored")]
    Gone,
    /// Models cannot be cloned.
    #[error(transparent)]
    Clone(#[from] EvolveError),
    /// A model's tree is not a model.
    #[error(transparent)]
    Sign(#[from] SignError),
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

fn short(ty: &str) -> &str {
    ty.rsplit("::").next().unwrap_or(ty)
}

impl CheckpointError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        CheckpointError::Io { path: path.to_owned(), source }
    }

    pub(super) fn index(what: impl Into<String>) -> Self {
        CheckpointError::Index(what.into())
    }
}
