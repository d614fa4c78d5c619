//! [`BindError`]: why rows cannot be bound.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::Role;

/// Why rows cannot be bound: somebody took away or moved what `sign::refresh` keeps together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The entity is no population, or the group is none of its groups.
    #[error("{0} is not a population with this group")]
    NoSuchGroup(Entity),
    /// A module's entity is gone.
    #[error("module {0} was despawned")]
    Despawned(Entity),
    /// A module has no column for a slot.
    #[error("{slot}: no {role} column")]
    NoColumn {
        /// The slot's dotted name.
        slot: String,
        /// What the column would be for.
        role: Role,
    },
    /// An entity would have to be a module of two models, or at two positions of one.
    #[error("module {0} stands at two places of its population")]
    NotApart(Entity),
    /// A slot is written that is the memory of another one.
    #[error("{slot}: its memory is that of another slot")]
    Twice {
        /// The slot's dotted name.
        slot: String,
    },
    /// A row that members share would be written by several.
    #[error("{slot}: a row that models share is written by one alone")]
    SharedWritten {
        /// The slot's dotted name.
        slot: String,
    },
    /// The kernel of an op panicked, one of a user's own most likely.
    #[error("a kernel {message}")]
    Kernel {
        /// What it said.
        message: String,
    },
    /// The members are not all of the group.
    #[error("model {index} is not in the group")]
    NotAMember {
        /// The model's index.
        index: usize,
    },
}
