//! The CPU executor: plans run by tiles of models, with vector instructions chosen at run time.

pub mod cache;
pub mod executor;
pub mod gemm;
pub mod memory;
pub mod random;
pub mod simd;
pub mod tile;
pub(crate) mod transpose;
