//! [`convert_in_place`]: the rows of a whole group are converted where they lie, and its models stay where they are.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Columned, Model};
use neurarch_kernels::cpu::convert;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};

use super::wanted::{OfGroup, list_in};
use crate::storage::bind::{Binder, KEEPER};
use crate::storage::members::listed;
use crate::storage::visit::visit;

/// Converts the models of a group where they are. Gives back what cannot be done so: they are not the whole group, rows are
/// too short, or the population has a group of that structure already.
pub(super) fn convert_in_place(
    world: &mut World,
    population: Entity,
    of: OfGroup,
) -> Result<(), OfGroup> {
    if of.positions.is_empty() {
        return Ok(());
    }
    let Some(contents) = retyped(world, population, &of) else { return Err(of) };
    if convert_rows(world, population, &of).is_none() {
        return Err(of);
    }
    give(world, population, of.group, of.blueprint, contents);
    Ok(())
}

/// Returns what the columns of a group hold when it has the types that are wanted, in the rows that there are.
fn retyped(world: &World, population: Entity, of: &OfGroup) -> Option<Vec<Arc<Contents>>> {
    let found = world.get::<Population>(population)?;
    let known = world.get_resource::<Blueprints>()?.find(&of.blueprint);
    if !of.is_whole || found.groups().iter().any(|group| Some(group.blueprint) == known) {
        return None;
    }
    let contents = found.groups()[of.group].contents.iter().enumerate();
    let contents = contents.map(|(position, own)| {
        if !of.positions.contains(&position) {
            return Some(own.clone());
        }
        let at = &of.blueprint.positions[position];
        own.retyped(at.parameters.clone(), at.buffers.clone()).map(Arc::new)
    });
    contents.collect()
}

/// Converts the rows of a group's columns: of parameters, buffers, gradients and optimizer state. `None` if they cannot be
/// bound; nothing is converted then.
fn convert_rows(world: &mut World, population: Entity, of: &OfGroup) -> Option<()> {
    let found = world.get::<Population>(population)?;
    let (models, group) = (found.len(), &found.groups()[of.group]);
    let changed = of.positions.iter().flat_map(|&position| group.contents[position].slots());
    let columns = changed.filter(|slot| slot.role != Role::Steps).filter_map(|slot| {
        let at = &of.blueprint.positions[slot.position];
        let among = if slot.role == Role::Buffer { &at.buffers } else { &at.parameters };
        let new = among.get(slot.index)?.ty.dtype;
        (new != slot.ty.dtype).then_some((slot, new))
    });
    let (slots, types): (Vec<Slot>, Vec<Dtype>) = columns.unzip();
    let members = listed(models, &group.members);
    let count = group.members.len();
    let mut binder = Binder::default();
    let written = vec![true; slots.len()];
    let bound = binder.bind(world, population, of.group, &members, &slots, &written).ok()?;
    visit(bound, &mut vec![(); count], |member, ()| {
        for (number, (slot, &new)) in slots.iter().zip(&types).enumerate() {
            let (old, numel) = (slot.ty.dtype, slot.ty.shape.numel());
            let bytes = numel * old.size_bytes().max(new.size_bytes());
            convert::convert_in_place(member.row_mut(number, bytes), numel, old, new);
        }
    });
    Some(())
}

/// Gives a group and all its members another structure.
fn give(
    world: &mut World,
    population: Entity,
    number: usize,
    blueprint: Blueprint,
    contents: Vec<Arc<Contents>>,
) {
    let changed = world.resource_scope(|world, mut blueprints: Mut<Blueprints>| {
        let mut found = world.get_mut::<Population>(population)?;
        let group: &mut Group = found.groups_mut(KEEPER).get_mut(number)?;
        let before = group.contents.clone();
        blueprints.retype_group(group, blueprint, contents, KEEPER);
        let changed = group.contents.iter().zip(&before).zip(&group.modules);
        let changed = changed.filter(|((own, before), _)| !Arc::ptr_eq(own, before));
        let changed = changed.map(|((own, _), modules)| (own.clone(), modules.clone()));
        Some((group.blueprint, group.modules[0].clone(), changed.collect::<Vec<_>>()))
    });
    let Some((id, roots, changed)) = changed else { return };
    for root in roots {
        if let Some(mut model) = world.get_mut::<Model>(root) {
            model.blueprint = id;
        }
    }
    for (contents, modules) in changed {
        for module in modules {
            if let Some(mut columned) = world.get_mut::<Columned>(module) {
                columned.set(contents.clone(), KEEPER);
            }
        }
    }
}

/// Has models that are spawned into an empty population from now on be of a type.
pub(super) fn restructure(
    world: &mut World,
    population: Entity,
    dtype: Dtype,
    floating: Option<Dtype>,
) {
    let Some(found) = world.get::<Population>(population) else { return };
    let empty = found.groups().iter().enumerate().filter(|(_, group)| group.members.is_empty());
    for number in empty.map(|(number, _)| number).collect::<Vec<_>>() {
        let Some(found) = world.get::<Population>(population) else { return };
        let group = &found.groups()[number];
        let mut blueprint = Blueprint::clone(group.structure());
        for at in &mut blueprint.positions {
            for of in at.parameters.iter_mut().chain(&mut at.buffers) {
                if of.ty.dtype.is_float() {
                    of.ty.dtype = at.module.converted_dtype(&of.name, dtype);
                }
            }
            if let Some(list) = floating.and_then(|dtype| list_in(&*at.module, dtype)) {
                at.module = Box::new(list);
            }
        }
        let contents = blueprint.positions.iter().zip(&group.contents).map(|(at, own)| {
            let place = (own.position, own.first_parameter);
            let mut contents = Contents::new(place, at.parameters.clone(), at.buffers.clone());
            contents.number = own.number;
            contents.add_companions(own.companions.iter().copied());
            Arc::new(contents)
        });
        let contents = contents.collect();
        give(world, population, number, blueprint, contents);
    }
}
