//! Reading and writing parameters from bevy's systems.

pub mod commands;
pub mod parameters;
pub(crate) mod settled;
