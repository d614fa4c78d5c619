//! The older form of weight norm, whose length and direction are parameters of the module itself: `weight_g` and
//! `weight_v`.
//!
//! Source: `torch.nn.utils.weight_norm`, which is deprecated for `torch.nn.utils.parametrizations.weight_norm`.

use bevy_ecs::prelude::*;
use neurarch_components::module::call::Call;
use neurarch_components::parametrizations::{RegisteredAgain, WeightNorm, WeightNormed};

use super::current::{current, is_buffer};
use super::register::check_place;
use super::site::{Rows, Site, modules, read, sites, write};
use crate::errors::ParametrizeError;
use crate::execute::hooks::Target;
use crate::structure::sign;

/// Makes a parameter of its length `weight_g` and its direction `weight_v`, parameters in its place, from now on;
/// `dim` is the axis along which lengths differ, 0 in torch if none is given.
///
/// # Errors
///
/// [`ParametrizeError`]: there is no such parameter or axis, or it is made so already. Nothing is changed then.
///
/// Source: `torch.nn.utils.weight_norm`.
pub fn weight_norm(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    dim: Option<isize>,
) -> Result<(), ParametrizeError> {
    let modules = modules(world, target)?;
    let sites = sites(world, &modules)?;
    let mut made = Vec::new();
    for site in &sites {
        if normed(site).find(name).is_some() {
            return Err(ParametrizeError::WeightNormedTwice { name: name.to_owned() });
        }
        let slot = site.slot(name).filter(|slot| !is_buffer(slot.role));
        if slot.is_none() {
            let (module, name) = (site.class_name(), name.to_owned());
            return Err(ParametrizeError::NoSuchTensor { module, name });
        }
        check_place(world, site, slot.as_ref())?;
        let v = current(world, site, name)?;
        let trace = site.trace();
        let norm = WeightNorm { dim }.norm(&v.record(&trace, site.members.len()));
        made.push((read(&trace, &norm)?, v));
    }
    for (site, (g, v)) in sites.iter().zip(&made) {
        let mut normed = normed(site).clone();
        normed.0.push((name.to_owned(), dim));
        for member in &site.members {
            world.entity_mut(member.module).insert(normed.clone());
        }
        sign::refresh(world, site.population)?;
        put(world, site, &format!("{name}_g"), g);
        put(world, site, &format!("{name}_v"), v);
    }
    Ok(())
}

/// Makes what [`weight_norm`] split one parameter again, with the numbers that it is computed to have.
///
/// # Errors
///
/// [`ParametrizeError::NotWeightNormed`] if it was not split. Nothing is changed then.
///
/// Source: `torch.nn.utils.remove_weight_norm`.
pub fn remove_weight_norm(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
) -> Result<(), ParametrizeError> {
    let modules = modules(world, target)?;
    let sites = sites(world, &modules)?;
    let mut made = Vec::new();
    for site in &sites {
        if normed(site).find(name).is_none() {
            let (module, name) = (site.class_name(), name.to_owned());
            return Err(ParametrizeError::NotWeightNormed { module, name });
        }
        made.push(current(world, site, name)?);
    }
    for (site, tensor) in sites.iter().zip(&made) {
        let mut left = normed(site).clone();
        left.0.retain(|(known, _)| known != name);
        for member in &site.members {
            RegisteredAgain::push(world, member.module, name);
            let mut module = world.entity_mut(member.module);
            if left.0.is_empty() {
                module.remove::<WeightNormed>();
            } else {
                module.insert(left.clone());
            }
        }
        sign::refresh(world, site.population)?;
        put(world, site, name, tensor);
    }
    Ok(())
}

/// Gives the lengths of all such tensors of some models those of their directions: after these were reset.
pub(super) fn reset_lengths(world: &mut World, site: &Site) {
    for position in site.blueprint.subtree(site.position) {
        let at = &site.blueprint.positions[position];
        for (name, dim) in &at.weight_normed.0 {
            let record = |call: &Call<'_>| {
                let norm = WeightNorm { dim: *dim }.norm(&call.parameter(&format!("{name}_v")));
                call.trace.store(&call.parameter(&format!("{name}_g")), &norm);
                Ok(())
            };
            if let Ok((_, trace)) = site.evaluate(world, position, record) {
                site.commit(world, &trace);
            }
        }
    }
}

fn normed(site: &Site) -> &WeightNormed {
    &site.blueprint.positions[site.position].weight_normed
}

fn put(world: &mut World, site: &Site, name: &str, rows: &Rows) {
    for (number, member) in site.members.iter().enumerate() {
        write(world, member.module, name, rows.row(number));
    }
}
