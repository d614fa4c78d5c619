//! Draws the first numbers of parameters and buffers, by an op that runs in tiles like any other.
//!
//! Every number follows from the population's seed, the model's number, the module's position and the
//! parameter's place in it, and from nothing else.

mod check;
mod fresh;
pub(crate) mod op;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use bevy_ecs::prelude::*;
use neurarch_components::module::Init;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::Draws;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::program::Slot;
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Trace;
use neurarch_kernels::plan::{Plan, PlanOptions};

use crate::errors::BindError;
use crate::storage::bind::Located;
use crate::storage::launch::{Job, launch_alone};
use crate::storage::members::Members;
pub(crate) use check::check;
pub(crate) use fresh::{Draw, Fresh};

/// Gives parameters that a change of structure made new their first numbers.
pub(crate) fn reset_fresh(
    world: &mut World,
    population: Entity,
    fresh: &[Fresh],
    draw: Draw,
) -> Result<(), BindError> {
    let roots: BTreeSet<Entity> = fresh.iter().map(|fresh| fresh.root).collect();
    count_draw(world, draw, &roots, |world| draw_fresh(world, population, fresh, draw))
}

/// Runs `run`, which draws numbers in some models: those that they come to next are those of a step of its own, which
/// neither a pass before nor one after has.
pub(crate) fn count_draw<'a, R>(
    world: &mut World,
    draw: Draw,
    roots: impl IntoIterator<Item = &'a Entity> + Copy,
    run: impl FnOnce(&mut World) -> R,
) -> R {
    let count = |world: &mut World| {
        for &root in roots.into_iter().filter(|_| draw == Draw::Anew) {
            if let Some(mut draws) = world.get_mut::<Draws>(root) {
                draws.0 += 1;
            }
        }
    };
    count(world);
    let result = run(world);
    count(world);
    result
}

/// Says which random numbers a model draws.
pub(crate) fn key_of(world: &World, root: Entity, seed: u64, draw: Draw) -> RngKey {
    let number = world.get::<Model>(root).map_or(0, |model| model.number);
    match draw {
        Draw::First => RngKey { seed, number, step: 0 },
        Draw::Anew => {
            RngKey { seed, number, step: world.get::<Draws>(root).map_or(0, |draws| draws.0) }
        }
        Draw::Seeded { seed, step } => RngKey { seed, number, step },
    }
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

pub(crate) fn place_of(world: &World, group: &Group, root: Entity) -> Option<usize> {
    let index = world.get::<Model>(root)?.index;
    let place = group.members.binary_search(&index).ok()?;
    (group.modules[0][place] == root).then_some(place)
}

/// Lists parameters and buffers with what their modules reset them to.
pub(crate) fn first_numbers(blueprint: &Blueprint) -> Vec<(Slot, Init)> {
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

/// Returns what the outermost module above a position resets a tensor of it to, if one does.
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

/// Gives one parameter or buffer of one member of a group new numbers.
pub(crate) fn fill_one(
    world: &mut World,
    population: Entity,
    (group, member): (usize, usize),
    slot: Slot,
    init: Init,
) -> Result<(), BindError> {
    fill(world, population, group, vec![member], vec![(slot, init)], Draw::First)
}

/// Fills slots of the models at some places of a group. Numbers that a module gives are those of each model's own
/// module.
pub(crate) fn fill(
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

/// Returns the numbers that a model's own module resets a parameter or buffer to, if it gives numbers.
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
    let key = |&place: &usize| key_of(world, of.modules[0][place], found.seed, draw);
    let keys: Vec<_> = places.iter().map(key).collect();

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
        first_array: 0,
        scalars: &[],
        written: &written,
        keys: &keys,
    };
    let mut at = Located::new(population, group, members);
    launch_alone(world, &mut at, job)
}
