//! A linear layer and the ReLU behind it as one module, and back.

use bevy_ecs::prelude::*;
use neurarch_components::layers::{FusedLinearReLU, Identity, Linear, ReLU};
use neurarch_components::module::mode::Mode;
use neurarch_components::population::tree::{Columned, ModuleName};

use super::{FuseError, Pair, pairs, refresh};
use crate::edit::parametrize::site::{Member, child, modules};
use crate::execute::hooks::Target;
use crate::structure::spot::locate;

/// The name of the linear layer in a [`FusedLinearReLU`].
const LINEAR: &str = "linear";

/// Makes the linear layer at path `linear` and the ReLU at path `relu` one [`FusedLinearReLU`], whose child `linear` is the
/// layer itself: with its numbers, gradients, optimizer state and hooks. An `Identity` takes the place of the ReLU.
///
/// # Errors
///
/// [`FuseError`].
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::fuse::*;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 8)).push(ReLU).push(Linear::new(8, 2));
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// let first = world.get::<Population>(brains).unwrap().models()[0];
/// fuse_linear_relu(&mut world, first, "0", "1")?; // One model of three: its weight is `0.linear.weight` now.
/// fuse_linear_relu(&mut world, first, "0", "1").unwrap_err();
/// unfuse_linear_relu(&mut world, first, "0", "1")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.ao.quantization.fuse_modules` with a `Linear` and a `ReLU`.
pub fn fuse_linear_relu(
    world: &mut World,
    target: impl Into<Target>,
    linear: &str,
    relu: &str,
) -> Result<(), FuseError> {
    let pairs = pairs(world, target, [linear, relu])?;
    for [first, second] in entities(&pairs) {
        let is_below = world.get::<ChildOf>(first).is_some();
        check(is_below && world.get::<Linear>(first).is_some(), linear, "a Linear")?;
        check(world.get::<ReLU>(second).is_some(), relu, "a ReLU")?;
    }
    let evaluating: Vec<_> =
        members(&pairs).map(|(pair, member)| is_evaluating(world, pair, member)).collect();
    for [first, second] in entities(&pairs) {
        wrap(world, first);
        world.entity_mut(second).insert(Identity);
    }
    if let Err(error) = refresh(world, pairs.iter()) {
        for [first, second] in entities(&pairs) {
            if let Some(fused) = world.get::<ChildOf>(first).map(ChildOf::parent) {
                unwrap(world, fused, first);
            }
            world.entity_mut(second).insert(ReLU);
        }
        refresh(world, pairs.iter())?;
        return Err(error);
    }
    // The new module is in the mode of the layer.
    for ((pair, member), is_evaluating) in members(&pairs).zip(evaluating) {
        let [first, _] = pair.entities(member);
        let fused = world.get::<ChildOf>(first).map(ChildOf::parent);
        let columned = fused.and_then(|fused| world.get::<Columned>(fused));
        let position = columned.map(|columned| columned.contents().position);
        if let (Some(position), Some(mut mode)) = (position, world.get_mut::<Mode>(member.root)) {
            mode.evaluating.set(position, is_evaluating);
        }
    }
    Ok(())
}

/// Takes the [`FusedLinearReLU`] at path `linear` apart: its child takes its place, and a ReLU that of the `Identity` at path
/// `relu`. What was registered in the fused module beside its child goes with it.
///
/// # Errors
///
/// [`FuseError`].
pub fn unfuse_linear_relu(
    world: &mut World,
    target: impl Into<Target>,
    linear: &str,
    relu: &str,
) -> Result<(), FuseError> {
    let pairs = pairs(world, target, [linear, relu])?;
    let mut inner = Vec::new();
    for [first, second] in entities(&pairs) {
        let is_fused = world.get::<FusedLinearReLU>(first).is_some();
        let own = child(world, first, LINEAR).filter(|_| is_fused);
        let own = own.filter(|&own| world.get::<Linear>(own).is_some());
        check(own.is_some() && world.get::<ChildOf>(first).is_some(), linear, "a FusedLinearReLU")?;
        check(world.get::<Identity>(second).is_some(), relu, "an Identity")?;
        inner.extend(own.map(|own| (first, own, second)));
    }
    for &(fused, own, second) in &inner {
        unwrap(world, fused, own);
        world.entity_mut(second).insert(ReLU);
    }
    refresh(world, pairs.iter())
}

/// Says of the [`FusedLinearReLU`]s that a target names that their two parts count as two: `_is_fused` is false from then
/// on. Nothing else changes.
///
/// # Errors
///
/// [`FuseError`], if a module is of another type. Nothing is changed then.
///
/// Source: `FusedLinearReLU.unfuse`.
pub fn unfuse(world: &mut World, target: impl Into<Target>) -> Result<(), FuseError> {
    let modules = modules(world, target)?;
    let mut fused = Vec::with_capacity(modules.len());
    for module in modules {
        let at = locate(world, module)?;
        let of = world.get::<FusedLinearReLU>(module).copied();
        let path = &at.blueprint(world).positions[at.position].path;
        check(of.is_some(), path, "a FusedLinearReLU")?;
        fused.extend(of.map(|of| (module, of)));
    }
    for (module, of) in fused {
        world.entity_mut(module).insert(of.unfuse());
    }
    Ok(())
}

fn check(is_it: bool, path: &str, expected: &'static str) -> Result<(), FuseError> {
    match is_it {
        true => Ok(()),
        false => Err(FuseError::Module { path: path.to_owned(), expected }),
    }
}

fn members(pairs: &[Pair]) -> impl Iterator<Item = (&Pair, &Member)> {
    pairs.iter().flat_map(|pair| pair.site.members.iter().map(move |member| (pair, member)))
}

fn entities(pairs: &[Pair]) -> impl Iterator<Item = [Entity; 2]> {
    members(pairs).map(|(pair, member)| pair.entities(member))
}

fn is_evaluating(world: &World, pair: &Pair, member: &Member) -> bool {
    let mode = world.get::<Mode>(member.root);
    mode.is_some_and(|mode| mode.evaluating.contains(pair.positions[0]))
}

/// Puts a fused module in the place of a linear layer, which becomes its child.
fn wrap(world: &mut World, linear: Entity) {
    let Some(&layer) = world.get::<Linear>(linear) else { return };
    let fused = world.spawn(FusedLinearReLU::from(layer)).id();
    replace(world, linear, fused);
    world.entity_mut(linear).insert((ModuleName(LINEAR.into()), ChildOf(fused)));
}

/// Puts the child of a fused module in its place.
fn unwrap(world: &mut World, fused: Entity, linear: Entity) {
    replace(world, fused, linear);
    world.despawn(fused);
}

/// Makes `new` what `old` is to its parent: a child at the same place, of the same name.
fn replace(world: &mut World, old: Entity, new: Entity) {
    let Some(parent) = world.get::<ChildOf>(old).map(ChildOf::parent) else { return };
    let children = world.get::<Children>(parent).into_iter().flat_map(|all| all.iter());
    let place = children.into_iter().position(|child| child == old).unwrap_or_default();
    match world.get::<ModuleName>(old).cloned() {
        Some(name) => drop(world.entity_mut(new).insert(name)),
        None => drop(world.entity_mut(new).remove::<ModuleName>()),
    }
    world.entity_mut(old).remove::<ChildOf>();
    world.entity_mut(parent).insert_child(place, new);
}
