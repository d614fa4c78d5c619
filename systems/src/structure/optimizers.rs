//! [`Optimizers`]: which component types are optimizers, and who has one.

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::world::EntityRef;
use neurarch_components::optimizer::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, DynParamGroups, Muon, NAdam,
    NamedParameter, Optimizer, OptimizerComponent, ParamGroups, RAdam, RMSprop, Rprop, SGD,
    SparseAdam,
};
use neurarch_components::population::group::Group;
use neurarch_components::scheduler::{Scheduler, SchedulerError};
use neurarch_kernels::ir::shape::Shape;

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
    get: fn(EntityRef<'_>) -> Option<&dyn DynParamGroups>,
    schedule: fn(&mut EntityWorldMut<'_>, Change<'_>) -> Option<Result<(), SchedulerError>>,
}

/// A step of a scheduler, which changes the optimizer beside it.
pub(crate) type Change<'a> =
    &'a dyn Fn(&mut Scheduler, &mut dyn DynParamGroups) -> Result<(), SchedulerError>;

impl Optimizers {
    /// Makes optimizers of type `O`, and [`ParamGroups`] of them, known: before or after they are inserted. A component of
    /// a type that is not known is no optimizer, and a step without any other is an error that says so.
    pub fn register<O: Optimizer>(world: &mut World) {
        Self::init(world);
        Self::add::<O>(world);
        Self::add::<ParamGroups<O>>(world);
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
            // Those of one group are looked for first.
            macro_rules! add {
                ($($optimizer:ident)*) => {
                    $(Self::add::<$optimizer>(world);)*
                    $(Self::add::<ParamGroups<$optimizer>>(world);)*
                };
            }
            add!(SGD Adam AdamW NAdam RAdam Adamax Adagrad Adadelta RMSprop ASGD Rprop Adafactor Muon SparseAdam);
        }
    }

    fn add<C: OptimizerComponent>(world: &mut World) {
        let id = world.register_component::<C>();
        let mut types = world.resource_mut::<Optimizers>();
        if types.types.iter().any(|known| known.id == id) {
            return;
        }
        types.types.push(OptimizerType {
            id,
            rust_name: core::any::type_name::<C>(),
            get: |entity| entity.get::<C>().map(|optimizer| optimizer as &dyn DynParamGroups),
            schedule: |entity, change| {
                let (mut scheduler, mut optimizer) =
                    entity.get_components_mut::<(&mut Scheduler, &mut C)>().ok()?;
                Some(change(&mut scheduler, &mut *optimizer))
            },
        });
        // Some entities may have one.
        types.generation += 1;
        world
            .add_observer(|_: On<Add<C>>, mut types: ResMut<'_, Optimizers>| types.generation += 1);
        let removed = |_: On<Remove<C>>, mut types: ResMut<'_, Optimizers>| types.generation += 1;
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
    pub(crate) fn on<'w>(
        &self,
        world: &'w World,
        entity: Entity,
    ) -> Option<&'w dyn DynParamGroups> {
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

/// Returns the number of the group of a parameter, by its dotted name in the model; the optimizer is on the module at the
/// dotted path `owner`.
pub(crate) fn group_of(
    optimizer: &dyn DynParamGroups,
    owner: &str,
    name: &str,
    shape: &Shape,
) -> usize {
    if optimizer.n_groups() == 1 {
        return 0;
    }
    let below = name.strip_prefix(owner).filter(|_| !owner.is_empty());
    let name = below.and_then(|name| name.strip_prefix('.')).unwrap_or(name);
    optimizer.group_of(&NamedParameter { name, shape })
}
