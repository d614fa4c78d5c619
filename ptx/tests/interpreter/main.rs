//! The interpreter, by hand-written PTX and by what NVRTC compiles.

mod compiler;
mod cuda;
mod faults;
mod mutations;
mod opcodes;
mod run;
mod synchronization;
