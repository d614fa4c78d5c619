//! Parking: dead models keep their entities and rows, and births take them over, so that nothing moves.
//!
//! A parked model keeps its index as well: the axis of models of every array has it, and calls pass it over. So turnover
//! of one in a hundred models leaves tables, lists and plans as they are.

use std::collections::HashMap;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::module::mode::{Draws, HasGradient, Mode};
use neurarch_components::population::Population;
use neurarch_components::population::group::Group;
pub use neurarch_components::population::parking::{Parked, Parking};
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::program::{Role, Slot};

use super::family::{Family, group, signed};
use super::hyperparameters::copy_hyperparameters;
use super::{EvolveError, Noise, clone_models, perturb};
use crate::draw::place_of;
use crate::errors::SignError;
use crate::init;
use crate::storage::bind::{Binder, KEEPER};
use crate::storage::members::listed;
use crate::structure::spawn;

/// What a new model begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Birth {
    /// The first numbers that its modules ask for.
    Fresh,
    /// All that a model has, by its root: numbers, gradients, optimizers with their state, modes.
    CloneOf(Entity),
    /// All that a model has, and noise on its parameters: [`perturb`].
    MutantOf(Entity, Noise),
}

impl Birth {
    /// Returns the model that the new one takes after.
    pub fn parent(self) -> Option<Entity> {
        match self {
            Birth::Fresh => None,
            Birth::CloneOf(parent) | Birth::MutantOf(parent, _) => Some(parent),
        }
    }
}

/// Parks models: they become inactive, and births take them over. Models that are parked already stay so; entities that
/// are no models are passed over.
///
/// Their population needs no [`Parking`]; with it, [`bear`] knows of them.
pub fn park(world: &mut World, models: &[Entity]) {
    for &root in models {
        let Ok(mut entity) = world.get_entity_mut(root) else { continue };
        if !entity.contains::<Model>() || entity.contains::<Parked>() {
            continue;
        }
        if let Some(mut mode) = entity.get_mut::<Mode>() {
            mode.inactive = true;
        }
        entity.insert(Parked);
    }
}

/// Makes parked models active again, as they were: for those whose rows no birth took over. Others are passed over.
pub fn unpark(world: &mut World, models: &[Entity]) {
    let is_parked = |root: &&Entity| world.get::<Parked>(**root).is_some();
    let parked: Vec<_> = models.iter().filter(is_parked).copied().collect();
    wake(world, &parked, Mode::clone);
}

/// Spawns `count` models that are parked at once, so that births need not spawn any. Gives the population [`Parking`] if
/// it has none.
///
/// # Errors
///
/// [`EvolveError`]; nothing is spawned then.
pub fn stock(world: &mut World, population: Entity, count: usize) -> Result<(), EvolveError> {
    let roots = spawn_fresh(world, population, count)?;
    if world.get::<Parking>(population).is_none() {
        world.entity_mut(population).insert(Parking::default());
    }
    park(world, &roots);
    Ok(())
}

/// Bears models; gives their roots, in the order of `births`.
///
/// Each takes over a parked model of the structure that it is to have, if there is one, else it is spawned. It is active,
/// has a number that no model had before, and what follows from that: random numbers of its own. What a parked model
/// learned is gone: parameters, gradients, the optimizer's state, its count of draws. The host's own components on
/// its entities stay, and so do the optimizers of one that is born [fresh](Birth::Fresh). A fresh one that is spawned has the
/// optimizers and settings of the population's first model.
///
/// All clones have what their parents had before, be it that one of them is taken over itself.
///
/// # Errors
///
/// [`EvolveError`], for a parent that is no model of the population, if there is no model whose structure a fresh one
/// could have, or for noise that is none. Nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::population::Population;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::evolve::park::{self, Birth};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(1, 1), 3, 3, 7, Dtype::F32)?;
/// world.entity_mut(layers).insert(park::Parking::default());
/// let biases = ndarray::array![[1.0_f32], [2.0], [3.0]].into_dyn();
/// access::unstack(&mut world, layers, "bias", biases.view())?;
/// let models = world.get::<Population>(layers).unwrap().models().to_vec();
/// park::park(&mut world, &[models[1]]);
/// let born = park::bear(&mut world, layers, &[Birth::CloneOf(models[2])])?;
/// assert_eq!(born, [models[1]]); // Its rows were free.
/// let biases = access::stack::<f32>(&mut world, layers, "bias", None)?;
/// assert_eq!(biases, ndarray::array![[1.0], [3.0], [3.0]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn bear(
    world: &mut World,
    population: Entity,
    births: &[Birth],
) -> Result<Vec<Entity>, EvolveError> {
    let wanted = structures(world, population, births)?;
    for (model, birth) in births.iter().enumerate() {
        if let Birth::MutantOf(_, noise) = birth {
            noise.check(model)?;
        }
    }
    list_parked(world, population);
    let taken: Vec<_> =
        wanted.iter().map(|&(blueprint, _)| take_parked(world, population, blueprint)).collect();
    let spawned = spawn_rest(world, population, &wanted, &taken);
    let spawned = match spawned.and_then(|spawned| {
        take_over(world, population, &wanted, &taken)?;
        Ok(spawned)
    }) {
        Ok(spawned) => spawned,
        Err(error) => {
            put_back(world, population, taken);
            return Err(error);
        }
    };
    let mut spawned = spawned.into_iter();
    let born = taken.into_iter().map(|taken| taken.or_else(|| spawned.next().flatten()));
    // An observer of the host's may have despawned one that was just spawned.
    let born: Vec<_> = born.map(|root| root.unwrap_or(Entity::PLACEHOLDER)).collect();
    mutate(world, population, births, &born)?;
    Ok(born)
}

/// Adds their noise to those that are born as mutants.
fn mutate(
    world: &mut World,
    population: Entity,
    births: &[Birth],
    born: &[Entity],
) -> Result<(), EvolveError> {
    let index = |root: Entity| world.get::<Model>(root).map(|model| model.index as usize);
    let noise = births.iter().zip(born).filter_map(|(birth, &root)| match *birth {
        Birth::MutantOf(_, noise) => Some((index(root)?, noise)),
        _ => None,
    });
    let noise: HashMap<usize, Noise> = noise.collect();
    if noise.is_empty() {
        return Ok(());
    }
    let of = |model: usize| noise.get(&model).copied().unwrap_or(Noise::normal(0.0));
    perturb(world, population, of, |_| true)
}

/// The structure that a birth asks for, and its parent.
type Wanted = (Option<BlueprintId>, Option<Entity>);

/// For each birth, what it asks for.
fn structures(
    world: &mut World,
    population: Entity,
    births: &[Birth],
) -> Result<Vec<Wanted>, EvolveError> {
    let first = signed(world, population)?.models().first().copied();
    let first = first.and_then(|root| world.get::<Model>(root)).map(|model| model.blueprint);
    let of = |birth: &Birth| match birth.parent() {
        None => Ok((first, None)),
        Some(entity) => {
            let model = world.get::<Model>(entity).filter(|model| model.population == population);
            let model = model.ok_or(EvolveError::NotAModel { entity, population })?;
            Ok((Some(model.blueprint), Some(entity)))
        }
    };
    births.iter().map(of).collect()
}

/// Finds the parked models of a population, once.
fn list_parked(world: &mut World, population: Entity) {
    if world.get::<Parking>(population).is_none_or(Parking::is_listed) {
        return;
    }
    let models = world.get::<Population>(population).map(Population::models).unwrap_or_default();
    let is_parked = |root: &&Entity| world.get::<Parked>(**root).is_some();
    // The last one is the first that is taken over: as if they had died in the order of their indices.
    let free: Vec<_> = models.iter().filter(is_parked).copied().collect();
    if let Some(mut parking) = world.get_mut::<Parking>(population) {
        parking.set_listed(free);
    }
}

/// Takes a parked model of a structure off the list.
fn take_parked(
    world: &mut World,
    population: Entity,
    blueprint: Option<BlueprintId>,
) -> Option<Entity> {
    let mut parking = std::mem::take(&mut *world.get_mut::<Parking>(population)?);
    let taken = parking.take(|root| {
        let model = world.get::<Model>(root).filter(|model| model.population == population);
        world.get::<Parked>(root).is_some()
            && model.is_some_and(|model| Some(model.blueprint) == blueprint)
    });
    if let Some(mut of) = world.get_mut::<Parking>(population) {
        *of = parking;
    }
    taken
}

/// Lists models again that were taken off the list.
fn put_back(world: &mut World, population: Entity, taken: Vec<Option<Entity>>) {
    if taken.iter().any(Option::is_some)
        && let Some(mut parking) = world.get_mut::<Parking>(population)
    {
        *parking = Parking::default();
    }
}

/// Spawns models for births that have no parked one.
fn spawn_rest(
    world: &mut World,
    population: Entity,
    wanted: &[Wanted],
    taken: &[Option<Entity>],
) -> Result<Vec<Option<Entity>>, EvolveError> {
    let rest = wanted.iter().zip(taken).filter(|(_, taken)| taken.is_none());
    let parents: Vec<_> = rest.map(|((_, parent), _)| *parent).collect();
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let index = |root: Entity| world.get::<Model>(root).map(|model| model.index as usize);
    let cloned: Vec<_> = parents.iter().filter_map(|parent| index((*parent)?)).collect();
    let fresh = parents.iter().filter(|parent| parent.is_none()).count();
    let room = world.get::<Population>(population).map_or(0, Population::len);
    spawn::check_room(world, population, room.saturating_add(parents.len()))?;
    let new = match fresh {
        0 => Vec::new(),
        _ => spawn_fresh(world, population, fresh)?,
    };
    init::initialize(world, population, &new)?;
    let clones = clone_models(world, population, &cloned)?;
    wake(world, &clones, |mode| mode.clone());
    let (mut new, mut clones) = (new.into_iter(), clones.into_iter());
    let next = |parent: &Option<Entity>| match parent {
        None => new.next(),
        Some(_) => clones.next(),
    };
    Ok(parents.iter().map(next).collect())
}

/// Spawns models of the first one's structure, with its optimizers and settings: what takes part in training goes on with
/// models that were born later.
fn spawn_fresh(
    world: &mut World,
    population: Entity,
    count: usize,
) -> Result<Vec<Entity>, EvolveError> {
    let roots = spawn::spawn_models(world, population, count)?;
    let found = signed(world, population)?;
    let Some(&first) = found.models().first() else { return Ok(roots) };
    let groups = 0..found.groups().len();
    for number in groups {
        let Some(of) = group(world, population, number) else { continue };
        let Some(first) = place_of(world, of, first) else { continue };
        let places: Vec<_> = roots.iter().filter_map(|&root| place_of(world, of, root)).collect();
        let pairs = of
            .modules
            .iter()
            .flat_map(|modules| places.iter().map(|&place| (modules[place], modules[first])));
        let pairs: Vec<_> = pairs.collect();
        copy_hyperparameters(world, &pairs);
    }
    Ok(roots)
}

/// Makes parked models what they are born as.
fn take_over(
    world: &mut World,
    population: Entity,
    wanted: &[Wanted],
    taken: &[Option<Entity>],
) -> Result<(), EvolveError> {
    let births = wanted.iter().zip(taken);
    let births = births.filter_map(|((_, parent), taken)| Some(((*taken)?, *parent)));
    let births: Vec<(Entity, Option<Entity>)> = births.collect();
    if births.is_empty() {
        return Ok(());
    }
    let cloned: Vec<_> = births.iter().filter_map(|&(root, of)| Some((root, of?))).collect();
    let fresh = births.iter().filter(|(_, parent)| parent.is_none()).map(|(root, _)| *root);
    let fresh: Vec<_> = fresh.collect();
    copy_all(world, population, &cloned)?;
    // What parents had, before any of them is taken over.
    let modes = cloned.iter().map(|&(_, parent)| world.get::<Mode>(parent).cloned());
    let modes: Vec<_> = modes.collect();
    let draws: Vec<_> =
        cloned.iter().map(|&(_, parent)| world.get::<Draws>(parent).copied()).collect();
    for &(root, _) in &births {
        renumber(world, population, root);
    }
    for ((&(root, _), mode), draws) in cloned.iter().zip(modes).zip(draws) {
        if let Some(mut own) = world.get_mut::<Draws>(root) {
            *own = draws.unwrap_or_default();
        }
        wake(world, &[root], |own| mode.clone().unwrap_or_else(|| own.clone()));
    }
    for &root in &fresh {
        if let Some(mut own) = world.get_mut::<Draws>(root) {
            *own = Draws::default();
        }
        if let Some(mut own) = world.get_mut::<HasGradient>(root) {
            own.set_if_neq(HasGradient::default());
        }
    }
    clear_states(world, population, &fresh)?;
    init::initialize(world, population, &fresh)?;
    wake(world, &fresh, Mode::clone);
    Ok(())
}

/// Makes models active, in a mode that follows from the one that they have.
fn wake(world: &mut World, models: &[Entity], mode: impl Fn(&Mode) -> Mode) {
    for &root in models {
        let Ok(mut entity) = world.get_entity_mut(root) else { continue };
        if let Some(mut own) = entity.get_mut::<Mode>() {
            let (hooked, cached) = (own.hooked, own.cached);
            let mode = Mode { inactive: false, hooked, cached, ..mode(&own) };
            own.set_if_neq(mode);
        }
        entity.remove::<Parked>();
    }
}

/// Gives a model the next number of its population.
fn renumber(world: &mut World, population: Entity, root: Entity) {
    let Some(index) = world.get::<Model>(root).map(|model| model.index) else { return };
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    let number = found.renumber(index, KEEPER);
    if let Some(mut model) = world.get_mut::<Model>(root) {
        model.number = number;
    }
}

/// Copies optimizers, settings and all rows of models onto others: pairs of a model and its parent, of one structure.
fn copy_all(
    world: &mut World,
    population: Entity,
    pairs: &[(Entity, Entity)],
) -> Result<(), EvolveError> {
    let groups = world.get::<Population>(population).map_or(0, |found| found.groups().len());
    for number in 0..groups {
        let Some(of) = group(world, population, number) else { continue };
        let places = pairs.iter().filter_map(|&(root, parent)| {
            Some((place_of(world, of, root)?, place_of(world, of, parent)?))
        });
        let places: Vec<_> = places.collect();
        if places.is_empty() {
            continue;
        }
        let modules = of.modules.iter().flat_map(|modules| {
            places.iter().map(|&(place, parent)| (modules[place], modules[parent]))
        });
        let modules: Vec<_> = modules.collect();
        let mut parents: Vec<_> = (0..of.members.len() as u32).map(|place| [place]).collect();
        places.iter().for_each(|&(place, parent)| parents[place] = [parent as u32]);
        copy_hyperparameters(world, &modules);
        let family = Family { group: number, parents };
        let sources = family.parents.iter().map(|&[parent]| parent).collect();
        family.copy(world, population, vec![sources])?;
    }
    Ok(())
}

/// Forgets what optimizers know of models: their states and counts of steps are zero, as before the first step.
fn clear_states(
    world: &mut World,
    population: Entity,
    models: &[Entity],
) -> Result<(), EvolveError> {
    let groups = world.get::<Population>(population).map_or(0, |found| found.groups().len());
    for number in 0..groups {
        let Some(of) = group(world, population, number) else { continue };
        let slots = states(of);
        let members = models.iter().filter_map(|&root| place_of(world, of, root));
        let mut members: Vec<_> = members.map(|place| of.members[place]).collect();
        members.sort_unstable();
        if slots.is_empty() || members.is_empty() {
            continue;
        }
        let count = world.get::<Population>(population).map_or(0, Population::len);
        let (members, written) = (listed(count, &members), vec![true; slots.len()]);
        let mut binder = Binder::default();
        let bound = binder.bind(world, population, number, &members, &slots, &written);
        let mut bound = bound.map_err(SignError::from)?;
        for slot in 0..slots.len() {
            for member in 0..bound.members() {
                let bytes = bound.row_bytes(slot);
                bound.row_mut(slot, member, bytes).fill(0);
            }
        }
    }
    Ok(())
}

/// Lists the columns of optimizers' states that a group's models have for themselves.
fn states(of: &Group) -> Vec<Slot> {
    let all = of.contents.iter().flat_map(|contents| {
        contents.slots().filter(|slot| contents.shared(slot.role, slot.index).is_none())
    });
    all.filter(|slot| matches!(slot.role, Role::State(_) | Role::Steps)).collect()
}
