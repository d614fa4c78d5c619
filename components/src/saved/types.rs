//! [`SavedTypes`]: the component types that a checkpoint saves.

use core::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cbor::{decode, encode};
use super::copies::{CopiedType, MakeCopies, copies_of};
use super::error::SavedError;
use super::rules::Rules;
use crate::module::registry::ModuleTypes;
use crate::module::{DynModule, Module};

/// How components of one type are written into a checkpoint and read back.
#[derive(Clone, Debug)]
pub struct SavedType {
    /// The name in files: `Linear`.
    pub name: Arc<str>,
    /// The component's id in the world that this was registered in.
    pub id: ComponentId,
    /// The type.
    pub type_id: TypeId,
    /// The type's path in Rust.
    pub type_name: &'static str,
    write: Write,
    read: Read,
    copies: MakeCopies,
}

type Write =
    fn(&SavedTypes, EntityRef<'_>, &mut dyn EntityMapper, &mut Vec<u8>) -> Result<bool, SavedError>;
type Read = fn(&SavedTypes, &[u8]) -> Result<Box<dyn SavedValue>, SavedError>;

impl SavedType {
    /// Returns how it is copied in memory.
    pub(super) fn copied(&self) -> CopiedType {
        CopiedType { id: self.id, type_id: self.type_id, make: self.copies }
    }

    /// Appends the component of an entity as CBOR, entities in it mapped; returns false if the entity has none.
    ///
    /// # Errors
    ///
    /// If the value cannot be written. Nothing is appended then.
    pub fn write(
        &self,
        types: &SavedTypes,
        entity: EntityRef<'_>,
        mapper: &mut dyn EntityMapper,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, SavedError> {
        (self.write)(types, entity, mapper, bytes)
    }

    /// Reads a component, which can be inserted on any number of entities.
    ///
    /// # Errors
    ///
    /// [`SavedError::Read`] if the bytes are not one value of the type, from the first to the last.
    pub fn read(
        &self,
        types: &SavedTypes,
        bytes: &[u8],
    ) -> Result<Box<dyn SavedValue>, SavedError> {
        (self.read)(types, bytes)
    }
}

/// A component that was read.
pub trait SavedValue: Send + Sync {
    /// Checks whether it can be inserted on an entity; `None` is one that has yet to be spawned.
    ///
    /// # Errors
    ///
    /// [`SavedError::Functions`] of a scheduler with functions, if the entity has none of its type.
    fn check(&self, entity: Option<EntityRef<'_>>) -> Result<(), SavedError>;

    /// Inserts a copy on an entity, in place of a component of its type; entities in it are mapped. What no file holds stays
    /// as the entity has it: functions of schedulers, whether a model has hooks.
    ///
    /// # Errors
    ///
    /// Those of [`check`](SavedValue::check). Nothing is changed then.
    fn insert(
        &self,
        entity: &mut EntityWorldMut<'_>,
        mapper: &mut dyn EntityMapper,
    ) -> Result<(), SavedError>;

    /// Returns the component itself, entities in it as they were written.
    fn value(&self) -> &dyn Any;

    /// Returns the module that it is, if it is one.
    fn module(&self) -> Option<&dyn DynModule>;
}

/// Completes a value by what the entity that it is to be inserted on has.
type Adopt<T> = fn(&mut T, Option<&T>) -> Result<(), SavedError>;

/// A value, and what is special about its type.
pub(super) struct Value<T> {
    value: T,
    adopt: Adopt<T>,
    module: fn(&T) -> Option<&dyn DynModule>,
}

impl<T> Value<T> {
    /// Wraps a value that is complete.
    fn new(value: T) -> Self {
        Value::adopting(value, |_, _| Ok(()))
    }

    /// Wraps a value that is yet to be completed.
    pub(super) fn adopting(value: T, adopt: Adopt<T>) -> Self {
        Value { value, adopt, module: |_| None }
    }
}

impl<T: Component + Clone> SavedValue for Value<T> {
    fn check(&self, entity: Option<EntityRef<'_>>) -> Result<(), SavedError> {
        (self.adopt)(&mut self.value.clone(), entity.as_ref().and_then(|entity| entity.get()))
    }

    fn insert(
        &self,
        entity: &mut EntityWorldMut<'_>,
        mut mapper: &mut dyn EntityMapper,
    ) -> Result<(), SavedError> {
        let mut value = self.value.clone();
        (self.adopt)(&mut value, entity.get())?;
        T::map_entities(&mut value, &mut mapper);
        entity.insert(value);
        Ok(())
    }

    fn value(&self) -> &dyn Any {
        &self.value
    }

    fn module(&self) -> Option<&dyn DynModule> {
        (self.module)(&self.value)
    }
}

/// The component types that a checkpoint saves, by name; torch's modules, losses, optimizers and schedulers and what
/// neurarch itself puts beside them are there from the start. Hooks are never saved.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::saved::*;
/// # use serde::{Deserialize, Serialize};
/// /// A component of the host's own.
/// #[derive(Component, Clone, PartialEq, Debug, Serialize, Deserialize)]
/// struct Health(f32);
///
/// let mut world = World::new();
/// SavedTypes::register::<Health>(&mut world)?;
/// let old = world.spawn((Health(0.5), Linear::new(4, 2))).id();
/// let new = world.spawn_empty().id();
/// let types = world.resource::<SavedTypes>().clone();
/// for name in ["Health", "Linear"] {
///     let (saved, mut bytes) = (types.by_name(name).unwrap(), Vec::new());
///     assert!(saved.write(&types, world.entity(old), &mut (), &mut bytes)?);
///     saved.read(&types, &bytes)?.insert(&mut world.entity_mut(new), &mut ())?;
/// }
/// assert_eq!(world.get::<Health>(new), Some(&Health(0.5)));
/// assert_eq!(world.get::<Linear>(new), Some(&Linear::new(4, 2)));
/// # Ok::<(), SavedError>(())
/// ```
#[derive(Resource, Clone, Debug, Default)]
pub struct SavedTypes {
    /// In order of registration.
    types: Vec<SavedType>,
    names: HashMap<Arc<str>, usize>,
    ids: HashMap<ComponentId, usize>,
    pub(super) rules: Rules,
}

impl SavedTypes {
    /// Returns the type that has a name in files.
    pub fn by_name(&self, name: &str) -> Option<&SavedType> {
        self.names.get(name).map(|&place| &self.types[place])
    }

    /// Returns the type of a component; `None` if it is not saved.
    pub fn by_component(&self, id: ComponentId) -> Option<&SavedType> {
        self.ids.get(&id).map(|&place| &self.types[place])
    }

    /// Lists the names of the rules that schedulers can be saved with, in order of registration.
    pub fn schedulers(&self) -> impl Iterator<Item = &str> {
        self.rules.names()
    }

    /// Lists the types in order of registration.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SavedType> {
        self.types.iter()
    }
}

/// Adds a component type, unless it is there.
pub(super) fn add_component<T>(world: &mut World, name: &str) -> Result<(), SavedError>
where
    T: Component + Clone + Serialize + DeserializeOwned,
{
    add::<T>(world, name, write::<T>, |_, bytes| Ok(Box::new(Value::new(decode::<T>(bytes)?))))
}

/// Adds a module type, unless it is there.
pub(super) fn add_module<M>(world: &mut World, name: &str) -> Result<(), SavedError>
where
    M: Module + Serialize + DeserializeOwned,
{
    add::<M>(world, name, write::<M>, |_, bytes| {
        let value = Value::new(decode::<M>(bytes)?);
        Ok(Box::new(Value { module: |module| Some(module as &dyn DynModule), ..value }))
    })?;
    ModuleTypes::register::<M>(world);
    Ok(())
}

/// Adds a type, unless it is there.
pub(super) fn add<T: Component + Clone>(
    world: &mut World,
    name: &str,
    write: Write,
    read: Read,
) -> Result<(), SavedError> {
    let id = world.register_component::<T>();
    let (type_id, type_name) = (TypeId::of::<T>(), core::any::type_name::<T>());
    world.resource_mut::<SavedTypes>().add(SavedType {
        name: name.into(),
        id,
        type_id,
        type_name,
        write,
        read,
        copies: copies_of::<T>,
    })
}

impl SavedTypes {
    /// Copies a type that is there in a way of its own.
    pub(super) fn copy_as(&mut self, type_id: TypeId, copies: MakeCopies) {
        let of_type = self.types.iter_mut().filter(|ty| ty.type_id == type_id);
        of_type.for_each(|ty| ty.copies = copies);
    }

    fn add(&mut self, added: SavedType) -> Result<(), SavedError> {
        if self.ids.contains_key(&added.id) {
            return Ok(());
        }
        if let Some(known) = self.by_name(&added.name) {
            let (name, known) = (added.name.to_string(), known.type_name);
            return Err(SavedError::NameTaken { name, type_name: added.type_name, known });
        }
        let place = self.types.len();
        self.names.insert(added.name.clone(), place);
        self.ids.insert(added.id, place);
        self.types.push(added);
        Ok(())
    }
}

/// Writes a component as its type does.
pub(super) fn write<T: Component + Clone + Serialize>(
    _: &SavedTypes,
    entity: EntityRef<'_>,
    mut mapper: &mut dyn EntityMapper,
    bytes: &mut Vec<u8>,
) -> Result<bool, SavedError> {
    let Some(mut value) = entity.get::<T>().cloned() else { return Ok(false) };
    T::map_entities(&mut value, &mut mapper);
    encode(&value, bytes)?;
    Ok(true)
}
