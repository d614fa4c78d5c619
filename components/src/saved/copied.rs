//! [`CopiedTypes`]: which component types snapshots copy.

use core::any::TypeId;

use bevy_ecs::prelude::*;

use super::copies::{CopiedType, copies_of};
use super::types::SavedTypes;

/// The component types that snapshots copy: those that a checkpoint saves, and others that were registered here.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::saved::CopiedTypes;
/// #[derive(Component, Clone, PartialEq, Debug)]
/// struct Memory([f32; 2]);
///
/// let mut world = World::new();
/// CopiedTypes::register::<Memory>(&mut world);
/// let body = world.spawn(Memory([1.0, 2.0])).id();
/// let memory = world.component_id::<Memory>().unwrap();
/// let types = CopiedTypes::list(&mut world);
/// let mut copies = (types.iter().find(|ty| ty.id == memory).unwrap().make)();
/// copies.make_room(1);
/// copies.copy(0, world.entity(body).into());
/// world.entity_mut(body).insert(Memory([0.0; 2]));
/// copies.put(0, &mut world.entity_mut(body), &mut ());
/// assert_eq!(world.get::<Memory>(body), Some(&Memory([1.0, 2.0])));
/// ```
#[derive(Resource, Clone, Debug, Default)]
pub struct CopiedTypes(Vec<CopiedType>);

impl CopiedTypes {
    /// Registers a component type. Does nothing the second time.
    pub fn register<T: Component + Clone>(world: &mut World) {
        let id = world.register_component::<T>();
        let mut types = world.get_resource_or_init::<CopiedTypes>();
        if types.0.iter().all(|known| known.id != id) {
            types.0.push(CopiedType { id, type_id: TypeId::of::<T>(), make: copies_of::<T> });
        }
    }

    /// Lists all types that are copied.
    pub fn list(world: &mut World) -> Vec<CopiedType> {
        SavedTypes::init(world);
        let saved = world.resource::<SavedTypes>();
        let mut all: Vec<_> = saved.iter().map(|ty| ty.copied()).collect();
        if let Some(others) = world.get_resource::<CopiedTypes>() {
            all.extend(others.0.iter().filter(|ty| saved.by_component(ty.id).is_none()));
        }
        all
    }

    /// Counts the types that are copied: none is ever taken away.
    pub fn count(world: &World) -> usize {
        let saved = world.get_resource::<SavedTypes>().map_or(0, |types| types.iter().len());
        saved + world.get_resource::<CopiedTypes>().map_or(0, |types| types.0.len())
    }
}
