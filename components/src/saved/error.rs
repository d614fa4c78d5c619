//! [`SavedError`].

use crate::scheduler::SchedulerError;

/// Why a component cannot be written into a checkpoint, or read back.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// Two types want one name in files.
    #[error(
        "{type_name} cannot be registered as `{name}`, since {known} is: give it a name of its own by `register_as`"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The type that was to be registered, with its path.
        type_name: &'static str,
        /// The one that has the name.
        known: &'static str,
    },
    /// A component is of a type that is not registered.
    #[error(
        "the type `{name}` is not registered: `world.register_module_type::<{name}>()` registers a module, \
         `world.register_saved::<{name}>()` any other component"
    )]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A rule of a scheduler is of a type that is not registered.
    #[error(
        "the scheduler `{name}` is not registered: `world.register_scheduler::<{name}>()` does so"
    )]
    UnknownScheduler {
        /// Its name.
        name: String,
    },
    /// A value cannot be written.
    #[error("`{name}` cannot be written: {reason}")]
    Write {
        /// The name of its type.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes are no value of the type.
    #[error("`{name}` cannot be read: {reason}")]
    Read {
        /// The name of the type.
        name: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A scheduler, or parameter groups, have functions, and are to be read where there are none of their type that they could be
    /// taken from.
    #[error(
        "`{rule}` has functions, which no file holds: expected an entity that has some of this type already"
    )]
    Functions {
        /// The type that has them.
        rule: String,
    },
    /// The settings of a scheduler cannot be.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
}
