//! [`ModuleTypes`]: how a live entity's layer component is found and read as a [`DynModule`].

use bevy_ecs::component::ComponentId;
use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::column::keeper::Keeper;
use crate::module::{DynModule, Module};

/// The component types that are modules, and the entities whose modules changed since somebody looked.
#[derive(Resource, Default)]
pub struct ModuleTypes {
    /// By component id.
    readers: Vec<Option<Reader>>,
    /// What happened to module entities, in order.
    changed: Vec<Change>,
}

/// Takes module types one after the other: what is done with each of a list.
pub(crate) trait Modules {
    /// Takes the next one.
    fn add<M: Module + Serialize + DeserializeOwned>(&mut self);
}

type Reader = for<'w> fn(EntityRef<'w>) -> Option<&'w dyn DynModule>;

/// A layer component that came, went or was replaced, or a module that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The module's entity.
    pub entity: Entity,
    /// The layer component that it was given, if one was.
    pub inserted: Option<ComponentId>,
}

impl ModuleTypes {
    /// Makes `M` known: from now on an entity with this component is a module. Does nothing the second
    /// time.
    ///
    /// Changes are told by lifecycle hooks of `M`, or by observers where `M` has hooks of its own or
    /// is in use already.
    pub fn register<M: Module>(world: &mut World) {
        let id = world.register_component::<M>();
        register(world, id, |entity| entity.get::<M>().map(|module| module as &dyn DynModule));
    }

    /// Returns what happened since somebody looked, in order.
    pub fn changed(&self) -> &[Change] {
        &self.changed
    }

    /// Returns what happened since somebody looked, to forget what was seen.
    pub fn changed_mut(&mut self, _: Keeper) -> &mut Vec<Change> {
        &mut self.changed
    }

    /// Says that something happened.
    pub(crate) fn tell(&mut self, change: Change) {
        self.changed.push(change);
    }

    fn reader(&self, id: ComponentId) -> Option<Reader> {
        self.readers.get(id.index()).copied().flatten()
    }

    /// Returns whether a component type is a module.
    pub fn contains(&self, id: ComponentId) -> bool {
        self.reader(id).is_some()
    }

    /// Returns the component type of the module that an entity is; `None` if it is none.
    pub fn id(&self, entity: EntityRef<'_>) -> Option<ComponentId> {
        let components = entity.archetype().components();
        components.iter().copied().find(|id| self.contains(*id))
    }

    /// Returns the module that an entity is by its component of type `id`; `None` if it has none, or that is no module.
    pub fn module_of<'w>(
        &self,
        entity: EntityRef<'w>,
        id: ComponentId,
    ) -> Option<&'w dyn DynModule> {
        self.reader(id)?(entity)
    }

    /// Returns the module that an entity is; `None` if it is none.
    pub fn module<'w>(&self, entity: EntityRef<'w>) -> Option<&'w dyn DynModule> {
        let components = entity.archetype().components();
        let reader = components.iter().find_map(|&id| self.reader(id))?;
        reader(entity)
    }
}

/// [`ModuleTypes::register`] without a type of its own, so that it is compiled once.
fn register(world: &mut World, id: ComponentId, reader: Reader) {
    world.init_resource::<ModuleTypes>();
    let mut types = world.resource_mut::<ModuleTypes>();
    if types.contains(id) {
        return;
    }
    if types.readers.len() <= id.index() {
        types.readers.resize(id.index() + 1, None);
    }
    types.readers[id.index()] = Some(reader);

    let is_in_use = world.archetypes().iter().any(|archetype| archetype.contains(id));
    let hooks = (!is_in_use).then(|| world.register_component_hooks_by_id(id)).flatten();
    let (inserts, removes) = hooks.map_or((false, false), |hooks| {
        (hooks.try_on_insert(tell_insertion).is_some(), hooks.try_on_remove(tell_change).is_some())
    });
    if !inserts {
        let observer =
            Observer::new(move |event: On<Insert<()>>, mut types: ResMut<ModuleTypes>| {
                types.tell(Change { entity: event.entity, inserted: Some(id) });
            });
        world.spawn(observer.with_component(id));
    }
    if !removes {
        let observer = Observer::new(|event: On<Remove<()>>, mut types: ResMut<ModuleTypes>| {
            types.tell(Change { entity: event.entity, inserted: None });
        });
        world.spawn(observer.with_component(id));
    }
}

fn tell_insertion(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        let (entity, inserted) = (context.entity, Some(context.component_id));
        types.tell(Change { entity, inserted });
    }
}

/// Says that something about a module changed which is no layer component: its structure is looked at again.
pub(crate) fn tell_change(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        types.tell(Change { entity: context.entity, inserted: None });
    }
}
