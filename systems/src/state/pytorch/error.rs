//! [`PytorchError`]: why a file of torch's cannot be read.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::optim::state_dict::OptimizerStateError;

/// A file of `torch.save` could not be read. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", .path.display())]
pub struct PytorchError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Box<Fault>,
}

impl PytorchError {
    pub(super) fn new(path: impl Into<PathBuf>, fault: Fault) -> Self {
        PytorchError { path: path.into(), fault: Box::new(fault) }
    }
}

/// What is wrong with a file of `torch.save`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The system refused, or the file disagrees with itself where its numbers lie.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is of another kind, or of one that is not read.
    #[error("expected a file of torch.save, zip or legacy, got {found}")]
    Format {
        /// What it is instead.
        found: String,
    },
    /// The pickle is damaged, or has what `weights_only` does not read.
    #[error("pickle, byte {at}: {message}")]
    Pickle {
        /// The place after what was read last.
        at: u64,
        /// What is wrong there.
        message: String,
    },
    /// The pickle names a class or function that `weights_only` does not allow; torch's words.
    #[error(
        "Unsupported global: GLOBAL {name} was not an allowed global by default (a whole pickled model is read by \
         `read_model`)"
    )]
    Global {
        /// Its dotted name.
        name: String,
    },
    /// Two values have one name, so that only one of them would be found.
    #[error("expected names that differ, got '{name}' twice")]
    Collision {
        /// The name.
        name: String,
    },
    /// The dictionary at the top has no such key.
    #[error("no key '{key}', expected one of {}", spelled(.keys))]
    Key {
        /// The key that was asked for.
        key: String,
        /// Those that are there.
        keys: Vec<String>,
    },
    /// The file is no state dict, and none or several of the usual keys lead to one.
    #[error(
        "expected a state dict, or one alone under 'state_dict', 'model_state_dict' or 'model'; name one of the keys {}",
        spelled(.keys)
    )]
    NoStateDict {
        /// The keys that are there.
        keys: Vec<String>,
    },
    /// A value is of another type.
    #[error("'{name}': expected {expected}, got {found}")]
    Type {
        /// The keys that lead to it; empty for the whole file.
        name: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// neurarch does not know the element type.
    #[error("'{name}' has element type {found}, expected F32, F64, F16, BF16, I64 or Bool")]
    Dtype {
        /// The tensor's name.
        name: String,
        /// Its element type.
        found: String,
    },
    /// Tensors would take more memory than the file explains.
    #[error("expected at most {most} bytes of tensors in such a file, got {bytes}")]
    TooLarge {
        /// What they would take.
        bytes: u64,
        /// Most that they may take.
        most: u64,
    },
    /// The crate that reads the numbers refused the file.
    #[error(transparent)]
    Reader(Box<dyn Error + Send + Sync>),
    /// An optimizer has no state of that name.
    #[error("parameter {index}: the optimizer keeps no '{name}', expected one of {}", spelled(.names))]
    State {
        /// torch's index of the parameter.
        index: usize,
        /// The state's name in the file.
        name: String,
        /// Those that the optimizer keeps.
        names: Vec<String>,
    },
    /// The groups of an optimizer are others than those of the model.
    #[error(transparent)]
    Optimizer(OptimizerStateError),
}

fn spelled(keys: &[String]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("'{key}'")).collect();
    format!("[{}]", keys.join(", "))
}
