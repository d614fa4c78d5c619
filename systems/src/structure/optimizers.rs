//! [`Optimizers`]: which component types are optimizers, and who has one.

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::world::EntityRef;
use neurarch_components::optimizer::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, DynOptimizer, Muon, NAdam, Optimizer,
    RAdam, RMSprop, Rprop, SGD, SparseAdam,
};
use neurarch_components::population::group::Group;
use neurarch_components::scheduler::{Scheduler, SchedulerError};

/// The component types that are optimizers. torch's are known from the start.
#[derive(Resource, Debug)]
pub struct Optimizers {
    types: Vec<OptimizerType>,
    /// Counts the times that an entity got or lost an optimizer.
    generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct OptimizerType {
    id: ComponentId,
    /// The type's path in Rust.
    rust_name: &'static str,
    get: fn(EntityRef<'_>) -> Option<&dyn DynOptimizer>,
    schedule: fn(&mut EntityWorldMut<'_>, Change<'_>) -> Option<Result<(), SchedulerError>>,
}

/// A step of a scheduler, which changes the optimizer beside it.
pub(crate) type Change<'a> =
    &'a dyn Fn(&mut Scheduler, &mut dyn DynOptimizer) -> Result<(), SchedulerError>;

impl Optimizers {
    /// Makes optimizers of type `O` known: before or after they are inserted. A component of a type that is not known
    /// is no optimizer, and a step without any other is an error that says so.
    pub fn register<O: Optimizer>(world: &mut World) {
        Self::init(world);
        Self::add::<O>(world);
    }

    /// Counts the times that an entity got or lost an optimizer; makes torch's known first.
    pub(crate) fn generation(world: &mut World) -> u64 {
        if let Some(known) = world.get_resource::<Optimizers>() {
            return known.generation;
        }
        Self::init(world);
        world.resource::<Optimizers>().generation
    }

    /// Makes torch's optimizers known.
    pub(crate) fn init(world: &mut World) {
        if !world.contains_resource::<Optimizers>() {
            world.insert_resource(Optimizers { types: Vec::new(), generation: 0 });
            Self::add::<SGD>(world);
            Self::add::<Adam>(world);
            Self::add::<AdamW>(world);
            Self::add::<NAdam>(world);
            Self::add::<RAdam>(world);
            Self::add::<Adamax>(world);
            Self::add::<Adagrad>(world);
            Self::add::<Adadelta>(world);
            Self::add::<RMSprop>(world);
            Self::add::<ASGD>(world);
            Self::add::<Rprop>(world);
            Self::add::<Adafactor>(world);
            Self::add::<Muon>(world);
            Self::add::<SparseAdam>(world);
        }
    }

    fn add<O: Optimizer>(world: &mut World) {
        let id = world.register_component::<O>();
        let mut types = world.resource_mut::<Optimizers>();
        if types.types.iter().any(|known| known.id == id) {
            return;
        }
        types.types.push(OptimizerType {
            id,
            rust_name: core::any::type_name::<O>(),
            get: |entity| entity.get::<O>().map(|optimizer| optimizer as &dyn DynOptimizer),
            schedule: |entity, change| {
                let (mut scheduler, mut optimizer) =
                    entity.get_components_mut::<(&mut Scheduler, &mut O)>().ok()?;
                Some(change(&mut scheduler, &mut *optimizer))
            },
        });
        // Some entities may have one.
        types.generation += 1;
        world
            .add_observer(|_: On<Add<O>>, mut types: ResMut<'_, Optimizers>| types.generation += 1);
        let removed = |_: On<Remove<O>>, mut types: ResMut<'_, Optimizers>| types.generation += 1;
        world.add_observer(removed);
    }

    /// Lists the component types.
    pub(crate) fn ids(&self) -> Vec<ComponentId> {
        self.types.iter().map(|optimizer| optimizer.id).collect()
    }

    /// Returns the path in Rust of a component type; `None` if it is no optimizer.
    pub(crate) fn rust_name(&self, id: ComponentId) -> Option<&'static str> {
        self.types.iter().find(|optimizer| optimizer.id == id).map(|optimizer| optimizer.rust_name)
    }

    /// Returns the optimizer that an entity has of its own.
    pub(crate) fn on<'w>(&self, world: &'w World, entity: Entity) -> Option<&'w dyn DynOptimizer> {
        let entity = world.get_entity(entity).ok()?;
        let own = self.types.iter().find(|optimizer| entity.contains_id(optimizer.id))?;
        (own.get)(entity)
    }

    /// Returns the type of the optimizer that an entity has of its own.
    pub(crate) fn id_on(&self, world: &World, entity: Entity) -> Option<ComponentId> {
        let entity = world.get_entity(entity).ok()?;
        self.types.iter().map(|optimizer| optimizer.id).find(|&id| entity.contains_id(id))
    }

    /// Lists the columns of optimizers that some member of a group has, by position.
    pub(crate) fn columns(&self, world: &World, group: &Group) -> Vec<(usize, ComponentId)> {
        let mut columns = Vec::new();
        for (position, modules) in group.modules.iter().enumerate() {
            let mut last = None;
            for &module in modules {
                let Ok(entity) = world.get_entity(module) else { continue };
                // Neighbours mostly share a table.
                let table = entity.location().table_id;
                if last.replace(table) == Some(table) {
                    continue;
                }
                for optimizer in &self.types {
                    let column = (position, optimizer.id);
                    if entity.contains_id(optimizer.id) && !columns.contains(&column) {
                        columns.push(column);
                    }
                }
            }
        }
        columns
    }

    /// Changes an entity's scheduler and optimizer, if it has both.
    pub(crate) fn change(
        &self,
        entity: &mut EntityWorldMut<'_>,
        change: Change<'_>,
    ) -> Option<Result<(), SchedulerError>> {
        self.types.iter().find_map(|optimizer| (optimizer.schedule)(entity, change))
    }

    /// Lists the optimizer types that an entity must lose to have `kept` alone; none if `kept` is no
    /// optimizer.
    pub(crate) fn others(&self, kept: ComponentId) -> Vec<ComponentId> {
        let ids = || self.types.iter().map(|optimizer| optimizer.id);
        match ids().any(|id| id == kept) {
            true => ids().filter(|&id| id != kept).collect(),
            false => Vec::new(),
        }
    }
}
