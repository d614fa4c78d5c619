//! A CUDA driver library whose devices are the PTX interpreter: what calls the driver is tested without one.
//!
//! It has the part of the driver's functions that cudarc calls. A program finds it when it is named `libcuda.so` in a
//! folder of `LD_LIBRARY_PATH`; [`install`] puts it into one. It is never found by chance: cargo builds it under another name.
//!
//! * Work is done when it is submitted, and streams are always idle. A capture notes work, and a graph does it again.
//! * PTX is taken as it is. Machine code (CUBIN) is refused with `CUDA_ERROR_NO_BINARY_FOR_GPU`, as by a device of
//!   another architecture.
//! * A launch that finds a fault returns `CUDA_ERROR_ILLEGAL_ADDRESS` (bounds, unwritten), `CUDA_ERROR_MISALIGNED_ADDRESS`,
//!   `CUDA_ERROR_LAUNCH_TIMEOUT` (the limit of instructions) or `CUDA_ERROR_LAUNCH_FAILED` (all others). The report is appended
//!   to the file in `NEURARCH_DRIVER_REPORT`, or written to stderr. Unlike on a device, the context goes on.
//! * `NEURARCH_DRIVER_DEVICES` is the number of devices, 1 if it is not set. Each has the limits of `sm_90`, and 4 GiB.

mod context;
mod device;
mod launch;
mod memory;
mod pointers;
mod state;
mod status;
mod stream;

use std::io;
use std::path::Path;

/// Puts the driver into a folder, as `libcuda.so`.
///
/// # Errors
///
/// An [`io::Error`] if it was not built beside the running test, or cannot be copied.
pub fn install(folder: &Path) -> io::Result<()> {
    let test = std::env::current_exe()?;
    let built = test.parent().map(|folder| folder.join("libneurarch_ptx_driver.so"));
    let built = built.ok_or(io::ErrorKind::NotFound)?;
    std::fs::create_dir_all(folder)?;
    std::fs::copy(built, folder.join("libcuda.so"))?;
    Ok(())
}
