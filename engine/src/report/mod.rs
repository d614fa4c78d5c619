//! Looking at models: what they are made of, how their gradients are, and pictures of both.

pub mod health;
pub mod histogram;
#[cfg(feature = "plot")]
pub mod plot;
pub mod quantiles;
pub mod summary;
//! What can be told of models: values that print themselves.

pub mod memory;
