//! Which components a checkpoint saves, and how each is written and read: [`SavedTypes`].

mod cbor;
mod copied;
mod copies;
mod error;
mod groups;
mod list;
mod rules;
mod scheduler;
#[cfg(test)]
mod tests;
mod types;

use bevy_ecs::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::cbor::name_of;
pub use self::copied::CopiedTypes;
pub use self::copies::{CopiedType, Copies, MakeCopies};
pub use self::error::SavedError;
pub use self::types::{SavedType, SavedTypes, SavedValue};
use self::types::{add_component, add_module};
use crate::module::Module;
use crate::optimizer::Optimizer;
use crate::scheduler::LRScheduler;

impl SavedTypes {
    /// Makes the types of this crate known, unless they are.
    pub fn init(world: &mut World) {
        if !world.contains_resource::<SavedTypes>() {
            world.init_resource::<SavedTypes>();
            let registered = list::register(world);
            debug_assert_eq!(registered, Ok(()), "no two types of this crate have one name");
        }
    }

    /// Registers a component type under its name in Rust without the path. Does nothing the second time.
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    pub fn register<T>(world: &mut World) -> Result<(), SavedError>
    where
        T: Component + Clone + Serialize + DeserializeOwned,
    {
        Self::register_as::<T>(world, &name_of::<T>())
    }

    /// Registers a component type under a name. Does nothing if it is registered, by whatever name.
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    pub fn register_as<T>(world: &mut World, name: &str) -> Result<(), SavedError>
    where
        T: Component + Clone + Serialize + DeserializeOwned,
    {
        Self::init(world);
        add_component::<T>(world, name)
    }

    /// Registers a module type, and makes it [known](crate::module::registry::ModuleTypes::register) as one.
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    pub fn register_module<M>(world: &mut World) -> Result<(), SavedError>
    where
        M: Module + Serialize + DeserializeOwned,
    {
        Self::register_module_as::<M>(world, &name_of::<M>())
    }

    /// Registers a module type under a name, and makes it [known](crate::module::registry::ModuleTypes::register) as one.
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    pub fn register_module_as<M>(world: &mut World, name: &str) -> Result<(), SavedError>
    where
        M: Module + Serialize + DeserializeOwned,
    {
        Self::init(world);
        add_module::<M>(world, name)
    }

    /// Registers an optimizer of the host's own under its name in Rust, and [`ParamGroups`](crate::optimizer::ParamGroups) of
    /// it.
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    pub fn register_optimizer<O>(world: &mut World) -> Result<(), SavedError>
    where
        O: Optimizer + Serialize + DeserializeOwned,
    {
        Self::register::<O>(world)?;
        groups::add_groups::<O>(world)
    }

    /// Registers a rule of schedulers, so that a [`Scheduler`](crate::scheduler::Scheduler) that follows it can be saved.
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    pub fn register_scheduler<R>(world: &mut World) -> Result<(), SavedError>
    where
        R: LRScheduler + Serialize + DeserializeOwned,
    {
        Self::init(world);
        world.resource_mut::<SavedTypes>().rules.add::<R>()
    }
}
