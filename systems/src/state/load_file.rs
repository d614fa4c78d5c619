//! A file of tensors straight into models: safetensors, or what `torch.save` wrote.

use std::fs::File;
use std::path::{Path, PathBuf};

use bevy_ecs::prelude::*;
use neurarch_components::state::{IncompatibleKeys, StateDict};

use super::file_kind::FileKind;
use super::key_map::{KeyMap, KeyMapError};
use super::load::{LoadOptions, LoadStateDictError, Misfit, load_where_fit};
#[cfg(feature = "pytorch")]
use super::pytorch::{PytorchError, PytorchFile};
use super::safetensors::{self, SafetensorsError};

/// How a file is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// The key of the state dict in a checkpoint of `torch.save`; `None` for the one that the file is, or has alone under
    /// `state_dict`, `model_state_dict` or `model`.
    pub key: Option<String>,
    /// By which rules names in the file become those of the model.
    pub keys: KeyMap,
    /// How the state dict is loaded.
    pub load: LoadOptions,
}

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadFileError {
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is of safetensors and damaged, or of no known kind.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// The file is of `torch.save`, and neurarch was built without the feature `pytorch`.
    #[error("{}: a file of torch.save needs neurarch's feature `pytorch`", .path.display())]
    NoPytorch {
        /// The file.
        path: PathBuf,
    },
    /// The file is of `torch.save` and cannot be read.
    #[cfg(feature = "pytorch")]
    #[error(transparent)]
    Pytorch(#[from] PytorchError),
    /// A key was given for a file that has none.
    #[error("{}: expected no key for a safetensors file, got '{key}'", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key that was given.
        key: String,
    },
    /// Two names would become one.
    #[error(transparent)]
    KeyMap(#[from] KeyMapError),
    /// The state dict does not fit as a whole.
    #[error(transparent)]
    Load(#[from] LoadStateDictError),
}

/// Reads the state dict of a file, whose first bytes say of which kind it is.
///
/// # Errors
///
/// If the file cannot be read, is of `torch.save` and the feature `pytorch` is not there, or a key is given for a file of
/// safetensors, which have none.
pub fn read_state_dict(path: &Path, key: Option<&str>) -> Result<StateDict, LoadFileError> {
    let io = |source| LoadFileError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    match (FileKind::read(&mut file).map_err(io)?, key) {
        #[cfg(feature = "pytorch")]
        (FileKind::TorchZip | FileKind::TorchLegacy, key) => {
            Ok(PytorchFile::open(path)?.state_dict(key)?)
        }
        #[cfg(not(feature = "pytorch"))]
        (FileKind::TorchZip | FileKind::TorchLegacy, _) => {
            Err(LoadFileError::NoPytorch { path: path.to_owned() })
        }
        (FileKind::Other, None) => Ok(safetensors::read(path)?),
        (FileKind::Other, Some(key)) => {
            Err(LoadFileError::Key { path: path.to_owned(), key: key.to_owned() })
        }
    }
}

/// Loads the state dict of a file into a module and all below it, or into every model of a population; returns the keys
/// that do not match.
///
/// # Errors
///
/// As [`read_state_dict`], [`KeyMap::apply`] and [`load_state_dict`](super::load::load_state_dict). Other than there,
/// nothing is loaded then; only where a module refuses its extra state, all else is.
///
/// Source: `model.load_state_dict(torch.load(path))`.
pub fn load_file(
    world: &mut World,
    entity: Entity,
    path: impl AsRef<Path>,
    options: &FileOptions,
) -> Result<IncompatibleKeys, LoadFileError> {
    let state = read_state_dict(path.as_ref(), options.key.as_deref())?;
    let state = options.keys.apply(&state)?;
    Ok(load_where_fit(world, entity, &state, options.load, Misfit::LoadsNothing)?)
}
