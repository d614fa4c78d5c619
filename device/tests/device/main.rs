//! What is printed for a device: run by the interpreter of PTX and compared with the CPU's executor, bit for bit.
//!
//! The tests that compile need NVRTC and report themselves skipped without it: see `docs/cuda.md`.

mod barriers;
mod compiled;
mod interpreted;
mod mlp;
mod network;
mod nvrtc;
mod ops;
mod population;
mod rules;
