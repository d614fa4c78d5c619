//! Ops that make fewer numbers of more along axes: sums, maxima, softmax.

pub mod argmax;
pub(crate) mod lines;
pub mod reduce;
pub mod softmax;
pub mod statistics;
