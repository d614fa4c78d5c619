//! Normalization.

pub mod gather_stats;
pub mod local_response_norm;
pub mod normalize;
