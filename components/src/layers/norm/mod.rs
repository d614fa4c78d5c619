//! Normalization.

pub mod batchnorm;
pub mod instancenorm;
pub mod normalization;
pub mod response_norm;
