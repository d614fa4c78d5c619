//! [`CudaError`]: what fails between a program and a device.

use std::path::PathBuf;

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// Why something could not be done on a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no `libcuda`.
    #[error("found no NVIDIA driver on your system: libcuda cannot be opened")]
    NoDriver,
    /// A library is too old: it lacks a function.
    #[error("{library} has no function `{symbol}`: it is too old or broken")]
    MissingSymbol {
        /// The library.
        library: &'static str,
        /// The function.
        symbol: String,
    },
    /// The driver is too old.
    #[error(
        "the NVIDIA driver on your system is too old: it supports CUDA {found}, {needed} is needed (1000 · major + 10 · minor)"
    )]
    OldDriver {
        /// The version that the driver gives.
        found: i32,
        /// The least version.
        needed: i32,
    },
    /// There is no such device.
    #[error("invalid device ordinal: device {device} was asked for, there are {count}")]
    NoDevice {
        /// The device asked for.
        device: usize,
        /// How many devices there are.
        count: usize,
    },
    /// A device is older than what kernels are made for.
    #[error("device {device} has compute capability {major}.{minor}, which has no known limits")]
    OldDevice {
        /// The device.
        device: usize,
        /// Major number of its compute capability.
        major: i32,
        /// Minor number.
        minor: i32,
    },
    /// A device has too little memory left.
    #[error(
        "CUDA out of memory: tried to allocate {bytes} bytes; {free} of {total} bytes are free"
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes that are free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// The driver returned an error.
    #[error("CUDA error in {what}: {source:?}")]
    Driver {
        /// What was attempted.
        what: String,
        /// The driver's code.
        source: DriverError,
    },
    /// There is no compiler, and no cache has the kernel.
    #[error("kernel `{kernel}` is not cached, and there is no NVRTC: {reason}")]
    NoNvrtc {
        /// The kernel.
        kernel: String,
        /// What was tried.
        reason: String,
    },
    /// The compiler refused a source.
    #[error("kernel `{kernel}` does not compile: {log}")]
    Compile {
        /// The kernel.
        kernel: String,
        /// What the compiler says.
        log: String,
    },
    /// No thread could be started to compile on.
    #[error("no thread to compile kernel `{kernel}` on: {source}")]
    Thread {
        /// The kernel.
        kernel: String,
        /// Why.
        source: std::io::Error,
    },
    /// Rows beyond the end.
    #[error("rows {first}..{end} of a column that has {rows}")]
    Rows {
        /// First row asked for.
        first: usize,
        /// Row behind the last one.
        end: usize,
        /// Rows that there are.
        rows: usize,
    },
    /// Bytes on the host are not whole rows.
    #[error("{found} bytes of the host for {expected} bytes of rows")]
    Bytes {
        /// Bytes of the rows.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// What a program was bound to does not fit it.
    #[error("{what}: the program needs {expected}, got {found}")]
    Binding {
        /// What does not fit.
        what: String,
        /// What the program needs.
        expected: usize,
        /// What it got.
        found: usize,
    },
    /// A file of the cache cannot be written.
    #[error("cache file {}: {source}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CudaError {
    /// Returns the driver's error with what was attempted.
    pub(crate) fn driver(what: impl Into<String>) -> impl FnOnce(DriverError) -> CudaError {
        move |source| CudaError::Driver { what: what.into(), source }
    }

    /// Says whether the driver ran out of memory.
    pub(crate) fn is_out_of_memory(error: DriverError) -> bool {
        error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }
}
