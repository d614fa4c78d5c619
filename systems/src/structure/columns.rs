//! The columns of a group: gradients and optimizer state come and go in all of its members at once.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::{Columns, row, row_mut};
use neurarch_components::population::Population;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::tree::Columned;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::storage::bind::KEEPER;
use crate::storage::widen::widen;
use crate::structure::spawn;

/// Adds columns for `slots`, companions of parameters, to every member of a group that lacks them, their rows
/// zero: one bulk move, when an optimizer comes or gradients are kept for the first time. Models that join
/// the group later have them from the start, and those of later groups for all their parameters. Says
/// whether any was missing.
pub(crate) fn add_columns(
    world: &mut World,
    population: Entity,
    group: usize,
    slots: &[Slot],
) -> bool {
    let known = world.get::<Population>(population).and_then(|found| found.groups().get(group));
    let is_missing = |slot: &&Slot| {
        let contents = known.and_then(|group| group.contents.get(slot.position));
        !matches!(slot.role, Role::Parameter | Role::Buffer)
            && contents.is_some_and(|contents| !contents.companions.contains(&companion(slot)))
    };
    let slots: Vec<_> = slots.iter().filter(is_missing).collect();
    if slots.is_empty() {
        return false;
    }
    let Some(mut found) = world.get_mut::<Population>(population) else { return false };
    slots.iter().for_each(|slot| found.add_companion(slot.role, KEEPER));
    let companions = slots.into_iter().map(|slot| (slot.position, companion(slot)));
    let companions: Vec<_> = companions.collect();
    let is_wider = widen(world, population, group, &companions);
    if is_wider {
        spawn::reserve(world, population);
    }
    is_wider
}

/// What [`Contents::companions`] calls a slot.
fn companion(slot: &Slot) -> (Role, usize) {
    (slot.role, if slot.role == Role::Steps { 0 } else { slot.index })
}

/// Takes the companions of these roles off every member of a group: one bulk move, when an optimizer goes.
pub fn remove_columns(world: &mut World, population: Entity, group: usize, roles: &[Role]) {
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    found.remove_companions(roles, KEEPER);
    let Some(group) = found.groups_mut(KEEPER).get_mut(group) else { return };
    let mut changes = Vec::new();
    for (contents, modules) in group.contents.iter_mut().zip(&group.modules) {
        let mut to = Contents::clone(contents);
        to.companions.retain(|(role, _)| !roles.contains(role));
        if to.companions != contents.companions {
            let from = std::mem::replace(contents, Arc::new(to));
            changes.push((modules.clone(), from, contents.clone()));
        }
    }
    for (entities, from, to) in &changes {
        let kept: Vec<_> = to.keys().collect();
        let gone = from.keys().filter(|key| !kept.contains(key));
        let gone: Vec<_> = gone.filter_map(|key| Columns::find(world, key)).collect();
        for &entity in entities {
            let Ok(mut entity) = world.get_entity_mut(entity) else { continue };
            entity.remove_by_ids(&gone);
            if let Some(mut columned) = entity.get_mut::<Columned>() {
                columned.set(to.clone(), KEEPER);
            }
        }
    }
    if !changes.is_empty() {
        spawn::reserve(world, population);
    }
}

/// Writes the numbers of a module's own parameter or buffer, its population just signed.
pub(crate) fn write_own(world: &mut World, module: Entity, role: Role, name: &str, numbers: &[u8]) {
    let columned = world.get::<Columned>(module);
    let Some(contents) = columned.map(|columned| columned.contents().clone()) else { return };
    let among = if role == Role::Buffer { &contents.buffers } else { &contents.parameters };
    let Some(index) = among.iter().position(|of| of.name == name) else { return };
    if let Some(row) = own_row_mut(world, module, (role, index)) {
        row[..numbers.len()].copy_from_slice(numbers);
    }
}

/// Views the row of a module's own column, by role and place; `None` if it has no such column.
pub(crate) fn own_row(
    world: &World,
    module: Entity,
    (role, index): (Role, usize),
) -> Option<&[u8]> {
    row(world, module, world.get::<Columned>(module)?.contents().key(role, index))
}

/// [`own_row`], to write to; it is marked changed.
pub(crate) fn own_row_mut(
    world: &mut World,
    module: Entity,
    (role, index): (Role, usize),
) -> Option<&mut [u8]> {
    let key = world.get::<Columned>(module)?.contents().key(role, index);
    row_mut(world, module, key)
}
