//! Refitting: a module's entity gets the columns of its new position, and keeps the numbers of what is still
//! there.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::{Columns, RowBundle, row};
use neurarch_components::module::blueprint::Parameter;
use neurarch_components::module::mode::{Bits, Checkpoints, HasGradient, Mode};
use neurarch_components::population::contents::Contents;
use neurarch_components::population::tree::Columned;
use neurarch_kernels::cpu::convert::convert_in_place;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::AlignedBytes;

use crate::storage::bind::KEEPER;

/// Gives a module's entity the columns and the position number of `to`. A parameter or buffer of one name
/// and shape keeps its numbers, its gradient and its optimizer state, converted to its element type; what is new is zero.
///
/// Gives the parameters and buffers that are new.
pub(crate) fn refit(world: &mut World, entity: Entity, to: &Arc<Contents>) -> Vec<(Role, usize)> {
    let from = world.get::<Columned>(entity).map(|columned| columned.contents().clone());
    if from.as_ref().is_none_or(|from| !Arc::ptr_eq(from, to)) {
        let mut bundle = RowBundle::new(world, to.keys(), Some(to.number));
        if let Some(from) = &from {
            fill(world, entity, from, to, &mut bundle);
        }
        let stale = Columns::all(world).to_vec();
        let Ok(mut entity) = world.get_entity_mut(entity) else { return Vec::new() };
        entity.remove_by_ids(&stale);
        bundle.insert(&mut entity);
        match entity.get_mut::<Columned>() {
            Some(mut columned) => columned.set(to.clone(), KEEPER),
            None => drop(entity.insert(Columned::new(to.clone(), KEEPER))),
        }
    }
    let from = from.as_deref();
    let columns = to.columns().filter(|(role, ..)| matches!(role, Role::Parameter | Role::Buffer));
    let is_new = |&(role, index): &(Role, usize)| {
        from.is_none_or(|from| source(from, to, role, index).is_none())
    };
    columns.map(|(role, index, _)| (role, index)).filter(is_new).collect()
}

/// Returns whether two are the same parameter or buffer, of any element types.
fn is_same(one: &Parameter, other: &Parameter) -> bool {
    let is_converted = || {
        let ty = Type { dtype: other.ty.dtype, shape: one.ty.shape.clone() };
        !one.uninitialized && Parameter { ty, ..one.clone() } == *other
    };
    one == other || one.name == other.name && is_converted()
}

/// Finds the place in `from` of what is at `index` in `to`: of one name and shape.
fn source(from: &Contents, to: &Contents, role: Role, index: usize) -> Option<usize> {
    if role == Role::Buffer {
        return from.buffers.iter().position(|buffer| is_same(buffer, &to.buffers[index]));
    }
    let mut all = from.parameters.iter();
    let place = all.position(|parameter| is_same(parameter, &to.parameters[index]))?;
    (role == Role::Parameter || from.companions.contains(&(role, place))).then_some(place)
}

/// Lists the companions in `from` of the parameters that stay, as they are called in `to`.
pub(crate) fn kept_companions(from: &Contents, to: &Contents) -> Vec<(Role, usize)> {
    let index =
        |place: usize| to.parameters.iter().position(|own| is_same(own, &from.parameters[place]));
    let kept = from.companions.iter().filter_map(|&(role, place)| match role {
        Role::Steps => {
            (0..from.parameters.len()).any(|place| index(place).is_some()).then_some((role, 0))
        }
        _ => Some((role, index(place)?)),
    });
    kept.collect()
}

/// Copies the rows that stay into the bundle, in the element types that they have there.
fn fill(world: &World, entity: Entity, from: &Contents, to: &Contents, bundle: &mut RowBundle) {
    for (role, index, ty) in to.columns() {
        if role == Role::Steps {
            fill_steps(world, entity, from, to, bundle);
        } else if let Some(place) = source(from, to, role, index)
            && let Some(row) = row(world, entity, from.key(role, place))
            && let Some(to) = bundle.row_mut(to.key(role, index))
        {
            let among = if role == Role::Buffer { &from.buffers } else { &from.parameters };
            let (old, new) = (&among[place].ty, ty.dtype);
            if old.dtype == new {
                let bytes = old.size_bytes();
                to[..bytes].copy_from_slice(&row[..bytes]);
            } else {
                let (old_bytes, new_bytes) = (old.size_bytes(), ty.size_bytes());
                let mut numbers = AlignedBytes::new(old_bytes.max(new_bytes));
                numbers.bytes_mut()[..old_bytes].copy_from_slice(&row[..old_bytes]);
                convert_in_place(numbers.bytes_mut(), old.shape.numel(), old.dtype, new);
                to[..new_bytes].copy_from_slice(&numbers.bytes()[..new_bytes]);
            }
        }
    }
}

/// Copies the counts of the parameters that stay.
fn fill_steps(
    world: &World,
    entity: Entity,
    from: &Contents,
    to: &Contents,
    bundle: &mut RowBundle,
) {
    let key =
        |of: &Contents| of.companions.contains(&(Role::Steps, 0)).then(|| of.key(Role::Steps, 0));
    let counts = key(from).and_then(|key| row(world, entity, key));
    let (Some(counts), Some(row)) = (counts, key(to).and_then(|key| bundle.row_mut(key))) else {
        return;
    };
    const COUNT_BYTES: usize = size_of::<f32>();
    for index in 0..to.parameters.len() {
        if let Some(place) = source(from, to, Role::Parameter, index) {
            row[index * COUNT_BYTES..][..COUNT_BYTES]
                .copy_from_slice(&counts[place * COUNT_BYTES..][..COUNT_BYTES]);
        }
    }
}

/// Takes the position's number off a module's entity that is part of no model any more, if it still has that
/// number. Its columns stay: it may become part of another.
pub(crate) fn strip_markers(world: &mut World, entity: Entity, number: u32) {
    let markers = Columns::all_markers(world).to_vec();
    let Ok(mut entity) = world.get_entity_mut(entity) else { return };
    let Some(mut columned) = entity.get_mut::<Columned>() else { return };
    if columned.contents().number == number {
        let mut contents = Contents::clone(columned.contents());
        contents.number = 0;
        columned.set(Arc::new(contents), KEEPER);
        entity.remove_by_ids(&markers);
    }
}

/// Returns whether a parameter has other numbers from now on and is as frozen as it was: it is shared or is so no more, gets
/// its shape, or another element type.
fn is_changed(from: &Parameter, to: &Parameter) -> bool {
    let (ty, shared, uninitialized) = (to.ty.clone(), to.shared, to.uninitialized);
    from != to
        && (from.uninitialized || from.ty.shape == to.ty.shape)
        && Parameter { ty, shared, uninitialized, ..from.clone() } == *to
}

/// Moves the bits of a model's modules and parameters to their new places. `old` says for each position
/// what its entity held before, if it was part of the model. What is new is as in a new model.
pub(crate) fn remap_modes(
    world: &mut World,
    root: Entity,
    old: &[Option<Arc<Contents>>],
    new: &[Arc<Contents>],
) {
    let mut positions = Vec::new();
    let (mut parameters, mut changed) = (Vec::new(), Vec::new());
    let mut frozen = Vec::new();
    for (to, from) in new.iter().zip(old) {
        let at_first = to.parameters.iter().enumerate().filter(|(_, of)| !of.requires_grad);
        frozen.extend(at_first.map(|(index, _)| to.first_parameter + index));
        let Some(from) = from else { continue };
        positions.push((from.position, to.position));
        let kept = (0..to.parameters.len()).filter_map(|index| {
            let place = source(from, to, Role::Parameter, index)?;
            Some((from.first_parameter + place, to.first_parameter + index))
        });
        parameters.extend(kept);
        changed.extend(to.parameters.iter().enumerate().filter_map(|(index, own)| {
            let place = from.parameters.iter().position(|of| is_changed(of, own))?;
            Some((from.first_parameter + place, to.first_parameter + index))
        }));
    }
    let moved = |bits: &Bits, places: &[(usize, usize)]| -> Bits {
        places.iter().filter(|(from, _)| bits.contains(*from)).map(|&(_, to)| to).collect()
    };
    if let Some(mut mode) = world.get_mut::<Mode>(root) {
        let there = [&parameters[..], &changed].concat();
        let mut still_frozen = moved(&mode.frozen, &there);
        frozen.retain(|number| there.iter().all(|(_, to)| to != number));
        frozen.into_iter().for_each(|number| still_frozen.set(number, true));
        let to = Mode {
            evaluating: moved(&mode.evaluating, &positions),
            frozen: still_frozen,
            inactive: mode.inactive,
            checkpoints: mode
                .checkpoints
                .as_deref()
                .map(|of| {
                    let [modules, begins, continues] = [&of.modules, &of.begins, &of.continues]
                        .map(|bits| moved(bits, &positions));
                    Box::new(Checkpoints { modules, begins, continues })
                })
                .filter(|of| !of.is_empty()),
            hooked: mode.hooked,
            cached: mode.cached,
        };
        mode.set_if_neq(to);
    }
    if let Some(mut gradients) = world.get_mut::<HasGradient>(root) {
        let to = HasGradient(moved(&gradients.0, &parameters));
        gradients.set_if_neq(to);
    }
}
