//! [`ModuleTypes`]: how a live entity's layer component is found and read as a [`DynModule`].

use std::collections::HashMap;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;

use crate::module::{DynModule, Module};

/// The component types that are modules, and the entities whose modules changed since somebody looked.
#[derive(Resource, Default)]
pub struct ModuleTypes {
    readers: HashMap<ComponentId, Reader>,
    /// Module entities whose layer component came, went or was replaced, and the parents of those that
    /// went.
    pub changed: Vec<Entity>,
}

type Reader = for<'w> fn(EntityRef<'w>) -> Option<&'w dyn DynModule>;

impl ModuleTypes {
    /// Makes `M` known: from now on an entity with this component is a module. Does nothing the second
    /// time.
    pub fn register<M: Module>(world: &mut World) {
        world.init_resource::<ModuleTypes>();
        let id = world.register_component::<M>();
        if world.resource::<ModuleTypes>().readers.contains_key(&id) {
            return;
        }
        world.add_observer(|event: On<Insert<M>>, mut types: ResMut<ModuleTypes>| {
            types.changed.push(event.entity);
        });
        world.add_observer(
            |event: On<Remove<M>>, parents: Query<&ChildOf>, mut types: ResMut<ModuleTypes>| {
                types.changed.push(event.entity);
                types.changed.extend(parents.get(event.entity).ok().map(ChildOf::parent));
            },
        );
        world
            .resource_mut::<ModuleTypes>()
            .readers
            .insert(id, |entity| entity.get::<M>().map(|module| module as &dyn DynModule));
    }

    /// Gives the component type of the module that an entity is; `None` if it is none.
    pub fn id(&self, entity: EntityRef<'_>) -> Option<ComponentId> {
        let components = entity.archetype().components();
        components.iter().copied().find(|id| self.readers.contains_key(id))
    }

    /// Gives the module that an entity is; `None` if it is none.
    pub fn module<'w>(&self, entity: EntityRef<'w>) -> Option<&'w dyn DynModule> {
        let components = entity.archetype().components();
        let reader = components.iter().find_map(|id| self.readers.get(id))?;
        reader(entity)
    }
}
