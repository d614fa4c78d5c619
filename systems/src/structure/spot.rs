//! [`Spot`]: where a module stands in a model that is settled.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tie::SharedModule;
use neurarch_components::population::tree::{Columned, Model};

use crate::errors::AccessError;
use crate::structure::membership;
use crate::structure::root::root_of;
use crate::structure::sign;

/// Where a module stands, in a model that is settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) population: Entity,
    /// The group's place in the population's list.
    pub(crate) group: usize,
    /// The model's place in the group.
    pub(crate) member: usize,
    /// The module's place in the blueprint.
    pub(crate) position: usize,
}

impl Spot {
    pub(crate) fn group<'w>(&self, world: &'w World) -> &'w Group {
        let found = world.get::<Population>(self.population).expect("it was found there");
        &found.groups()[self.group]
    }

    pub(crate) fn blueprint(&self, world: &World) -> Arc<Blueprint> {
        let blueprint = self.group(world).blueprint;
        let found = world.resource::<Blueprints>().get(blueprint);
        found.expect("a group holds its blueprint").clone()
    }
}

/// Returns the module that an entity is or stands for: the owner of a second name.
pub(crate) fn owner(world: &World, module: Entity) -> Entity {
    world.get::<SharedModule>(module).map_or(module, |shared| shared.0)
}

/// Brings the model of a module up to date, and finds the module there.
pub(crate) fn locate(world: &mut World, module: Entity) -> Result<Spot, AccessError> {
    let not_a_module = || AccessError::NotAModule(module);
    let (root, population) = root_of(world, owner(world, module)).ok_or_else(not_a_module)?;
    sign::refresh_model(world, population, root)?;
    find(world, module)
}

/// Finds a module in its model, which is settled.
pub(crate) fn find(world: &World, module: Entity) -> Result<Spot, AccessError> {
    let not_a_module = || AccessError::NotAModule(module);
    let owner = owner(world, module);
    let (root, population) = root_of(world, owner).ok_or_else(not_a_module)?;
    let (group, member, _) = place(world, root)?;
    let position = world.get::<Columned>(owner).ok_or_else(not_a_module)?.contents().position;
    let modules = group.modules.get(position).and_then(|modules| modules.get(member));
    if modules != Some(&owner) {
        return Err(not_a_module());
    }
    let blueprint = world.get::<Model>(root).map(|model| model.blueprint);
    let found = world.get::<Population>(population).ok_or_else(not_a_module)?;
    let group = found.groups().iter().position(|group| Some(group.blueprint) == blueprint);
    Ok(Spot { population, group: group.ok_or_else(not_a_module)?, member, position })
}

/// Finds a model that is settled: its group, its place there, its structure. That other models of the population left
/// since does not matter.
pub(crate) fn place(
    world: &World,
    root: Entity,
) -> Result<(&Group, usize, &Arc<Blueprint>), AccessError> {
    let not_a_model = || AccessError::NotAModel(root);
    let model = world.get::<Model>(root).ok_or_else(not_a_model)?;
    let population = world.get::<Population>(model.population).ok_or_else(not_a_model)?;
    let (group, member) = membership::place(population, root, model).ok_or_else(not_a_model)?;
    let group = &population.groups()[group];
    let blueprint = world.resource::<Blueprints>().get(model.blueprint);
    Ok((group, member, blueprint.ok_or_else(not_a_model)?))
}
