//! Transferring: one module gets the parametrizations of another, and their originals.

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::module::registered::{Numbers, Value};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::shape::Type;

use crate::edit::parametrize::current::current;
use crate::edit::parametrize::register;
use crate::edit::parametrize::register::RegisterOptions;
use crate::edit::parametrize::site::{Site, child, sites};
use crate::edit::registration::setattr;
use crate::errors::ParametrizeError;
use crate::state::dict::state_dict;
use crate::state::load::{LoadOptions, load_state_dict};
use neurarch_components::parametrizations::PARAMETRIZATIONS;

/// A tensor that goes over.
struct Transfer {
    name: String,
    parametrizations: Vec<Box<dyn DynModule>>,
    /// The tensor as it is, if the other module has none of that name.
    new: Option<Tensor>,
}

/// Gives a module the parametrizations of another one, and the numbers that its tensors are computed from: of one
/// tensor, or of all if no name is given. A tensor that `to` does not have becomes a parameter of it first. Does nothing
/// if `from` is not parametrized.
///
/// # Errors
///
/// [`ParametrizeError`]: one of them is no module, the tensor of that name is not parametrized, or that of `to` is of
/// another type, or parametrized. Nothing is changed then.
///
/// Source: `torch.nn.utils.parametrize.transfer_parametrizations_and_params`, after which both modules have the very same
/// parametrizations and parameters; here `to` has copies.
pub fn transfer_parametrizations_and_params(
    world: &mut World,
    from: Entity,
    to: Entity,
    name: Option<&str>,
) -> Result<(), ParametrizeError> {
    let site = sites(world, &[from])?.swap_remove(0);
    let target = sites(world, &[to])?.swap_remove(0);
    let Some(container) = site.blueprint.parametrizations(site.position) else { return Ok(()) };
    let all = site.blueprint.positions[container].children.iter().map(|&list| {
        let path = &site.blueprint.positions[list].path;
        path.rsplit('.').next().unwrap_or_default().to_owned()
    });
    let names = name.map_or_else(|| all.collect(), |name| vec![name.to_owned()]);
    let transfers = names.into_iter().map(|name| prepare(world, &site, &target, name));
    let transfers = transfers.collect::<Result<Vec<_>, _>>()?;
    for Transfer { name, parametrizations, new } in transfers {
        if let Some(tensor) = new {
            let value = Value::Parameter { numbers: Numbers::Given(tensor), requires_grad: true };
            let set = setattr(world, to, &name, value);
            set.map_err(|error| ParametrizeError::Invalid(error.to_string()))?;
        }
        for module in parametrizations {
            // It was asked when `from` got it.
            let options = RegisterOptions { is_unsafe: true };
            register::register(world, &[to], &name, &|_| Ok(module.clone()), options)?;
        }
        let list =
            |world: &World, module| child(world, child(world, module, PARAMETRIZATIONS)?, &name);
        if let Some((old, new)) = list(world, from).zip(list(world, to)) {
            let invalid = |error: String| ParametrizeError::Invalid(error);
            let state = state_dict(world, old, "").map_err(|error| invalid(error.to_string()))?;
            load_state_dict(world, new, &state, LoadOptions::default())
                .map_err(|error| invalid(error.to_string()))?;
        }
    }
    Ok(())
}

/// Checks that a tensor can go over.
fn prepare(
    world: &World,
    from: &Site,
    to: &Site,
    name: String,
) -> Result<Transfer, ParametrizeError> {
    let list = crate::edit::parametrize::list_of(from, &name)?;
    let rows = current(world, from, &name)?;
    let described = from.originals(list).map(|of| of.tensor.shape.clone());
    let ty = Type { dtype: rows.ty.dtype, shape: described.unwrap_or(rows.ty.shape.clone()) };
    let invalid = |what: String| Err(ParametrizeError::Invalid(what));
    if to.blueprint.parametrization(to.position, &name).is_some() {
        return invalid(format!("'{name}' is parametrized in {} already", to.class_name()));
    }
    let there = to.slot(&name);
    if let Some(there) = there.as_ref().filter(|there| there.ty != ty) {
        return invalid(format!(
            "'{name}': expected {ty} as in the other module, got {}",
            there.ty
        ));
    }
    crate::edit::parametrize::register::check_place(world, to, there.as_ref())?;
    let new = there.is_none().then(|| {
        let (dtype, shape) = (rows.ty.dtype, rows.ty.shape.to_vec());
        Tensor::from_native(name.clone(), dtype, shape, rows.row(0).to_vec())
    });
    let member = &from.members[0];
    let types = world.resource::<ModuleTypes>();
    let children = from.blueprint.positions[list].children.iter();
    let modules = children.filter_map(|&position| {
        let entity = world.get_entity(member.entity(position)).ok()?;
        types.module(entity).map(DynModule::clone_box)
    });
    Ok(Transfer { name, parametrizations: modules.collect(), new })
}

/// Names the type of a module, whether it is parametrized or not; `None` if the entity is no module.
///
/// Source: `torch.nn.utils.parametrize.type_before_parametrizations`.
pub fn type_before_parametrizations(world: &World, module: Entity) -> Option<&'static str> {
    let types = world.get_resource::<ModuleTypes>()?;
    Some(types.module(world.get_entity(module).ok()?)?.type_name())
}
