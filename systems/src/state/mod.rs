//! State on its way to disk and back: whole files or none.
//!
//! * [`checkpoint`]: whole populations, mapped and read in place.
//! * [`dict`]: a model's or a population's parameters and buffers by torch's names.
//! * [`load`]: those back into a model, or into every model of a population.
//! * [`mod@file`]: [`NewFile`](file::NewFile), which appears under its name only when it is complete.
//! * [`safetensors`]: those as a file that PyTorch reads, and back.
//! * `pytorch`, with the feature of that name: files of `torch.save`.
//! * [`load_file`]: a file of either kind straight into models, its names changed by a [`key_map`].
//! * [`weights`]: a file in memory, of either of the first two kinds, put into models any number of times.
//! * [`training`]: what optimizers, schedulers and random numbers have come to, as tensors for another file.

pub mod checkpoint;
pub mod dict;
pub mod file;
mod file_kind;
mod hooks;
pub mod key_map;
pub mod load;
pub mod load_file;
pub mod parametrizations;
#[cfg(feature = "pytorch")]
pub mod pytorch;
pub mod safetensors;
pub mod training;
pub mod weights;

pub use key_map::KeyMap;
pub use load_file::FileOptions;
pub use neurarch_components::state::{IncompatibleKeys, StateDict, Tensor};
