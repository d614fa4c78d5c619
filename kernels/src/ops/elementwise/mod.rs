//! Ops that compute each element from those at its place, and what they share.

pub mod binary;
pub mod cast;
pub mod clamp_min;
pub mod compare;
pub(crate) mod number;
mod on_device;
pub mod pointwise;
pub mod trunc;
pub mod unary;
pub(crate) mod walk;
pub mod xlogy;
