//! Ops that move elements, or only say how they lie.

pub mod cat;
pub mod contiguous;
pub(crate) mod copy;
pub mod detach;
pub mod expand;
mod on_device;
pub mod permute;
pub mod reshape;
pub mod slice;
pub mod split;
