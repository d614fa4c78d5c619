//! State on its way to disk and back: whole files or none.
//!
//! * [`dict`]: a model's or a population's parameters and buffers by torch's names.
//! * [`mod@file`]: [`NewFile`](file::NewFile), which appears under its name only when it is complete.
//! * [`safetensors`]: those as a file that PyTorch reads, and back.

pub mod dict;
pub mod file;
pub mod safetensors;
