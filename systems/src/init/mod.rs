//! The first numbers of parameters: `torch.nn.init` for whole populations.
//!
//! Every number follows from the population's seed, the model's number, the module's position and the
//! parameter's place in it, and from nothing else: a model spawned alone has the bits that it has among
//! ten thousand. Filling is an op like any other, so tiles of models are filled in parallel.

mod functions;
mod gain;

use bevy_ecs::prelude::*;
use neurarch_components::module::Init;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::shape::Shape;

pub use functions::{
    constant_, dirac_, eye_, kaiming_normal_, kaiming_uniform_, normal_, ones_, orthogonal_,
    sparse_, trunc_normal_, uniform_, xavier_normal_, xavier_uniform_, zeros_,
};
pub use gain::{
    FanMode, Nonlinearity, UnknownName, calculate_fan_in_and_fan_out, calculate_gain,
    kaiming_normal, kaiming_uniform, xavier_normal, xavier_uniform,
};

use crate::draw;
use crate::draw::{Draw, fill, first_numbers, place_of};
use crate::edit::parametrize;
use crate::errors::AccessError;
use crate::errors::SignError;
pub use crate::errors::{InitError, NoFans};
use crate::storage::bind::KEEPER;
use crate::structure::access;
use crate::structure::sign;

/// Numbers the models of a population from `first` on, in the order of their indices: models of one seed
/// and number have the same random numbers in any population.
///
/// Parameters stay as they are; [`reset_parameters`] draws them anew.
///
/// # Errors
///
/// If `population` is no population.
pub fn number_from(world: &mut World, population: Entity, first: u64) -> Result<(), SignError> {
    let found = world.get_mut::<Population>(population);
    let mut found = found.ok_or(SignError::NotAPopulation(population))?;
    let models = found.models().to_vec();
    found.number_from(first.wrapping_add(models.len() as u64), KEEPER);
    for (index, root) in (0..).zip(models) {
        if let Some(mut model) = world.get_mut::<Model>(root) {
            model.number = first.wrapping_add(index);
        }
    }
    Ok(())
}

/// Gives all parameters of some models the first numbers that their modules ask for.
///
/// # Errors
///
/// If `population` is no population. Entities that are no models of it are passed over.
///
/// Source: `torch.nn.Module.reset_parameters`, of every module. What the population
/// [shares](crate::structure::shared) stays as it is.
pub fn reset_parameters(
    world: &mut World,
    population: Entity,
    models: &[Entity],
) -> Result<(), SignError> {
    sign::refresh(world, population)?;
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let mut resets = Vec::new();
    for (number, group) in found.groups().iter().enumerate() {
        let Some(blueprint) = world.resource::<Blueprints>().get(group.blueprint) else { continue };
        let places = models.iter().filter_map(|&root| place_of(world, group, root));
        resets.push((number, places.collect(), first_numbers(blueprint)));
    }
    for (group, places, fills) in resets {
        fill(world, population, group, places, fills, Draw::First)?;
    }
    parametrize::reset_originals(world, models);
    Ok(())
}

/// Gives one parameter or buffer of every model new numbers: `init` chooses their distribution from its
/// shape.
///
/// # Errors
///
/// If a model has no such parameter or does not know its shape yet, `init` finds no fans in the shape, or what it gives fits neither the
/// parameter nor itself. Nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::init;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 7, Dtype::F32)?;
/// init::fill_with(&mut world, layers, "weight", |shape| init::xavier_uniform(shape, 1.0))?;
/// let weights = access::stack::<f32>(&mut world, layers, "weight", None)?;
/// assert!(weights.iter().all(|&x| x != 0.0 && x.abs() <= 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the functions of `torch.nn.init`; [`kaiming_uniform_`] and the others have their names.
pub fn fill_with(
    world: &mut World,
    population: Entity,
    name: &str,
    init: impl Fn(&Shape) -> Result<Init, NoFans>,
) -> Result<(), InitError> {
    sign::refresh(world, population).map_err(AccessError::from)?;
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let mut fills = Vec::new();
    for (number, group) in found.groups().iter().enumerate() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let Some(blueprint) = blueprint.filter(|_| !group.members.is_empty()) else { continue };
        let slot = access::find_slot(blueprint, name).ok_or_else(|| AccessError::NoSuchName {
            module: blueprint.positions[0].module.type_name(),
            name: name.to_owned(),
        })?;
        if blueprint.is_uninitialized(&slot) {
            return Err(InitError::Uninitialized { name: name.to_owned() });
        }
        let init = init(&slot.ty.shape);
        let init = init.map_err(|source| InitError::Fans { name: name.to_owned(), source })?;
        draw::check(name, &slot, &init)?;
        fills.push((number, (0..group.members.len()).collect(), vec![(slot, init)]));
    }
    for (group, places, fills) in fills {
        let filled = fill(world, population, group, places, fills, Draw::First);
        filled.map_err(SignError::from).map_err(AccessError::from)?;
    }
    Ok(())
}
