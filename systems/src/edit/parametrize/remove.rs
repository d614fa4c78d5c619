//! Removing: a tensor becomes a parameter or buffer of its module again.

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::Mode;
use neurarch_components::parametrizations::{
    PARAMETRIZATIONS, ParametrizationList, RegisteredAgain, SpectralNorm,
};
use neurarch_kernels::ir::program::Slot;
use neurarch_kernels::ir::shape::Type;

use super::companions::Companions;
use super::current::current;
use super::list_of;
use super::site::{Site, child, modules, sites, write};
use crate::errors::ParametrizeError;
use crate::execute::hooks::Target;
use crate::structure::sign;

/// What one module gets back.
struct Back {
    module: Entity,
    list: Entity,
    bytes: Vec<u8>,
    companions: Companions,
}

/// Makes a parametrized tensor a parameter or buffer of its module again, the last one: with the numbers that it
/// is computed to have, or, if not `leave_parametrized`, with those of its one original.
///
/// The target is a module's entity, or `(population, path)` for that module of every model. Optimizer state
/// and gradient of one original become the tensor's.
///
/// # Errors
///
/// [`ParametrizeError::NotParametrized`] if there is nothing to remove; [`ParametrizeError::Sequence`] if the
/// tensor has several originals and none is what it was. Nothing is changed then.
///
/// Source: `torch.nn.utils.parametrize.remove_parametrizations`.
pub fn remove_parametrizations(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    leave_parametrized: bool,
) -> Result<(), ParametrizeError> {
    let modules = modules(world, target)?;
    let (mut back, mut populations) = (Vec::new(), Vec::new());
    for site in sites(world, &modules)? {
        back.extend(prepare(world, &site, name, leave_parametrized)?);
        populations.push(site.population);
    }
    for Back { module, list, .. } in &back {
        let container = child(world, *module, PARAMETRIZATIONS);
        world.despawn(*list);
        let is_empty = |of: &Entity| world.get::<Children>(*of).is_none_or(|all| all.is_empty());
        if let Some(container) = container.filter(is_empty) {
            world.despawn(container);
        }
        RegisteredAgain::push(world, *module, name);
    }
    populations.dedup();
    for population in populations {
        sign::refresh(world, population)?;
    }
    for Back { module, bytes, companions, .. } in back {
        write(world, module, name, &bytes);
        companions.give(world, module, &[name]);
    }
    Ok(())
}

/// Makes a tensor under [`spectral_norm`](super::spectral_norm) a parameter again, with the numbers that it is computed
/// to have.
///
/// # Errors
///
/// [`ParametrizeError::NotSpectralNormed`] if that is not its one parametrization. Nothing is changed then.
///
/// Source: `torch.nn.utils.remove_spectral_norm`.
pub fn remove_spectral_norm(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
) -> Result<(), ParametrizeError> {
    let target = target.into();
    let modules = modules(world, target.clone())?;
    for site in sites(world, &modules)? {
        let list = site.blueprint.parametrization(site.position, name);
        let children = list.map(|list| site.blueprint.positions[list].children.as_slice());
        let is_normed = children.is_some_and(|children| match children {
            [only] => site.blueprint.positions[*only].module.is::<SpectralNorm>(),
            _ => false,
        });
        if !is_normed {
            let (module, name) = (site.class_name(), name.to_owned());
            return Err(ParametrizeError::NotSpectralNormed { module, name });
        }
    }
    remove_parametrizations(world, target, name, true)
}

/// Checks everything, and computes the numbers that the tensor will have.
fn prepare(
    world: &World,
    site: &Site,
    name: &str,
    leave_parametrized: bool,
) -> Result<Vec<Back>, ParametrizeError> {
    let position = list_of(site, name)?;
    let list = site.originals(position).ok_or_else(|| ParametrizeError::NotParametrized {
        module: site.class_name(),
        name: name.to_owned(),
    })?;
    if !leave_parametrized && !list.is_tensor() {
        return Err(ParametrizeError::Sequence);
    }
    let slots = site.slots_of(position);
    let rows = match (leave_parametrized, slots.first()) {
        (false, Some(original)) => site.rows(world, original)?,
        _ => current(world, site, name)?,
    };
    let declared = declared(list, &rows.ty);
    if rows.ty != declared {
        return Err(ParametrizeError::Invalid(format!(
            "expected '{name}' to be {declared} again, got {}",
            rows.ty
        )));
    }
    let members = site.members.iter().enumerate().map(|(i, member)| Back {
        module: member.module,
        list: member.entity(position),
        bytes: rows.row(i).to_vec(),
        companions: companions(world, site, member, &slots),
    });
    Ok(members.collect())
}

fn declared(list: &ParametrizationList, made: &Type) -> Type {
    let dtype = list.tensor.dtype.unwrap_or(made.dtype);
    Type { dtype, shape: list.tensor.shape.clone() }
}

/// Copies what a tensor gets of its originals: all of one alone, of several whether all of them are frozen.
fn companions(
    world: &World,
    site: &Site,
    member: &super::site::Member,
    slots: &[Slot],
) -> Companions {
    match slots {
        [only] => Companions::of(world, site, member, only),
        slots => {
            let mode = world.get::<Mode>(member.root);
            let is_frozen = |slot: &Slot| {
                let number = site.blueprint.number(slot.position, slot.index);
                mode.is_some_and(|mode| mode.frozen.contains(number))
            };
            Companions::frozen(slots.iter().all(is_frozen), slots.first())
        }
    }
}
