//! Ties: one parameter under several names, one module under several.
//!
//! Both name their owner by its entity, so that a clone of a model is tied within itself, and both are
//! resolved when a model is signed: a tied parameter has no column of its own, the program reads the owner's
//! and the gradients of all uses add up there. What a population [shares](crate::column::shared) is tied to its entity.
//!
//! Source: `decoder.weight = encoder.weight`, and `self.again = self.block`, in torch.

use bevy_ecs::entity::MapEntities;
use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use serde::{Deserialize, Serialize};

use crate::module::registry::{Change, ModuleTypes};

/// Says that parameters of this module are those of others: a component of the module's entity.
#[derive(Component, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable, on_insert = tell, on_remove = tell)]
pub struct Ties(#[entities] pub Vec<Tie>);

/// One tied parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    /// Its name in this module: `weight`.
    pub parameter: String,
    /// The module whose parameter it is; the population's entity if its models share it.
    pub owner: Entity,
    /// The name there; of what a population shares, the dotted name that it was shared under.
    pub owner_parameter: String,
}

impl MapEntities for Tie {
    fn map_entities<M: EntityMapper>(&mut self, mapper: &mut M) {
        self.owner = mapper.get_mapped(self.owner);
    }
}

/// Says that the module under this name is another one of the model: a component of an entity that has a name
/// and a parent, but no layer component.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable, on_insert = tell, on_remove = tell)]
pub struct SharedModule(#[entities] pub Entity);

/// Another tie is another structure.
fn tell(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        types.tell(Change { entity: context.entity, inserted: None });
    }
}
