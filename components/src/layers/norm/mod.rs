//! Normalization.

pub mod batchnorm;
pub(crate) mod instancenorm;
pub(crate) mod normalization;
pub(crate) mod observation_norm;
pub(crate) mod response_norm;
