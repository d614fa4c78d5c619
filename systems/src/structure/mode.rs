//! Toggles what a model runs: [`train`], [`eval`], [`requires_grad_`], [`set_active`]; and what a forward pass
//! keeps, and in which precision it runs: [`no_grad`], [`autocast`].
//!
//! Each takes a population, for all of its models, or an entity of a model, for the module there and all
//! below it. Only bits change; no weight moves.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{AutocastMode, GradMode, Mode};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::autocast::{Autocast, Device};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;

use crate::errors::AccessError;
use crate::errors::SignError;
use crate::errors::StepError;
use crate::structure::access;
use crate::structure::population::population;
use crate::structure::root;
use crate::structure::sign;
use crate::structure::spot;

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

/// Runs `run`, in which forward passes keep nothing for [`backward`](crate::execute::step::backward()): they are faster
/// and need less memory. Training steps are not concerned.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::mode::no_grad;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::execute::step;
/// # let mut world = World::new();
/// # let brains = spawn_population(&mut world, &Linear::new(3, 2), 10, 10, 0, Dtype::F32)?;
/// let x = ndarray::Array3::<f32>::ones((10, 4, 3));
/// let y = no_grad(&mut world, |world| step::forward(world, brains, &x))?;
/// assert!(step::backward_from(&mut world, brains, &y).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.no_grad`.
pub fn no_grad<R>(world: &mut World, run: impl FnOnce(&mut World) -> R) -> R {
    let before = is_grad_enabled(world);
    set_grad_enabled(world, false);
    restoring(world, run, |world| set_grad_enabled(world, before))
}

/// Runs `run`, then `restore`: also if `run` panics.
pub(crate) fn restoring<R>(
    world: &mut World,
    run: impl FnOnce(&mut World) -> R,
    restore: impl FnOnce(&mut World),
) -> R {
    let result = catch_unwind(AssertUnwindSafe(|| run(world)));
    restore(world);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Says whether forward passes keep what [`backward`](crate::execute::step::backward()) will need, as they do at first.
///
/// Source: `torch.set_grad_enabled`.
pub fn set_grad_enabled(world: &mut World, is_enabled: bool) {
    world.insert_resource(GradMode(is_enabled));
}

/// Says whether forward passes keep what [`backward`](crate::execute::step::backward()) will need.
///
/// Source: `torch.is_grad_enabled`.
pub fn is_grad_enabled(world: &World) -> bool {
    world.get_resource::<GradMode>().is_none_or(|mode| mode.0)
}

/// Runs `run` with autocast: forward passes and losses compute what torch's lists for the CPU say in `dtype`, bf16
/// or f16. Parameters and their gradients stay as they are, and so do optimizers. With any other dtype `run` runs
/// without autocast, inside of another one as well.
///
/// Plans are kept for each way. What models give is of single precision, as their parameters are.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::mode::{autocast, is_autocast_enabled};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::execute::step;
/// # let mut world = World::new();
/// # let brains = spawn_population(&mut world, &Linear::new(3, 2), 10, 10, 0, Dtype::F32)?;
/// let x = ndarray::Array3::<f32>::ones((10, 4, 3));
/// let y = autocast(&mut world, Dtype::BF16, |world| {
///     assert!(is_autocast_enabled(world));
///     step::forward(world, brains, &x)
/// })?;
/// assert!(y.iter().all(|y| y.to_bits() & 0xffff == 0), "halves, given as singles");
/// assert!(!is_autocast_enabled(&world));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.autocast("cpu", dtype=dtype)`, which warns of other dtypes; and with `enabled=False`.
pub fn autocast<R>(world: &mut World, dtype: Dtype, run: impl FnOnce(&mut World) -> R) -> R {
    let before = autocast_mode(world);
    set_autocast_mode(world, Autocast::new(Device::Cpu, dtype));
    restoring(world, run, |world| set_autocast_mode(world, before))
}

/// Says what autocast does in forward passes and losses; at first nothing.
///
/// Source: `torch.get_autocast_dtype`.
pub fn autocast_mode(world: &World) -> Option<Autocast> {
    world.get_resource::<AutocastMode>().and_then(|mode| mode.0)
}

/// Says what autocast does from now on: the lists that it follows may be those of another device.
///
/// Source: `torch.set_autocast_enabled`, `torch.set_autocast_dtype`.
pub fn set_autocast_mode(world: &mut World, autocast: Option<Autocast>) {
    world.insert_resource(AutocastMode(autocast));
}

/// Says whether forward passes and losses run with autocast.
///
/// Source: `torch.is_autocast_enabled`.
pub fn is_autocast_enabled(world: &World) -> bool {
    autocast_mode(world).is_some()
}

/// Says whether there is autocast for a kind of device: there are lists for both.
///
/// Source: `torch.amp.is_autocast_available`.
pub fn is_autocast_available(device: Device) -> bool {
    matches!(device, Device::Cpu | Device::Cuda)
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
        for number in blueprint.numbers(position) {
            mode.frozen.set(number, !requires_grad);
        }
    })
}

/// Says whether one parameter of a model, by its dotted name, needs a gradient.
///
/// # Errors
///
/// If `root` is no model's root, or has no such parameter.
///
/// Source: `torch.Tensor.requires_grad`.
pub fn set_requires_grad(
    world: &mut World,
    root: Entity,
    name: &str,
    requires_grad: bool,
) -> Result<(), AccessError> {
    let population = world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?.population;
    sign::refresh(world, population)?;
    let (_, _, blueprint) = spot::place(world, root)?;
    let slot = access::find_slot(blueprint, name).filter(|slot| slot.role == Role::Parameter);
    let slot = slot.ok_or_else(|| AccessError::NoSuchName {
        module: blueprint.positions[0].module.type_name(),
        name: name.to_owned(),
    })?;
    let number = blueprint.number(slot.position, slot.index);
    if let Some(mut mode) = world.get_mut::<Mode>(root)
        && mode.frozen.contains(number) == requires_grad
    {
        mode.frozen.set(number, !requires_grad);
    }
    Ok(())
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
    let (of, module) = match world.get::<Population>(entity) {
        Some(_) => (entity, None),
        None => {
            let root = root::root_of(world, entity);
            (root.ok_or(SignError::NotAPopulation(entity))?.1, Some(entity))
        }
    };
    sign::refresh(world, of)?;
    let mut changed = Vec::new();
    for group in population(world, of)?.groups() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let Some(blueprint) = blueprint else { continue };
        let places = match module {
            None => group.modules[0].iter().map(|&root| (root, 0)).collect::<Vec<_>>(),
            Some(module) => {
                let positions = group.modules.iter().enumerate();
                let at = positions.flat_map(|(position, modules)| {
                    let places = modules.iter().enumerate();
                    places.filter(|(_, at)| **at == module).map(move |(place, _)| (place, position))
                });
                at.map(|(place, position)| (group.modules[0][place], position)).collect()
            }
        };
        for (root, position) in places {
            let Some(before) = world.get::<Mode>(root) else { continue };
            let mut mode = before.clone();
            change(&mut mode, blueprint, position);
            if mode != *before {
                changed.push((root, mode));
            }
        }
    }
    for (root, mode) in changed {
        if let Some(mut before) = world.get_mut::<Mode>(root) {
            *before = mode;
        }
    }
    Ok(())
}
