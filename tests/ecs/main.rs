//! Models as entities: populations come, go and evolve, systems read and write them, structures and storage follow.
//!
//! Here belongs what is about bevy's `World`: entities, components, systems, commands, and populations as a whole. What
//! torch has is in `tests/torch/`, what holds whatever is called in `tests/promises/`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../bits/mod.rs"]
mod bits;
#[path = "../known/mod.rs"]
mod known;

#[cfg(feature = "app")]
mod app;
mod blueprints;
mod brains;
mod checkpoint;
mod clones;
mod evolution;
mod handles;
mod reads;
mod registration_of_populations;
mod rollback;
mod several_populations;
mod shared;
mod structure;
