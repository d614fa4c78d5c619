//! The first numbers of parameters: `torch.nn.init` for whole populations.
//!
//! Every number follows from the population's seed, the model's number, the module's position and the
//! parameter's place in it, and from nothing else: a model spawned alone has the bits that it has among
//! ten thousand. Filling is an op like any other, so tiles of models are filled in parallel.

mod functions;
mod gain;
pub(crate) mod op;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{Blueprint, Blueprints, UNINITIALIZED_USE};
use neurarch_components::mode::Draws;
use neurarch_components::module::Init;
use neurarch_components::population::{Group, Population};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tree::Model;
use neurarch_kernels::cpu::tile::Key;
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::passes::plan::{Plan, PlanOptions};
use neurarch_kernels::program::Slot;
use neurarch_kernels::program::trace::Trace;
use neurarch_kernels::shape::Shape;

pub use functions::{
    constant_, dirac_, eye_, kaiming_normal_, kaiming_uniform_, normal_, ones_, orthogonal_,
    sparse_, trunc_normal_, uniform_, xavier_normal_, xavier_uniform_, zeros_,
};
pub use gain::{
    FanMode, NoFans, Nonlinearity, UnknownName, calculate_fan_in_and_fan_out, calculate_gain,
    kaiming_normal, kaiming_uniform, xavier_normal, xavier_uniform,
};

use crate::access;
use crate::bind::Located;
use crate::bind::{BindError, KEEPER};
use crate::errors::AccessError;
use crate::errors::SignError;
use crate::fresh::{Draw, Fresh};
use crate::launch::Job;
use crate::launch::launch_alone;
use crate::members::Members;
use crate::parametrize;
use crate::sign;
use crate::spot::Spot;

/// Why parameters cannot be given numbers. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is no such parameter.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The numbers depend on fans, and the parameter has fewer than two axes; torch's words.
    #[error("'{name}': {source}")]
    Fans {
        /// The dotted name.
        name: String,
        /// Says the parameter's shape.
        source: NoFans,
    },
    /// The distribution is one of matrices; torch's words.
    #[error("'{name}': Only tensors with {supported} dimensions are supported, got shape {shape}")]
    Dimensions {
        /// The dotted name.
        name: String,
        /// How many axes there may be, in words.
        supported: &'static str,
        /// The parameter's shape.
        shape: Shape,
    },
    /// A standard deviation is negative or NaN; torch's words.
    #[error("'{name}': normal expects std >= 0.0, but found std {std}")]
    Std {
        /// The dotted name.
        name: String,
        /// What was given.
        std: f64,
    },
    /// The bounds are in the wrong order or NaN, or those of a uniform distribution infinite; torch's words.
    #[error(
        "'{name}': uniform_ expects to return a [from, to) range, but found from={low} > to={high}"
    )]
    Range {
        /// The dotted name.
        name: String,
        /// The lower bound given.
        low: f64,
        /// The upper bound given.
        high: f64,
    },
    /// The first axis is not made of so many groups; torch's words.
    #[error("'{name}': dim 0 must be divisible by groups, got shape {shape} and groups={groups}")]
    Groups {
        /// The dotted name.
        name: String,
        /// The parameter's shape.
        shape: Shape,
        /// What was given.
        groups: usize,
    },
    /// The fraction of zeros is no fraction.
    #[error("'{name}': expected sparsity in [0, 1], got {sparsity}")]
    Sparsity {
        /// The dotted name.
        name: String,
        /// What was given.
        sparsity: f64,
    },
    /// Its shape is not known yet; torch's words.
    #[error("'{name}': Attempted to use an uninitialized parameter in init. {UNINITIALIZED_USE}")]
    Uninitialized {
        /// The dotted name.
        name: String,
    },
    /// A buffer of this type takes zeros only.
    #[error("'{name}': expected a floating-point dtype, got {dtype:?}")]
    Dtype {
        /// The dotted name.
        name: String,
        /// The type of the buffer.
        dtype: Dtype,
    },
}

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
/// [shares](crate::shared) stays as it is.
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
/// # use neurarch_kernels::dtype::Dtype;
/// # use neurarch_systems::{access, init, spawn::spawn_population};
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
        check(name, &slot, &init)?;
        fills.push((number, (0..group.members.len()).collect(), vec![(slot, init)]));
    }
    for (group, places, fills) in fills {
        let filled = fill(world, population, group, places, fills, Draw::First);
        filled.map_err(SignError::from).map_err(AccessError::from)?;
    }
    Ok(())
}

/// Gives one parameter or buffer of one model new numbers.
pub(crate) fn draw(world: &mut World, at: &Spot, slot: Slot, init: Init) -> Result<(), SignError> {
    fill(world, at.population, at.group, vec![at.member], vec![(slot, init)], Draw::First)?;
    Ok(())
}

/// Refuses a distribution that a parameter cannot have.
pub(crate) fn check(name: &str, slot: &Slot, init: &Init) -> Result<(), InitError> {
    let (shape, dtype) = (&slot.ty.shape, slot.ty.dtype);
    let name = || name.to_owned();
    let dimensions =
        |supported| InitError::Dimensions { name: name(), supported, shape: shape.clone() };
    let is_ordered = |low: f64, high: f64| low <= high;
    if *init != Init::Zeros && !dtype.is_float() {
        return Err(InitError::Dtype { name: name(), dtype });
    }
    match *init {
        Init::Eye | Init::Sparse { .. } | Init::NormalRows { .. } if shape.len() != 2 => {
            return Err(dimensions("2"));
        }
        Init::Orthogonal { .. } if shape.len() < 2 => return Err(dimensions("2 or more")),
        Init::Dirac { .. } if !(3..=5).contains(&shape.len()) => {
            return Err(dimensions("3, 4, or 5"));
        }
        Init::Dirac { groups } if groups == 0 || shape[0] % groups != 0 => {
            return Err(InitError::Groups { name: name(), shape: shape.clone(), groups });
        }
        Init::Sparse { sparsity, .. } if !(0.0..=1.0).contains(&sparsity) => {
            return Err(InitError::Sparsity { name: name(), sparsity });
        }
        Init::Uniform { low, high } if !is_ordered(low, high) || !(high - low).is_finite() => {
            return Err(InitError::Range { name: name(), low, high });
        }
        Init::TruncatedNormal { low, high, .. } if !is_ordered(low, high) => {
            return Err(InitError::Range { name: name(), low, high });
        }
        _ => {}
    }
    match *init {
        Init::Normal { std, .. } | Init::TruncatedNormal { std, .. } | Init::Sparse { std, .. }
            if !is_ordered(0.0, std) =>
        {
            Err(InitError::Std { name: name(), std })
        }
        _ => Ok(()),
    }
}

/// Gives parameters that a change of structure made new their first numbers.
pub(crate) fn reset_fresh(
    world: &mut World,
    population: Entity,
    fresh: &[Fresh],
    draw: Draw,
) -> Result<(), BindError> {
    let count = |world: &mut World| {
        let roots: BTreeSet<Entity> = fresh.iter().map(|fresh| fresh.root).collect();
        for root in roots.into_iter().filter(|_| draw == Draw::Anew) {
            if let Some(mut draws) = world.get_mut::<Draws>(root) {
                draws.0 += 1;
            }
        }
    };
    // A step of its own, which neither a pass before nor one after has.
    count(world);
    draw_fresh(world, population, fresh, draw)?;
    count(world);
    Ok(())
}

fn draw_fresh(
    world: &mut World,
    population: Entity,
    fresh: &[Fresh],
    draw: Draw,
) -> Result<(), BindError> {
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for &Fresh { root, position, role, index } in fresh {
        let Some(blueprint) = world.get::<Model>(root).map(|model| model.blueprint) else {
            continue;
        };
        let groups = found.groups();
        let Some(number) = groups.iter().position(|group| group.blueprint == blueprint) else {
            continue;
        };
        if let Some(place) = place_of(world, &groups[number], root) {
            places.entry((number, position, role, index)).or_default().push(place);
        }
    }
    let resets = places.into_iter().filter_map(|((number, position, role, index), places)| {
        let blueprint = world.resource::<Blueprints>().get(found.groups()[number].blueprint)?;
        let is_his = |(slot, _): &(Slot, Init)| {
            slot.position == position && slot.role == role && slot.index == index
        };
        Some((number, places, first_numbers(blueprint).into_iter().filter(is_his).collect()))
    });
    for (group, places, fills) in resets.collect::<Vec<_>>() {
        fill(world, population, group, places, fills, draw)?;
    }
    Ok(())
}

fn place_of(world: &World, group: &Group, root: Entity) -> Option<usize> {
    let index = world.get::<Model>(root)?.index;
    let place = group.members.binary_search(&index).ok()?;
    (group.modules[0][place] == root).then_some(place)
}

/// Lists parameters and buffers with what their modules reset them to.
fn first_numbers(blueprint: &Blueprint) -> Vec<(Slot, Init)> {
    let mut fills = Vec::new();
    for (position, at) in blueprint.positions.iter().enumerate() {
        let own = at.parameters.iter().filter(|p| p.has_column());
        let parameters = own.map(|p| blueprint.parameter(position, &p.name));
        let buffers = at.buffers.iter().filter(|b| b.has_column());
        let buffers = buffers.map(|b| blueprint.buffer(position, &b.name));
        for slot in parameters.chain(buffers).flatten() {
            let name = slot.own_name();
            let name = at.weight_normed.tensor(name).unwrap_or(name);
            let above = first_numbers_from_above(blueprint, position, name, &slot.ty.shape);
            let init = above.unwrap_or_else(|| at.module.reset(name));
            fills.push((slot, init));
        }
    }
    fills
}

/// Gives what the outermost module above a position resets a tensor of it to, if one does.
fn first_numbers_from_above(
    blueprint: &Blueprint,
    position: usize,
    name: &str,
    shape: &Shape,
) -> Option<Init> {
    let mut path = name.to_owned();
    let (mut position, mut init) = (position, None);
    while let Some(parent) = blueprint.positions[position].parent {
        path = format!("{}.{path}", blueprint.positions[position].name);
        init = blueprint.positions[parent].module.reset_below(&path, shape).or(init);
        position = parent;
    }
    init
}

/// Fills slots of the models at some places of a group. Numbers that a module gives are those of each model's own
/// module.
fn fill(
    world: &mut World,
    population: Entity,
    group: usize,
    places: Vec<usize>,
    fills: Vec<(Slot, Init)>,
    draw: Draw,
) -> Result<(), BindError> {
    let is_given = |(_, init): &(Slot, Init)| matches!(init, Init::Numbers(_));
    let (given, drawn): (Vec<_>, Vec<_>) = fills.into_iter().partition(is_given);
    for (slot, init) in given {
        // Models next to each other nearly always have the same.
        let own = |&place: &usize| (own_numbers(world, population, group, place, &slot), place);
        let own: Vec<_> = places.iter().map(own).collect();
        for alike in own.chunk_by(|(one, _), (other, _)| one == other) {
            let places = alike.iter().map(|(_, place)| *place).collect();
            let init = alike[0].0.clone().unwrap_or_else(|| init.clone());
            fill_alike(world, population, group, places, vec![(slot.clone(), init)], draw)?;
        }
    }
    match drawn.is_empty() {
        true => Ok(()),
        false => fill_alike(world, population, group, places, drawn, draw),
    }
}

/// Gives the numbers that a model's own module resets a parameter or buffer to, if it gives numbers.
fn own_numbers(
    world: &World,
    population: Entity,
    group: usize,
    place: usize,
    slot: &Slot,
) -> Option<Init> {
    let group = &world.get::<Population>(population)?.groups()[group];
    let entity = *group.modules[slot.position].get(place)?;
    let module = world.get_resource::<ModuleTypes>()?.module(world.get_entity(entity).ok()?)?;
    let init = module.reset(slot.own_name());
    matches!(init, Init::Numbers(_)).then_some(init)
}

/// Fills slots of the models at some places of a group, all by the same rules.
fn fill_alike(
    world: &mut World,
    population: Entity,
    group: usize,
    mut places: Vec<usize>,
    fills: Vec<(Slot, Init)>,
    draw: Draw,
) -> Result<(), BindError> {
    places.sort_unstable();
    places.dedup();
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let of = &found.groups()[group];
    let is_shared = |(slot, _): &(Slot, Init)| {
        of.contents[slot.position].shared(slot.role, slot.index).is_some()
    };
    let number = |place: usize| world.get::<Model>(of.modules[0][place]).map(|model| model.number);
    let (shared, fills): (Vec<_>, Vec<_>) = fills.into_iter().partition(is_shared);
    let first = places.iter().copied().min_by_key(|&place| number(place));
    if places.len() > 1 && !shared.is_empty() {
        // What all have is drawn once, by the model of the least number.
        fill_alike(world, population, group, first.into_iter().collect(), shared, draw)?;
        return fill_alike(world, population, group, places, fills, draw);
    }
    let fills = [shared, fills].concat();
    if fills.is_empty() {
        return Ok(());
    }
    let Some(&first) = places.first() else { return Ok(()) };
    let of = &found.groups()[group];
    let mut members = Members::first(found.len(), of.members[first]);
    places[1..].iter().for_each(|&place| members.push(of.members[place]));
    members.settle();
    let number =
        |&place: &usize| world.get::<Model>(of.modules[0][place]).map_or(0, |model| model.number);
    let step = |&place: &usize| match draw {
        Draw::First => 0,
        Draw::Anew => world.get::<Draws>(of.modules[0][place]).map_or(0, |draws| draws.0),
    };
    let keys: Vec<_> = places
        .iter()
        .map(|place| Key { seed: found.seed, number: number(place), step: step(place) })
        .collect();

    let trace = Trace::new();
    for (slot, init) in fills {
        let fill = op::Fill::new(&slot, init);
        let slot = trace.slot(slot);
        trace.store(&slot, &trace.apply(fill, &[]));
    }
    let program = trace.finish(&[]).expect("filling takes any slot");
    let plan = Plan::new(program, &PlanOptions::default()).expect("a fill is a program");
    let written = vec![true; plan.program.slots.len()];
    let job = Job {
        plan: &plan,
        steps: 1,
        first_step: 0,
        inputs: &[],
        outputs: &[],
        scalars: &[],
        written: &written,
        keys: &keys,
    };
    let mut at = Located::new(population, group, members);
    launch_alone(world, &mut at, job)
}
