//! The CPU executor: plans run by tiles of models, with vector instructions chosen at run time.
//!
//! What works with addresses is for this crate's ops alone, which know what it asks of them.

#[allow(unreachable_pub, reason = "what its files offer is for this crate's ops")]
pub(crate) mod cache;
pub mod convert;
mod dot;
#[allow(unreachable_pub, reason = "what its files offer is for this crate's ops")]
pub(crate) mod gemm;
#[allow(unreachable_pub, reason = "what its files offer is for this crate's ops")]
pub(crate) mod half_dot;
pub mod kernel;
mod large;
#[allow(unreachable_pub, reason = "what its files offer is for this crate's ops")]
pub(crate) mod product;
pub mod random;
mod register_tile;
pub mod row_sum;
pub(crate) mod scratch;
pub(crate) mod share;
pub mod simd;
pub mod sum;
pub mod tile;
#[allow(unreachable_pub, reason = "what its files offer is for this crate's ops")]
pub(crate) mod transpose;
pub mod vector_kernel;
