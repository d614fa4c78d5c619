//! What a host is told of a run: logs, and profiles.

#[cfg(feature = "log")]
pub mod log;
pub mod profile;
