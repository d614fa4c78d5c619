//! The interpreter, by hand-written PTX and by what NVRTC compiles.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compiler;
mod cuda;
mod faults;
mod mutations;
mod opcodes;
mod run;
mod synchronization;
