//! What a host is told of a run: logs.

#[cfg(feature = "log")]
pub mod log;
