//! Activations, one number at a time or along an axis.

pub(crate) mod activation;
pub(crate) mod nonlinear;
pub(crate) mod rrelu;
