//! Files of `torch.save`: `.pt` and `.pth`, zip and legacy, with the feature `pytorch`.
//!
//! Nothing of such a file runs. Its pickle is first read here (`unpickle`), as torch's `weights_only` reads it: a class or
//! function that torch does not allow is an error that names it, names that collide are errors, and what refers to what is
//! there already may not fill more memory than the file explains. Then `pytorch_reader` reads the numbers, of tensors
//! whose size is known.
//!
//! A zip archive has checksums, which are compared where a tensor is all of a storage; changed numbers in a legacy file
//! cannot be noticed.

mod container;
mod error;
mod globals;
mod objects;
mod optimizer;
mod paths;
mod tensors;
mod unpickle;
mod value;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use neurarch_components::state::{LocalMetadata, StateDict};
use pytorch_reader::PytorchReader;

pub use error::{Fault, PytorchError};

use container::read_pickle;
use paths::Paths;
use tensors::Wanted;
use unpickle::Objects;
use value::{Dict, Id, Pickle, Value};

/// A file of `torch.save` whose pickle was read and judged. Its numbers are read when a state dict is asked for.
///
/// # Example
///
/// ```no_run
/// use neurarch_systems::state::pytorch::PytorchFile;
///
/// let file = PytorchFile::open("checkpoint.pt")?; // torch.save({"model": …, "optimizer": …}, path)
/// assert_eq!(file.keys(), ["model", "optimizer"]);
/// let state = file.state_dict("model")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.load(path, weights_only=True)`.
#[derive(Debug)]
pub struct PytorchFile {
    path: PathBuf,
    pickle: Pickle,
    /// Under which keys the file has each tensor first.
    paths: HashMap<Id, String>,
    reader: PytorchReader,
    file_bytes: u64,
}

/// The usual keys of a state dict in a checkpoint.
const USUAL: [&str; 3] = ["state_dict", "model_state_dict", "model"];

impl PytorchFile {
    /// Reads what is in a file, but for the numbers.
    ///
    /// # Errors
    ///
    /// If it is no file of `torch.save` or damaged, names a class or function that `weights_only` does not allow, has
    /// names that collide, or is no dictionary.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PytorchError> {
        let path = path.into();
        match Self::read(&path) {
            Ok((pickle, paths, reader, file_bytes)) => {
                Ok(PytorchFile { path, pickle, paths, reader, file_bytes })
            }
            Err(fault) => Err(PytorchError::new(path, fault)),
        }
    }

    fn read(path: &Path) -> Result<(Pickle, HashMap<Id, String>, PytorchReader, u64), Fault> {
        let (pickle, file_bytes) = read_pickle(path, Objects::WeightsOnly)?;
        if pickle.values.dict(pickle.root).is_none() {
            return Err(pickle.wrong_type("", pickle.root, "a dict"));
        }
        let paths = Paths::of(&pickle)?;
        let reader = PytorchReader::new(path).map_err(|error| Fault::Reader(error.into()))?;
        Ok((pickle, paths, reader, file_bytes))
    }

    fn top(&self) -> &Dict {
        self.pickle.values.dict(self.pickle.root).expect("`open` refuses other files")
    }

    fn failed(&self, fault: Fault) -> PytorchError {
        PytorchError::new(&self.path, fault)
    }

    /// Lists the keys of the dictionary that the file is, in its order.
    pub fn keys(&self) -> Vec<String> {
        self.top().keys()
    }

    /// Reads the state dict under a key; with `None` the one that the file is, or has alone under `state_dict`,
    /// `model_state_dict` or `model`. The file is one if all its values are tensors.
    ///
    /// Tensors are in the order of the file, with the versions of torch's `_metadata`.
    ///
    /// # Errors
    ///
    /// If there is no such key, a value is no tensor or has an element type that neurarch does not know, the tensors are
    /// larger than the file explains, or the numbers cannot be read. Errors of keys list those that are there.
    pub fn state_dict<'k>(
        &self,
        key: impl Into<Option<&'k str>>,
    ) -> Result<StateDict, PytorchError> {
        self.read_state_dict(key.into()).map_err(|fault| self.failed(fault))
    }

    fn read_state_dict(&self, key: Option<&str>) -> Result<StateDict, Fault> {
        let values = &self.pickle.values;
        let found = match key {
            Some(key) => self.under(key)?,
            None => self.only()?,
        };
        let Value::Dict(dict) = &values[found] else {
            return Err(self.pickle.wrong_type(key.unwrap_or(""), found, "a dict"));
        };
        let wanted = dict.iter().map(|(name, id)| self.wanted(name.to_owned(), id));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let tensors = tensors::read(&self.reader, wanted, self.file_bytes)?;
        let metadata = dict.metadata.map(|id| metadata(&self.pickle, id)).transpose()?;
        Ok(StateDict { tensors, metadata: metadata.unwrap_or_default() })
    }

    fn under(&self, key: &str) -> Result<Id, Fault> {
        let missing = || Fault::Key { key: key.to_owned(), keys: self.keys() };
        self.top().get(key).ok_or_else(missing)
    }

    /// Finds the state dict of a file that has one.
    fn only(&self) -> Result<Id, Fault> {
        let values = &self.pickle.values;
        if self.top().iter().all(|(_, id)| matches!(values[id], Value::Tensor(_))) {
            return Ok(self.pickle.root);
        }
        let usual = USUAL.iter().filter_map(|key| self.top().get(key));
        let mut usual = usual.filter(|&id| values.dict(id).is_some());
        match (usual.next(), usual.next()) {
            (Some(found), None) => Ok(found),
            _ => Err(Fault::NoStateDict { keys: self.keys() }),
        }
    }

    /// Describes a tensor to be read.
    fn wanted(&self, name: String, id: Id) -> Result<Wanted<'_>, Fault> {
        match (&self.pickle.values[id], self.paths.get(&id)) {
            (Value::Tensor(view), Some(path)) => Ok(Wanted { name, path: path.clone(), view }),
            _ => Err(self.pickle.wrong_type(&name, id, "a tensor")),
        }
    }
}

/// Reads the state dict of a whole model that was pickled, `torch.save(model, path)`, from a zip archive.
///
/// What the model's classes do is not in the file. So its parameters and persistent buffers are read from where
/// `torch.nn.Module` keeps them, by their names and in torch's order, without versions, extra states and the work of hooks.
///
/// # Errors
///
/// If it is no such file or a legacy one, an object in it is neither a module nor known to `weights_only`, two values have
/// one name, or as [`PytorchFile::state_dict`].
///
/// Source: `torch.load(path, weights_only=False).state_dict()`, without running what is in the file.
pub fn read_model(path: impl Into<PathBuf>) -> Result<StateDict, PytorchError> {
    let path = path.into();
    read_whole(&path).map_err(|fault| PytorchError::new(path, fault))
}

fn read_whole(path: &Path) -> Result<StateDict, Fault> {
    let (pickle, file_bytes) = read_pickle(path, Objects::Modules)?;
    if !matches!(pickle.values[pickle.root], Value::Module(_)) {
        return Err(pickle.wrong_type("", pickle.root, "a module"));
    }
    let mut own = Vec::new();
    let mut paths = Paths::new(&pickle);
    paths.module(pickle.root, "", 0, &mut own)?;
    let wanted = own.into_iter().map(|(name, id)| match &pickle.values[id] {
        Value::Tensor(view) => Ok(Wanted { path: name.clone(), name, view }),
        _ => Err(pickle.wrong_type(&name, id, "a tensor")),
    });
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let reader = PytorchReader::new(path).map_err(|error| Fault::Reader(error.into()))?;
    let tensors = tensors::read(&reader, wanted, file_bytes)?;
    Ok(StateDict { tensors, metadata: Vec::new() })
}

/// Reads torch's `_metadata`: what is said of each module, so far as it is a number, a text or a truth.
fn metadata(pickle: &Pickle, id: Id) -> Result<Vec<(String, LocalMetadata)>, Fault> {
    let of = |id, name: &str| {
        let found = pickle.values.dict(id);
        found.ok_or_else(|| pickle.wrong_type(name, id, "a dict"))
    };
    let read = of(id, "_metadata")?.iter().map(|(path, id)| {
        let mut local = LocalMetadata::default();
        for (name, id) in of(id, path)?.iter() {
            let text = match (&pickle.values[id], name) {
                (&Value::Int(version), "version") => {
                    local.version = u32::try_from(version).ok();
                    continue;
                }
                (Value::Int(number), _) => number.to_string(),
                (Value::Float(number), _) => number.to_string(),
                (Value::Bool(truth), _) => truth.to_string(),
                (Value::Text(text), _) => text.to_string(),
                _ => continue,
            };
            local.entries.insert(name.to_owned(), text);
        }
        Ok((path.to_owned(), local))
    });
    read.collect()
}
