//! [`Fresh`]: what a change of structure made new, and [`Draw`]: how it gets its first numbers.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::Role;

/// A parameter or buffer that a change of structure made new: its numbers are zero.
pub(crate) struct Fresh {
    /// The model's root.
    pub(crate) root: Entity,
    /// The module's place in the model's blueprint.
    pub(crate) position: usize,
    /// [`Role::Parameter`] or [`Role::Buffer`].
    pub(crate) role: Role,
    /// Its place in the module.
    pub(crate) index: usize,
}

/// Which random numbers a parameter that is new starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draw {
    /// Those of its place in a model that was just spawned.
    First,
    /// Those that the model comes to next: what stood at this place before had the first ones, and may live on
    /// at another.
    Anew,
    /// Those of a seed, by the model's number and how often some were drawn by the seed.
    Seeded {
        /// The seed.
        seed: u64,
        /// The number of draws before.
        step: u64,
    },
}
