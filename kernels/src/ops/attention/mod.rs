//! Attention.

pub mod multi_head;
pub mod scaled_dot_product;
