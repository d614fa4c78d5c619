//! The CPU executor: plans run by tiles of models, with vector instructions chosen at run time.

pub mod cache;
mod dot;
pub mod executor;
pub mod gemm;
mod large;
pub mod memory;
pub mod product;
pub mod random;
mod register_tile;
pub(crate) mod share;
pub mod simd;
pub mod sum;
pub mod tile;
pub mod transpose;
