//! Runs PTX kernels on the CPU, for tests on machines without a GPU.
//!
//! Blocks run one after the other. The warps of a block take turns at barriers; the lanes of a warp run in lockstep,
//! those at the lowest program counter first. A launch ends with a [`Fault`] at the first race, out-of-bounds,
//! misaligned or unwritten access, and at a barrier that some threads miss. Otherwise it returns [`Counts`].
//!
//! ```
//! # use neurarch_ptx::{Argument, Launch, Memory, Program};
//! let program = Program::parse("
//!     .version 9.0
//!     .target sm_90
//!     .address_size 64
//!     .visible .entry double(.param .u64 numbers) {
//!         .reg .b32 %r<2>; .reg .f32 %f<2>; .reg .b64 %rd<4>;
//!         ld.param.u64 %rd1, [numbers];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd3, %rd1, %rd2;
//!         ld.global.f32 %f0, [%rd3];
//!         add.f32 %f1, %f0, %f0;
//!         st.global.f32 [%rd3], %f1;
//!         ret;
//!     }")?;
//! let mut memory = Memory::new();
//! let numbers = memory.allocate_from(&[1.0_f32, 2.0, 3.0]);
//! let launch = Launch { grid: [1, 1, 1], block: [3, 1, 1], shared_bytes: 0 };
//! let counts = program.launch("double", launch, &[Argument::from(numbers)], &mut memory)?;
//! assert_eq!(memory.read_vec::<f32>(numbers, 3)?, [2.0, 4.0, 6.0]);
//! assert_eq!(counts.opcodes["add.f32"], 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Memory is sequentially consistent. A block cannot wait for a later one. `mma`, `mbarrier`, clusters and bulk copies
//! are not supported: [`Program::parse`] returns an error that names them. Approximations of the hardware, such as
//! `ex2.approx`, are computed in double precision and rounded, so they match a device only within a tolerance.

mod arithmetic;
mod error;
mod memory;
mod program;
mod run;

pub use error::{
    Access, Fault, FaultKind, LaunchError, MemoryError, ParseError, ParseErrorKind, Space, Thread,
};
pub use memory::Memory;
pub use program::{Kernel, Program};
pub use run::{Argument, Counts, Launch, Options};
