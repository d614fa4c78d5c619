//! What a module's tensors are now, computed or not, and how lists of parametrizations name them.

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::UNINITIALIZED;
use neurarch_components::population::tree::ModuleName;
use neurarch_kernels::ir::program::Role;

use super::site::{Rows, Site, read};
use crate::errors::ParametrizeError;

/// Computes a tensor of each member of a site, as `forward` would meet it.
pub(crate) fn current(world: &World, site: &Site, name: &str) -> Result<Rows, ParametrizeError> {
    if let Some(slot) = site.slot(name) {
        return match site.blueprint.is_uninitialized(&slot) {
            true => Err(ParametrizeError::Invalid(UNINITIALIZED.to_owned())),
            false => site.rows(world, &slot),
        };
    }
    let normed = &site.blueprint.positions[site.position].weight_normed;
    let is_listed = site.blueprint.parametrization(site.position, name).is_some();
    if !is_listed && normed.find(name).is_none() {
        let (module, name) = (site.class_name(), name.to_owned());
        return Err(ParametrizeError::NoSuchTensor { module, name });
    }
    let (value, trace) = site.evaluate(world, site.position, |call| Ok(call.parameter(name)))?;
    read(&trace, &value)
}

/// Names the children of a list by number.
pub(crate) fn next_name(world: &World, list: Entity) -> ModuleName {
    let children = world.get::<Children>(list).map_or(0, |children| children.len());
    ModuleName(children.to_string().into())
}

/// Says what a slot's role is called in a list.
pub(crate) fn is_buffer(role: Role) -> bool {
    role == Role::Buffer
}
