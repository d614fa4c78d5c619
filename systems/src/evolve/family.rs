//! [`Family`]: the models of a group with their parents, and the copies that make them what they are to be.

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::{Bits, Draws, HasGradient};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::rng_key::RngKey;
use rayon::prelude::*;

use super::EvolveError;
use crate::errors::SignError;
use crate::storage::binders::Binders;
use crate::storage::copy::{Copies, copy_rows};
use crate::storage::members::listed;
use crate::storage::order::Order;
use crate::structure::optimizers::Optimizers;
use crate::structure::sign;

/// The models of a group, and for each the places of its parents in the group.
pub(super) struct Family<const PARENTS: usize> {
    /// The group's place in the population.
    pub(super) group: usize,
    pub(super) parents: Vec<[u32; PARENTS]>,
}

/// Signs a population and finds it.
pub(super) fn signed(world: &mut World, population: Entity) -> Result<&Population, EvolveError> {
    sign::refresh(world, population)?;
    let found = world.get::<Population>(population);
    Ok(found.ok_or(SignError::NotAPopulation(population))?)
}

impl<const PARENTS: usize> Family<PARENTS> {
    /// Checks the parents of all models, given by index, and that optimizers fit the state they will find.
    pub(super) fn list(
        world: &mut World,
        population: Entity,
        parents: impl ExactSizeIterator<Item = [usize; PARENTS]>,
    ) -> Result<Vec<Self>, EvolveError> {
        let families = Self::place(world, population, parents)?;
        Optimizers::init(world);
        for family in &families {
            family.check_states(world, population)?;
        }
        Ok(families)
    }

    /// Checks the parents of all models, given by index.
    pub(super) fn place(
        world: &mut World,
        population: Entity,
        parents: impl ExactSizeIterator<Item = [usize; PARENTS]>,
    ) -> Result<Vec<Self>, EvolveError> {
        let found = signed(world, population)?;
        let models = found.len();
        if parents.len() != models {
            return Err(EvolveError::Length { expected: models, given: parents.len() });
        }
        // For each model, its group and its place there.
        let mut places = vec![(0, 0); models];
        let mut families = Vec::new();
        for (group, of) in found.groups().iter().enumerate() {
            for (place, &index) in of.members.iter().enumerate() {
                places[index as usize] = (group, place as u32);
            }
            families.push(Family { group, parents: Vec::with_capacity(of.members.len()) });
        }
        for (model, parents) in parents.enumerate() {
            let (group, _) = places[model];
            let mut own = [0; PARENTS];
            for (own, parent) in own.iter_mut().zip(parents) {
                let place = places.get(parent);
                match place.ok_or(EvolveError::NoSuchModel { index: parent, models })? {
                    (of, place) if *of == group => *own = *place,
                    _ => return Err(EvolveError::Blueprint { model, parent }),
                }
            }
            // Members are in the order of their indices, as the models are here.
            families[group].parents.push(own);
        }
        Ok(families)
    }

    /// Checks that models whose optimizer state will be copied have optimizers like their parents'.
    fn check_states(&self, world: &World, population: Entity) -> Result<(), EvolveError> {
        let Some(group) = group(world, population, self.group) else { return Ok(()) };
        let optimizers = world.resource::<Optimizers>();
        let is_state = |&(role, _): &(Role, usize)| matches!(role, Role::State(_));
        if !group.contents.iter().any(|contents| contents.companions.iter().any(is_state)) {
            return Ok(());
        }
        for modules in &group.modules {
            // Modules of one table have the same components.
            let table = |module: &Entity| {
                world.entities().get_spawned(*module).ok().map(|location| location.table_id)
            };
            let mut tables = modules.iter().map(table);
            let first = tables.next().flatten();
            if tables.all(|table| table == first) {
                continue;
            }
            for (place, parents) in self.parents.iter().enumerate() {
                for &parent in parents {
                    let parent = parent as usize;
                    let own = optimizers.on(world, modules[place]);
                    let other = optimizers.on(world, modules[parent]);
                    let fits = match (own, other) {
                        (Some(own), Some(other)) => own.is_like(other),
                        (own, other) => own.is_none() == other.is_none(),
                    };
                    if !fits {
                        let [model, parent] =
                            [place, parent].map(|place| group.members[place] as usize);
                        return Err(EvolveError::Optimizer { model, parent });
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies rows of all columns: for each parameter in its order, then for each buffer, the place whose
    /// old numbers each model gets; or one list for all.
    ///
    /// # Errors
    ///
    /// If rows cannot be bound. Nothing is copied then.
    pub(super) fn copy(
        &self,
        world: &mut World,
        population: Entity,
        sources: Vec<Vec<u32>>,
    ) -> Result<(), SignError> {
        let orders: Vec<Order> = sources.par_iter().map(|of| Order::new(of)).collect();
        if orders.iter().all(|order| order.copies().is_empty()) {
            return Ok(());
        }
        let list = |column: usize| if sources.len() == 1 { 0 } else { column };
        let Some(of) = group(world, population, self.group) else { return Ok(()) };
        let members = listed(models(world, population), &of.members);
        let columns = columns(world, of);
        let slots: Vec<_> = columns.iter().map(|column| column.slot.clone()).collect();
        let written = vec![true; slots.len()];
        let mut binder = Binders::take(world, population, self.group);
        let bound = binder.bind(world, population, self.group, &members, &slots, &written);
        let bound = bound?;
        let copies = columns.iter().enumerate().flat_map(|(slot, column)| {
            // Counts of a module's parameters share a row.
            let count =
                if column.slot.role == Role::Steps { column.slot.ty.shape.numel() } else { 1 };
            let shared = count > 1 && sources.len() > 1;
            let (parts, bytes) = match shared {
                true => (count, column.slot.ty.dtype.size_bytes()),
                false => (1, bound.row_bytes(slot)),
            };
            let orders = &orders;
            (0..parts).map(move |part| Copies {
                slot,
                bytes: part * bytes..(part + 1) * bytes,
                order: &orders[list(column.number + part)],
            })
        });
        let copies: Vec<_> = copies.collect();
        copy_rows(&bound, &copies);
        Binders::put(world, population, self.group, binder);
        copy_gradient_bits(world, population, self.group, |parameter, place| {
            sources[list(parameter)][place] as usize
        });
        Ok(())
    }
}

/// A column of a group.
struct Column {
    slot: Slot,
    /// The number of its parameter, of its module's first parameter for counts, or of its buffer, counted
    /// on from the parameters.
    number: usize,
}

/// Lists the columns of a group.
fn columns(world: &World, group: &Group) -> Vec<Column> {
    let blueprint = world.resource::<Blueprints>().get(group.blueprint);
    let (_, mut first_buffer) = count(group);
    first_buffer -= group.contents.iter().map(|contents| contents.buffers.len()).sum::<usize>();
    let mut columns = Vec::new();
    for (position, contents) in group.contents.iter().enumerate() {
        let path = blueprint.map(|blueprint| blueprint.positions[position].path.as_str());
        columns.extend(contents.slots().map(|slot| {
            let is_buffer = slot.role == Role::Buffer;
            let first = if is_buffer { first_buffer } else { contents.first_parameter };
            let number = first + slot.index;
            Column { slot: Slot { name: path.unwrap_or_default().to_owned(), ..slot }, number }
        }));
        first_buffer += contents.buffers.len();
    }
    columns
}

/// Counts a model's parameters, and its parameters and buffers.
pub(super) fn count(group: &Group) -> (usize, usize) {
    let parameters = group.contents.iter().map(|contents| contents.parameters.len()).sum();
    let buffers = group.contents.iter().map(|contents| contents.buffers.len()).sum::<usize>();
    (parameters, parameters + buffers)
}

pub(super) fn group(world: &World, population: Entity, group: usize) -> Option<&Group> {
    world.get::<Population>(population)?.groups().get(group)
}

/// Says anew which parameters have a gradient: that of parameter `p` of the model at place `i` is the
/// one of the model at `source(p, i)`.
fn copy_gradient_bits(
    world: &mut World,
    population: Entity,
    of: usize,
    source: impl Fn(usize, usize) -> usize,
) {
    let Some(of) = group(world, population, of) else { return };
    let companions = |role| of.contents.iter().any(|c| c.companions.iter().any(|at| at.0 == role));
    if !companions(Role::Gradient) {
        return;
    }
    let (parameters, _) = count(of);
    let none = HasGradient::default();
    let bits = |&root: &Entity| &world.get::<HasGradient>(root).unwrap_or(&none).0;
    let before: Vec<_> = of.modules[0].iter().map(bits).collect();
    let changed = of.modules[0].iter().enumerate().filter_map(|(place, &root)| {
        let has = |&parameter: &usize| before[source(parameter, place)].contains(parameter);
        let after: Bits = (0..parameters).filter(has).collect();
        (after != *before[place]).then_some((root, after))
    });
    for (root, after) in changed.collect::<Vec<_>>() {
        if let Some(mut bits) = world.get_mut::<HasGradient>(root) {
            bits.0 = after;
        }
    }
}

fn models(world: &World, population: Entity) -> usize {
    world.get::<Population>(population).map_or(0, Population::len)
}

/// Returns the random states of a group's models, by place.
pub(super) fn keys(world: &World, population: Entity, of: usize) -> Vec<RngKey> {
    let (Some(found), Some(of)) =
        (world.get::<Population>(population), group(world, population, of))
    else {
        return Vec::new();
    };
    let key = |&root: &Entity| RngKey {
        seed: found.seed,
        number: world.get::<Model>(root).map_or(0, |model| model.number),
        step: world.get::<Draws>(root).map_or(0, |draws| draws.0),
    };
    of.modules[0].iter().map(key).collect()
}

/// Counts a draw of the models at some places.
pub(super) fn advance(
    world: &mut World,
    population: Entity,
    of: usize,
    places: impl IntoIterator<Item = usize>,
) {
    let Some(of) = group(world, population, of) else { return };
    let roots: Vec<_> = places.into_iter().map(|place| of.modules[0][place]).collect();
    for root in roots {
        if let Some(mut draws) = world.get_mut::<Draws>(root) {
            draws.0 += 1;
        }
    }
}
