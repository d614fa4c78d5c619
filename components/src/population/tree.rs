//! A model's entities: the root with [`Model`], below it one entity a module with its [`ModuleName`].
//!
//! The tree itself is bevy's: `ChildOf` and `Children`, whose order is torch's order of registration.

use std::sync::Arc;

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use serde::{Deserialize, Serialize};

use crate::column::keeper::Keeper;
use crate::module::blueprint::{Blueprint, BlueprintId};
use crate::module::mode::{Draws, HasGradient, Mode};
use crate::module::registry::tell_change;
use crate::population::Population;
use crate::population::contents::Contents;

/// The root of a model: which population it belongs to, and where.
///
/// Kept by neurarch. Removing it, or despawning the root, takes the model out of its population; cloning
/// the root gives a new model of the same population, with a number of its own.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(on_insert = join, on_discard = leave)]
#[require(Mode, HasGradient, Draws)]
pub struct Model {
    /// The population's entity.
    pub population: Entity,
    /// The model's number, which never changes: it seeds the random numbers.
    pub number: u64,
    /// The model's place in [`Population::models`]: the model axis of every array.
    pub index: u32,
    /// Its structure, as it was when it was last signed.
    pub blueprint: BlueprintId,
}

/// The index of a model that is being put together or is only there to reserve memory.
pub const NOT_A_MEMBER: u32 = u32::MAX;

/// A module's name in its parent: `0`, `fc1`.
///
/// Source: the keys of torch's `named_children()`.
#[derive(Component, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[component(immutable, summary_tick, on_insert = tell_change)]
pub struct ModuleName(pub Box<str>);

/// What the columns of a module's entity hold, as of when it was last signed: moves and is cloned with
/// them.
///
/// Kept by neurarch.
#[derive(Component, Clone, Debug)]
pub struct Columned(Arc<Contents>);

impl Columned {
    /// Says that the columns of an entity hold this.
    pub fn new(contents: Arc<Contents>, _: Keeper) -> Self {
        Columned(contents)
    }

    /// Returns what they hold.
    pub fn contents(&self) -> &Arc<Contents> {
        &self.0
    }

    /// Says that they hold something else from now on.
    pub fn set(&mut self, contents: Arc<Contents>, _: Keeper) {
        self.0 = contents;
    }
}

/// Takes a clone in: the model that it was copied from has its place already.
fn join(mut world: DeferredWorld<'_>, context: HookContext) {
    let entity = context.entity;
    let Some(&model) = world.get::<Model>(entity) else {
        return;
    };
    if model.index == NOT_A_MEMBER {
        return;
    }
    let Some(mut population) = world.get_mut::<Population>(model.population) else {
        return;
    };
    if population.models().get(model.index as usize) == Some(&entity) {
        return;
    }
    let (index, number) = population.take_in(entity);
    population.await_signing(entity);
    if let Some(mut model) = world.get_mut::<Model>(entity) {
        *model = Model { index, number, blueprint: Blueprint::UNSIGNED, ..*model };
    }
}

/// Takes the model out of its population; the last model moves into the gap.
fn leave(mut world: DeferredWorld<'_>, context: HookContext) {
    let entity = context.entity;
    let Some(&model) = world.get::<Model>(entity) else {
        return;
    };
    let Some(mut population) = world.get_mut::<Population>(model.population) else {
        return;
    };
    if population.models().get(model.index as usize) != Some(&entity) {
        return;
    }
    if let Some(moved) = population.take_out(model.index)
        && let Some(mut moved) = world.get_mut::<Model>(moved)
    {
        moved.index = model.index;
    }
}
