//! What a forward pass is written in: types, ops, programs, traces. It names no back end, and nothing here computes.

pub mod autocast;
pub mod boundary;
pub mod device;
pub mod dtype;
pub mod eager;
pub mod error;
pub mod op;
pub mod packed;
pub(crate) mod print;
pub mod program;
pub mod rng_key;
pub mod shape;
pub mod trace;
pub mod tree;
pub(crate) mod verify;
