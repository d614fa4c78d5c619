//! Looking at models and runs: what models are made of, how their gradients are, what they take in memory and time, and
//! logs and pictures of all that.

pub mod curves;
pub mod health;
pub mod histogram;
#[cfg(feature = "log")]
pub mod log;
pub(crate) mod memory;
#[cfg(feature = "plot")]
pub mod plot;
pub mod profile;
pub mod summary;
