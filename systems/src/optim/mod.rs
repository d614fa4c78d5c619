//! Which optimizers there are, and who has one.

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::TableId;
use bevy_ecs::world::EntityRef;
use neurarch_components::optimizer::{Adam, AdamW, DynOptimizer, Optimizer, SGD};

use crate::population::Population;

/// The component types that are optimizers. [`SGD`], [`Adam`] and [`AdamW`] are known from the start.
#[derive(Resource, Clone, Debug)]
pub struct Optimizers(Vec<OptimizerType>);

#[derive(Clone, Copy, Debug)]
struct OptimizerType {
    id: ComponentId,
    get: fn(EntityRef<'_>) -> Option<&dyn DynOptimizer>,
    remove: fn(&mut EntityWorldMut<'_>),
}

impl FromWorld for Optimizers {
    fn from_world(world: &mut World) -> Self {
        let mut types = Optimizers(Vec::new());
        types.add::<SGD>(world);
        types.add::<Adam>(world);
        types.add::<AdamW>(world);
        types
    }
}

impl Optimizers {
    /// Makes an optimizer of your own known.
    pub fn register<O: Optimizer>(world: &mut World) {
        world.init_resource::<Optimizers>();
        world.resource_scope(|world, mut types: Mut<'_, Optimizers>| types.add::<O>(world));
    }

    fn add<O: Optimizer>(&mut self, world: &mut World) {
        let id = world.register_component::<O>();
        if self.0.iter().all(|known| known.id != id) {
            self.0.push(OptimizerType {
                id,
                get: |entity| entity.get::<O>().map(|optimizer| optimizer as &dyn DynOptimizer),
                remove: |entity| drop(entity.remove::<O>()),
            });
        }
    }

    /// Gives the optimizer that an entity has of its own.
    pub(crate) fn on<'w>(&self, entity: EntityRef<'w>) -> Option<&'w dyn DynOptimizer> {
        self.0.iter().find_map(|optimizer| (optimizer.get)(entity))
    }

    /// Lists the positions at which some model has an optimizer, or could: whose tables have a column of
    /// one.
    pub(crate) fn owners(&self, world: &World, population: &Population) -> Vec<usize> {
        let positions = 0..population.blueprint().positions.len();
        positions.filter(|&position| self.at(world, population, position).next().is_some()).collect()
    }

    /// Lists the columns of the optimizers at a position.
    pub(crate) fn at<'w>(
        &'w self,
        world: &'w World,
        population: &'w Population,
        position: usize,
    ) -> impl Iterator<Item = (TableId, ComponentId)> + 'w {
        population.tables(position).flat_map(move |table| {
            let columns = world.storages().tables.get(table);
            let has = move |id| columns.is_some_and(|columns| columns.has_column(id));
            self.0.iter().filter(move |known| has(known.id)).map(move |known| (table, known.id))
        })
    }

    /// Takes every optimizer but that of component type `kept` off an entity, if `kept` is an optimizer:
    /// an entity has one.
    pub(crate) fn remove_others(&self, entity: &mut EntityWorldMut<'_>, kept: ComponentId) {
        if self.0.iter().any(|optimizer| optimizer.id == kept) {
            let others = self.0.iter().filter(|optimizer| optimizer.id != kept);
            for optimizer in others {
                if entity.contains_id(optimizer.id) {
                    (optimizer.remove)(entity);
                }
            }
        }
    }
}
