//! Runs kernels.

mod access;
mod arrival;
mod barrier;
mod block;
mod blocks;
mod call;
mod counts;
mod frame;
mod grid;
mod step;
mod together;
mod warp;

pub use counts::Counts;

use crate::error::LaunchError;
use crate::memory::Memory;
use crate::program::Program;

/// The most threads of a block, and the most shared memory, of any device.
const MOST_THREADS: u32 = 1024;
const MOST_SHARED: usize = 227 << 10;

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: usize,
}

/// What a launch looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Races are faults.
    pub races: bool,
    /// Reads of unwritten memory are faults.
    pub unwritten: bool,
    /// Counts sectors and bank conflicts; instructions are counted always.
    pub transfers: bool,
    /// After so many warp instructions the launch ends with a fault: a kernel that waits forever must end.
    pub limit: u64,
}

impl Default for Options {
    /// Everything is looked for; four billion instructions are some twenty minutes.
    fn default() -> Self {
        Options { races: true, unwritten: true, transfers: true, limit: 4_000_000_000 }
    }
}

/// An argument of a kernel: as many bytes as the parameter has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(Vec<u8>);

impl Argument {
    /// Creates an argument from the bytes of a structure.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Argument(bytes.into())
    }
}

impl From<u64> for Argument {
    /// A pointer, or a number of 64 bits.
    fn from(x: u64) -> Self {
        Argument(x.to_le_bytes().into())
    }
}

impl From<i64> for Argument {
    fn from(x: i64) -> Self {
        Argument(x.to_le_bytes().into())
    }
}

impl From<u32> for Argument {
    fn from(x: u32) -> Self {
        Argument(x.to_le_bytes().into())
    }
}

impl From<i32> for Argument {
    fn from(x: i32) -> Self {
        Argument(x.to_le_bytes().into())
    }
}

impl From<f32> for Argument {
    fn from(x: f32) -> Self {
        Argument(x.to_le_bytes().into())
    }
}

impl From<f64> for Argument {
    fn from(x: f64) -> Self {
        Argument(x.to_le_bytes().into())
    }
}

impl Program {
    /// Runs a kernel to its end, and looks for everything.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]. After a [`LaunchError::Fault`] memory holds what was written up to then; after any other, nothing
    /// ran.
    pub fn launch(
        &self,
        kernel: &str,
        launch: Launch,
        arguments: &[Argument],
        memory: &mut Memory,
    ) -> Result<Counts, LaunchError> {
        self.launch_with(kernel, launch, arguments, memory, Options::default())
    }

    /// Runs a kernel to its end, and looks for what the options say.
    ///
    /// # Errors
    ///
    /// As [`Program::launch`].
    pub fn launch_with(
        &self,
        kernel: &str,
        launch: Launch,
        arguments: &[Argument],
        memory: &mut Memory,
        options: Options,
    ) -> Result<Counts, LaunchError> {
        let found = self.by_name.get(kernel).map(|&at| &self.functions[at]).filter(|f| f.is_kernel);
        let Some(f) = found else { return Err(LaunchError::NoKernel(kernel.to_owned())) };
        let kernel = || kernel.to_owned();
        let (expected, got) = (f.parameters.len(), arguments.len());
        if expected != got {
            return Err(LaunchError::ArgumentCount { kernel: kernel(), expected, got });
        }
        let mut parameters = vec![0; f.parameter_bytes];
        for (index, (place, Argument(bytes))) in f.parameters.iter().zip(arguments).enumerate() {
            let (expected, got) = (place.bytes, bytes.len());
            if expected != got {
                return Err(LaunchError::ArgumentSize { kernel: kernel(), index, expected, got });
            }
            parameters[place.offset..place.offset + got].copy_from_slice(bytes);
        }
        let most = f.max_threads.unwrap_or(MOST_THREADS).min(MOST_THREADS);
        let got =
            launch.block.iter().fold(1_u64, |product, &n| product.saturating_mul(u64::from(n)));
        if got == 0 || got > u64::from(most) {
            return Err(LaunchError::Threads { kernel: kernel(), most, got });
        }
        let shared = grid::SharedLayout::new(self, f, launch.shared_bytes);
        if shared.bytes > MOST_SHARED {
            return Err(LaunchError::SharedMemory {
                kernel: kernel(),
                most: MOST_SHARED,
                got: shared.bytes,
            });
        }
        Ok(blocks::run(self, f, launch, &parameters, shared, memory, options)?)
    }
}
