//! State on its way to disk and back: whole files or none.
//!
//! * [`checkpoint`]: whole populations, mapped and read in place.
//! * [`dict`]: a model's or a population's parameters and buffers by torch's names.
//! * [`load`]: those back into a model, or into every model of a population.
//! * [`mod@file`]: [`NewFile`](file::NewFile), which appears under its name only when it is complete.
//! * [`safetensors`]: those as a file that PyTorch reads, and back.
//! * [`training`]: what optimizers, schedulers and random numbers have come to, as tensors for another file.

pub mod checkpoint;
pub mod dict;
pub mod file;
mod hooks;
pub mod load;
pub mod parametrizations;
pub mod safetensors;
pub mod training;

pub use neurarch_components::state::{IncompatibleKeys, StateDict, Tensor};
