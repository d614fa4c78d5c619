//! Toggles what a model runs: [`train`], [`eval`], [`requires_grad_`], [`set_active`]; and what a forward pass
//! keeps, and in which precision it runs: [`no_grad`], [`autocast`].
//!
//! Each takes a [`Target`]: a population, for all of its models, a path in all of them, or an entity of a model, for the
//! module there and all below it. Only bits change; no weight moves.

pub mod checkpoints;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{AutocastMode, GradMode, Mode};
use neurarch_kernels::ir::autocast::Autocast;
use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::errors::AccessError;
use crate::structure::target::Target;
use crate::structure::{access, spot};

/// Puts modules into training mode.
///
/// # Errors
///
/// If there is no such module.
///
/// Source: `torch.nn.Module.train`.
pub fn train(world: &mut World, target: impl Into<Target>) -> Result<(), AccessError> {
    change(world, target, |mode, blueprint, position| {
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
pub fn eval(world: &mut World, target: impl Into<Target>) -> Result<(), AccessError> {
    change(world, target, |mode, blueprint, position| {
        blueprint.subtree(position).for_each(|position| mode.evaluating.set(position, true));
    })
}

/// Says whether a module is in training mode; those below it stay in theirs.
///
/// # Errors
///
/// As [`train`].
///
/// Source: `torch.nn.Module.training`, assigned.
pub fn set_training(
    world: &mut World,
    target: impl Into<Target>,
    is_training: bool,
) -> Result<(), AccessError> {
    change(world, target, |mode, _, position| mode.evaluating.set(position, !is_training))
}

/// Returns whether a module of one model is in training mode.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `torch.nn.Module.training`.
pub fn is_training(world: &mut World, module: Entity) -> Result<bool, AccessError> {
    let at = spot::locate(world, module)?;
    let mode = world.get::<Mode>(at.group(world).modules[0][at.member]);
    Ok(mode.is_none_or(|mode| !mode.evaluating.contains(at.position)))
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

/// Returns whether forward passes keep what [`backward`](crate::execute::step::backward()) will need.
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

/// Returns whether forward passes and losses run with autocast.
///
/// Source: `torch.is_autocast_enabled`.
pub fn is_autocast_enabled(world: &World) -> bool {
    autocast_mode(world).is_some()
}

/// Returns whether there is autocast for a kind of device: there are lists for both.
///
/// Source: `torch.amp.is_autocast_available`.
pub fn is_autocast_available(device: Device) -> bool {
    matches!(device, Device::Cpu | Device::Cuda(_))
}

/// Says whether parameters need gradients; without, they are frozen.
///
/// # Errors
///
/// As [`train`], and if one that is to need a gradient is of integers. Nothing is changed then.
///
/// Source: `torch.nn.Module.requires_grad_`.
pub fn requires_grad_(
    world: &mut World,
    target: impl Into<Target>,
    requires_grad: bool,
) -> Result<(), AccessError> {
    let target = target.into();
    for aim in target.clone().aims(world)? {
        let blueprint = aim.blueprint(world);
        for (position, index) in blueprint.parameters_below(aim.position) {
            let name = &blueprint.positions[position].parameters[index].name;
            if let Some(slot) = blueprint.parameter(position, name) {
                check_dtype(&slot, requires_grad)?;
            }
        }
    }
    change(world, target, |mode, blueprint, position| {
        for number in blueprint.numbers(position) {
            mode.frozen.set(number, !requires_grad);
        }
    })
}

/// Says whether one parameter, by its dotted name below a module, needs a gradient.
///
/// # Errors
///
/// If there is no such module or parameter. Nothing is changed then.
///
/// Source: `torch.Tensor.requires_grad`, assigned.
pub fn set_requires_grad(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    requires_grad: bool,
) -> Result<(), AccessError> {
    let target = target.into();
    for aim in target.clone().aims(world)? {
        let (_, slot) = parameter_below(&aim.blueprint(world), aim.position, name)?;
        check_dtype(&slot, requires_grad)?;
    }
    change(world, target, |mode, blueprint, position| {
        if let Ok((number, _)) = parameter_below(blueprint, position, name) {
            mode.frozen.set(number, !requires_grad);
        }
    })
}

/// Refuses gradients of integers.
fn check_dtype(slot: &Slot, requires_grad: bool) -> Result<(), AccessError> {
    match requires_grad && !slot.ty.dtype.is_float() {
        true => Err(AccessError::RequiresGrad { name: slot.name.clone() }),
        false => Ok(()),
    }
}

/// Returns whether a parameter needs a gradient, by its dotted name below a module of one model.
///
/// # Errors
///
/// If there is no such module or parameter.
///
/// Source: `torch.Tensor.requires_grad`.
pub fn requires_grad(world: &mut World, module: Entity, name: &str) -> Result<bool, AccessError> {
    let at = spot::locate(world, module)?;
    let (number, _) = parameter_below(&at.blueprint(world), at.position, name)?;
    let mode = world.get::<Mode>(at.group(world).modules[0][at.member]);
    Ok(mode.is_none_or(|mode| !mode.frozen.contains(number)))
}

/// Finds a parameter by a name that is dotted from a position on; gives its number, too.
fn parameter_below(
    blueprint: &Blueprint,
    position: usize,
    name: &str,
) -> Result<(usize, Slot), AccessError> {
    let slot = access::find_slot_below(blueprint, position, name);
    let slot = slot.filter(|slot| slot.role == Role::Parameter);
    let slot = slot.ok_or_else(|| AccessError::NoSuchName {
        module: blueprint.positions[position].module.type_name(),
        name: name.to_owned(),
    })?;
    Ok((blueprint.number(slot.position, slot.index), slot))
}

/// Says whether models take part. An inactive model is not visited: nothing of it changes by a bit.
///
/// # Errors
///
/// As [`train`].
pub fn set_active(
    world: &mut World,
    target: impl Into<Target>,
    is_active: bool,
) -> Result<(), AccessError> {
    change(world, target, |mode, _, _| mode.inactive = !is_active)
}

/// Changes the modes of the models that a target names.
fn change(
    world: &mut World,
    target: impl Into<Target>,
    change: impl Fn(&mut Mode, &Blueprint, usize),
) -> Result<(), AccessError> {
    let mut changed = Vec::new();
    for aim in target.into().aims(world)? {
        let blueprint = aim.blueprint(world);
        for root in aim.entities(world, 0) {
            let Some(before) = world.get::<Mode>(root) else { continue };
            let mut mode = before.clone();
            change(&mut mode, &blueprint, aim.position);
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
