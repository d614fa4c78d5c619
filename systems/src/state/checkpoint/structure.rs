//! The first model of each structure in a checkpoint: put together, signed, and compared with what the file says of it.

use std::any::TypeId;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{Draws, HasGradient, Mode};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Model, ModuleName};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use super::error::CheckpointError;
use super::index::{ColumnEntry, GroupEntry, ModuleEntry, role_of};
use super::open::{Checkpoint, paths};

/// Spawns the modules of the first model of a group, without their components.
pub(super) fn spawn(world: &mut World, modules: &[ModuleEntry]) -> Vec<Entity> {
    let mut entities: Vec<Entity> = Vec::new();
    for module in modules {
        let entity = match module.parent {
            None => world.spawn_empty().id(),
            Some(parent) => {
                let name = ModuleName(module.name.as_str().into());
                world.spawn((name, ChildOf(entities[parent as usize]))).id()
            }
        };
        entities.push(entity);
    }
    entities
}

/// Makes a model, by its root, one of the population's that has yet to be signed.
pub(super) fn join(world: &mut World, population: Entity, root: Entity) {
    let model = Model { population, number: u64::MAX, index: 0, blueprint: Blueprint::UNSIGNED };
    if let Ok(mut root) = world.get_entity_mut(root) {
        root.insert(model);
    }
}

/// Has modules do what they do when they are constructed: register hooks of their own.
pub(super) fn construct(world: &mut World, entities: &[Entity]) {
    for &entity in entities {
        let types = world.get_resource::<ModuleTypes>();
        let found = world.get_entity(entity).ok();
        let module = types.zip(found).and_then(|(types, entity)| types.module(entity));
        let Some(module) = module.map(|module| module.clone_box()) else { continue };
        if let Ok(mut entity) = world.get_entity_mut(entity) {
            module.constructed(&mut entity);
        }
    }
}

/// Returns whether a component says what is toggled on a model: signing takes a model that it does not know for a new one.
pub(super) fn is_mode(ty: TypeId) -> bool {
    [TypeId::of::<Mode>(), TypeId::of::<HasGradient>(), TypeId::of::<Draws>()].contains(&ty)
}

/// Finds the group that a model is of, and its place.
pub(super) fn group_of(world: &World, population: Entity, root: Entity) -> Option<(usize, Group)> {
    let blueprint = world.get::<Model>(root)?.blueprint;
    let mut groups = world.get::<Population>(population)?.groups().iter().enumerate();
    let of = groups.find(|(_, group)| group.blueprint == blueprint);
    of.map(|(place, group)| (place, group.clone()))
}

/// Lists the modules of some members of a group, by position and member.
pub(super) fn modules(
    group: &Group,
    roots: &[Entity],
    indices: &[u32],
) -> Option<Vec<Vec<Entity>>> {
    let places = indices.iter().zip(roots).map(|(index, root)| {
        let place = group.members.binary_search(index).ok()?;
        (group.modules[0].get(place) == Some(root)).then_some(place)
    });
    let places = places.collect::<Option<Vec<_>>>()?;
    let of = |modules: &Vec<Entity>| places.iter().map(|&place| modules[place]).collect();
    Some(group.modules.iter().map(of).collect())
}

/// Lists the slots of the columns that a file has of a group.
///
/// # Errors
///
/// [`CheckpointError::Structure`] if the modules declare others.
pub(super) fn slots(
    checkpoint: &Checkpoint,
    entry: &GroupEntry,
    group: &Group,
) -> Result<Vec<Slot>, CheckpointError> {
    let modules = entry.modules.of(&checkpoint.index().modules);
    let paths = paths(modules);
    if modules.len() != group.contents.len() {
        let (expected, given) = (group.contents.len(), modules.len());
        let message = format!("its model has {expected} modules, the file {given}");
        return Err(CheckpointError::Structure { path: paths[0].clone(), message });
    }
    let mut slots = Vec::new();
    for (position, (module, contents)) in modules.iter().zip(&group.contents).enumerate() {
        let wrong = |message| CheckpointError::Structure { path: paths[position].clone(), message };
        let columns = module.columns.of(&checkpoint.index().columns);
        let mut own = 0;
        for column in columns {
            let slot = slot(column, position, contents);
            let slot = slot.ok_or_else(|| {
                wrong(format!("the module has no '{}' like the one of the file", column.name))
            })?;
            own += usize::from(matches!(slot.role, Role::Parameter | Role::Buffer));
            slots.push(slot);
        }
        let all = contents.parameters.iter().chain(&contents.buffers);
        let expected = all.filter(|of| of.has_column()).count();
        if own != expected {
            let message = format!("the module has {expected} tensors, the file {own}");
            return Err(wrong(message));
        }
    }
    Ok(slots)
}

/// Finds the slot of a column in what a module declares.
fn slot(column: &ColumnEntry, position: usize, contents: &Contents) -> Option<Slot> {
    let (role, ty) = (role_of(column.role)?, column.ty()?);
    let (name, among) = (
        column.name.clone(),
        match role {
            Role::Buffer => &contents.buffers,
            _ => &contents.parameters,
        },
    );
    let (index, is_there) = match role {
        Role::Steps => (0, ty == Type::new(Dtype::F32, [contents.parameters.len()])),
        _ => {
            let index = among.iter().position(|of| of.name == name)?;
            (index, among[index].has_column() && among[index].ty == ty)
        }
    };
    is_there.then_some(Slot { name, role, position, index, ty })
}
