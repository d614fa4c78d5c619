//! Toggles what a model runs: [`train`], [`eval`], [`requires_grad_`], [`set_active`].
//!
//! Each takes a population, for all of its models, or an entity of a model, for the module there and all
//! below it. Only bits change; no weight moves.

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::Blueprint;
use neurarch_components::mode::Mode;

use crate::population::Population;
use crate::sign;
use crate::step::StepError;

/// Puts modules into training mode.
///
/// # Errors
///
/// If `entity` is neither a population nor a module of one.
///
/// Source: `torch.nn.Module.train`.
pub fn train(world: &mut World, entity: Entity) -> Result<(), StepError> {
    change(world, entity, |mode, blueprint, position| {
        blueprint.subtree(position).for_each(|position| mode.evaluating.set(position, false));
    })
}

/// Puts modules into evaluation mode.
///
/// # Errors
///
/// As [`train`].
///
/// Source: `torch.nn.Module.eval`.
pub fn eval(world: &mut World, entity: Entity) -> Result<(), StepError> {
    change(world, entity, |mode, blueprint, position| {
        blueprint.subtree(position).for_each(|position| mode.evaluating.set(position, true));
    })
}

/// Says whether parameters need gradients; without, they are frozen.
///
/// # Errors
///
/// As [`train`].
///
/// Source: `torch.nn.Module.requires_grad_`.
pub fn requires_grad_(
    world: &mut World,
    entity: Entity,
    requires_grad: bool,
) -> Result<(), StepError> {
    change(world, entity, |mode, blueprint, position| {
        let subtree = blueprint.subtree(position);
        let count = blueprint.positions[subtree.clone()].iter().map(|at| at.parameters.len());
        let first = blueprint.number(subtree.start, 0);
        for number in first..first + count.sum::<usize>() {
            mode.frozen.set(number, !requires_grad);
        }
    })
}

/// Says whether models take part. An inactive model is not visited: nothing of it changes by a bit.
///
/// # Errors
///
/// As [`train`].
pub fn set_active(world: &mut World, entity: Entity, is_active: bool) -> Result<(), StepError> {
    change(world, entity, |mode, _, _| mode.inactive = !is_active)
}

/// Changes the mode of a population's models, at the root, or of one model, at a module of it.
fn change(
    world: &mut World,
    entity: Entity,
    change: impl Fn(&mut Mode, &Blueprint, usize),
) -> Result<(), StepError> {
    let (population, at) = match world.get::<Population>(entity) {
        Some(_) => (entity, None),
        None => {
            let (population, index, position) = sign::locate(world, entity)?;
            (population, Some((index, position)))
        }
    };
    sign::refresh(world, population)?;
    let state = Population::get(world, population)?;
    let blueprint = state.blueprint().clone();
    let (roots, position) = match at {
        None => (state.models().to_vec(), 0),
        Some((index, position)) => (vec![state.models()[index]], position),
    };
    for root in roots {
        let Some(mut mode) = world.get_mut::<Mode>(root) else { continue };
        let mut changed = mode.clone();
        change(&mut changed, &blueprint, position);
        mode.set_if_neq(changed);
    }
    Ok(())
}
