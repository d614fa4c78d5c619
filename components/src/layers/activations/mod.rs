//! Activations, one number at a time or along an axis.

pub mod activation;
pub mod nonlinear;
pub mod rrelu;
