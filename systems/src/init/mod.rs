//! The first numbers of parameters: `torch.nn.init` for whole populations.
//!
//! Every number follows from the population's seed, the model's number, how much it drew before, the module's position
//! and the parameter's place in it, and from nothing else: a model spawned alone has the bits that it has among ten
//! thousand. Filling is an op like any other, so tiles of models are filled in parallel.

mod functions;
mod gain;

use bevy_ecs::prelude::*;
use neurarch_components::module::Init;
use neurarch_components::population::Population;
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
use crate::draw::{Draw, count_draw, fill, first_numbers, place_of};
use crate::edit::parametrize;
use crate::errors::{AccessError, SignError};
pub use crate::errors::{InitError, NoFans};
use crate::storage::bind::KEEPER;
use crate::structure::mode::restoring;
use crate::structure::target::{Aim, Target};
use crate::structure::{access, sign};

/// Numbers the models of a population from `first` on, in the order of their indices: models of one seed
/// and number have the same random numbers in any population.
///
/// Parameters stay as they are; [`initialize`] gives them the first ones of the new numbers.
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

/// Gives all parameters of new models the first numbers that their modules ask for: those of their place in a model that
/// was just spawned, whenever it is called.
///
/// # Errors
///
/// If `population` is no population. Entities that are no models of it are passed over. What the population
/// [shares](crate::structure::shared) stays as it is.
pub fn initialize(
    world: &mut World,
    population: Entity,
    models: &[Entity],
) -> Result<(), SignError> {
    sign::refresh(world, population)?;
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let mut aims = Vec::new();
    for (group, of) in found.groups().iter().enumerate() {
        let places = models.iter().filter_map(|&root| place_of(world, of, root)).collect();
        aims.push(Aim { population, group, position: 0, places });
    }
    reset(world, &aims, Draw::First)
}

/// Gives all parameters and buffers of a module and of all below it the first numbers that their modules ask for. They are
/// drawn anew: a second call draws others, unless a [seed](seeded) is given.
///
/// # Errors
///
/// If there is no such module.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::{Linear, Sequential, Tanh};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::{init, structure::access, structure::spawn::spawn_population};
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 2));
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// init::reset_parameters(&mut world, (brains, "0"))?; // The first layer of all models.
/// let first = access::stack::<f32>(&mut world, brains, "0.weight", None)?;
/// init::reset_parameters(&mut world, (brains, "0"))?;
/// assert_ne!(access::stack::<f32>(&mut world, brains, "0.weight", None)?, first);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `module.apply(lambda m: m.reset_parameters())`. What the population [shares](crate::structure::shared) is
/// drawn once for all models.
pub fn reset_parameters(world: &mut World, target: impl Into<Target>) -> Result<(), AccessError> {
    let aims = target.into().aims(world)?;
    let draw = next_draw(world);
    let roots: Vec<_> = aims.iter().flat_map(|aim| aim.entities(world, 0)).collect();
    Ok(count_draw(world, draw, &roots, |world| reset(world, &aims, draw))?)
}

fn reset(world: &mut World, aims: &[Aim], draw: Draw) -> Result<(), SignError> {
    let mut modules = Vec::new();
    for aim in aims {
        let blueprint = aim.blueprint(world);
        let below = blueprint.subtree(aim.position);
        let fills = first_numbers(&blueprint).into_iter();
        let fills = fills.filter(|(slot, _)| below.contains(&slot.position)).collect();
        modules.extend(aim.entities(world, aim.position));
        fill(world, aim.population, aim.group, aim.places.clone(), fills, draw)?;
    }
    parametrize::reset_originals(world, &modules, draw);
    Ok(())
}

/// What random first numbers follow from while [`seeded`] runs.
#[derive(Resource, Clone, Copy, Debug)]
struct Generator {
    seed: u64,
    draws: u64,
}

/// Runs `run`, in which random first numbers follow from `seed`, the models' numbers and the order of the calls: the same
/// calls draw the same numbers again, and leave those that models draw later as they are.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::{init, structure::access, structure::spawn::spawn_population};
/// # let mut world = World::new();
/// # let layers = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 7, Dtype::F32)?;
/// let draw = |world: &mut World| {
///     init::seeded(world, 1, |world| init::normal_(world, layers, "weight", 0.0, 1.0)).unwrap();
///     access::stack::<f32>(world, layers, "weight", None).unwrap()
/// };
/// assert_eq!(draw(&mut world), draw(&mut world));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `generator` of the functions of `torch.nn.init`.
pub fn seeded<R>(world: &mut World, seed: u64, run: impl FnOnce(&mut World) -> R) -> R {
    let before = world.remove_resource::<Generator>();
    world.insert_resource(Generator { seed, draws: 0 });
    restoring(world, run, |world| match before {
        Some(before) => world.insert_resource(before),
        None => drop(world.remove_resource::<Generator>()),
    })
}

/// Says which numbers come next.
fn next_draw(world: &mut World) -> Draw {
    let Some(mut generator) = world.get_resource_mut::<Generator>() else { return Draw::Anew };
    let Generator { seed, draws } = *generator;
    generator.draws += 1;
    Draw::Seeded { seed, step: draws }
}

/// Gives one parameter or buffer new numbers, by its dotted name below a module: `init` chooses their distribution from its
/// shape. Random numbers are drawn anew: a second call draws others, unless a [seed](seeded) is given.
///
/// # Errors
///
/// If there is no such module or parameter, it does not know its shape yet, `init` finds no fans in the shape, or what it
/// gives fits neither the parameter nor itself. Nothing is changed then.
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
    target: impl Into<Target>,
    name: &str,
    init: impl Fn(&Shape) -> Result<Init, NoFans>,
) -> Result<(), InitError> {
    let mut fills = Vec::new();
    for aim in target.into().aims(world)? {
        let blueprint = aim.blueprint(world);
        let slot = access::find_slot_below(&blueprint, aim.position, name);
        let slot = slot.ok_or_else(|| AccessError::NoSuchName {
            module: blueprint.positions[aim.position].module.type_name(),
            name: name.to_owned(),
        })?;
        if blueprint.is_uninitialized(&slot) {
            return Err(InitError::Uninitialized { name: name.to_owned() });
        }
        let init = init(&slot.ty.shape);
        let init = init.map_err(|source| InitError::Fans { name: name.to_owned(), source })?;
        draw::check(name, &slot, &init)?;
        fills.push((aim, slot, init));
    }
    let is_random = fills.iter().any(|(.., init)| init.is_random());
    let draw = if is_random { next_draw(world) } else { Draw::First };
    let roots: Vec<_> = fills.iter().flat_map(|(aim, ..)| aim.entities(world, 0)).collect();
    let filled = count_draw(world, draw, &roots, |world| {
        fills.into_iter().try_for_each(|(aim, slot, init)| {
            fill(world, aim.population, aim.group, aim.places, vec![(slot, init)], draw)
        })
    });
    Ok(filled.map_err(SignError::from).map_err(AccessError::from)?)
}
