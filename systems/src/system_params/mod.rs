//! Reading and writing parameters from bevy's systems.

pub mod columns;
pub mod commands;
pub mod gradients;
pub mod parameters;
pub mod repr;
pub(crate) mod settled;
