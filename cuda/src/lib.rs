//! Programs on NVIDIA GPUs: compiled, cached, and launched on tables of rows.
//!
//! With the feature `driver`, which needs no CUDA to build: driver and compiler are opened at run time, and where they are
//! missing each call is an error.
//!
//! * `device`: devices, in the words of `torch.cuda`.
//! * `nvrtc`, `cache`: NVIDIA's compiler, and what it made, kept as files.
//! * `table`: rows on a device, in the order of the models.
//! * `kernel`, `run`: a program's kernels, launched, captured, replayed.
//! * `split`: rows over several devices.

#![cfg(feature = "driver")]

pub mod cache;
pub mod device;
pub mod error;
pub mod kernel;
pub mod nvrtc;
pub mod run;
pub mod split;
pub mod table;

pub use device::{
    Device, DeviceProperties, Event, device_count, get_device_name, get_device_properties,
    is_available,
};
pub use error::CudaError;
