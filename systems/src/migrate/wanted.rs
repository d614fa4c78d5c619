//! [`Wanted`]: which tensors of which models are to have which element types.

use core::any::Any;
use std::collections::{BTreeMap, BTreeSet};

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::SharedRow;
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::{Blueprint, Parameter, Position};
use neurarch_components::module::mode::Mode;
use neurarch_components::parametrizations::ParametrizationList;
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;

use super::error::MigrateError;
use crate::errors::room;
use crate::structure::target::Aim;

/// What is to be converted in a population.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) population: Option<Entity>,
    pub(super) groups: Vec<OfGroup>,
    /// The population's own type from now on.
    pub(super) dtype: Option<Dtype>,
    /// The type that floating tensors are converted to, unless the function that was given chooses for each.
    pub(super) floating: Option<Dtype>,
    /// What all models share, and its type from now on.
    pub(super) shared: BTreeMap<SharedRow, Dtype>,
}

/// What is to be converted in some models of a group.
#[derive(Debug)]
pub(super) struct OfGroup {
    /// The group's place in the population's list.
    pub(super) group: usize,
    /// The models' places in the group.
    pub(super) places: Vec<usize>,
    /// Whether these are all of it.
    pub(super) is_whole: bool,
    /// Their structure from now on.
    pub(super) blueprint: Blueprint,
    /// The positions at which a type changes.
    pub(super) positions: Vec<usize>,
}

/// A parameter or buffer of a blueprint.
pub(super) type Place = (usize, Role, usize);

impl Wanted {
    /// Finds the types that tensors below some modules are to have: those that `chosen` says. They are all modules of the
    /// population `whole`, if that is given.
    pub(super) fn of(
        world: &World,
        (whole, aims): (Option<Entity>, Vec<Aim>),
        floating: Option<Dtype>,
        chosen: impl Fn(&dyn DynModule, &Parameter) -> Dtype,
    ) -> Result<Wanted, MigrateError> {
        let population = whole.or(aims.first().map(|aim| aim.population));
        let groups = aims.into_iter().map(|aim| {
            let blueprint = aim.blueprint(world);
            let mut types = BTreeMap::new();
            for (position, role, index) in places_below(&blueprint, aim.position) {
                let at = &blueprint.positions[position];
                let of = tensor(at, role, index);
                types.insert((position, role, index), chosen(&*at.module, of));
            }
            (aim, types)
        });
        let groups: Vec<_> = groups.collect();
        let mut wanted = Wanted::with_types(world, population, groups, floating)?;
        let found = population.and_then(|population| world.get::<Population>(population));
        let models: usize = wanted.groups.iter().map(|of| of.places.len()).sum();
        if whole.is_some() && found.is_some_and(|found| found.len() == models) {
            wanted.dtype = floating;
        }
        Ok(wanted)
    }

    /// [`of`](Wanted::of) types that are known, of owners of tied parameters.
    pub(super) fn with_types(
        world: &World,
        population: Option<Entity>,
        groups: Vec<(Aim, BTreeMap<Place, Dtype>)>,
        floating: Option<Dtype>,
    ) -> Result<Wanted, MigrateError> {
        let mut wanted = Wanted {
            population,
            groups: Vec::new(),
            dtype: None,
            floating,
            shared: BTreeMap::new(),
        };
        for (aim, types) in groups {
            let (before, group) = (aim.blueprint(world), aim.group(world));
            let mut blueprint = Blueprint::clone(&before);
            let mut positions = Vec::new();
            for (position, at) in blueprint.positions.iter_mut().enumerate() {
                let mut is_changed = false;
                let tensors =
                    [(Role::Parameter, &mut at.parameters), (Role::Buffer, &mut at.buffers)];
                for (role, among) in tensors {
                    for (index, of) in among.iter_mut().enumerate() {
                        let (owner, place) = of.tied.unwrap_or((position, index));
                        let Some(&dtype) = types.get(&(owner, role, place)) else { continue };
                        if let Some(row) = of.shared {
                            wanted.shared.insert(row, dtype);
                        }
                        is_changed |= of.ty.dtype != dtype;
                        of.ty.dtype = dtype;
                    }
                }
                if is_changed {
                    positions.push(position);
                }
            }
            for &position in &positions {
                retype_module(&mut blueprint.positions[position], floating);
            }
            let is_whole = aim.places.len() == group.members.len();
            check_gradients(world, &aim, &blueprint)?;
            room::check(&blueprint, aim.places.len())?;
            let Aim { group, places, .. } = aim;
            wanted.groups.push(OfGroup { group, places, is_whole, blueprint, positions });
        }
        wanted.check_shared(world)?;
        Ok(wanted)
    }

    /// Checks that what is shared is converted in all models that share it, to one type.
    fn check_shared(&self, world: &World) -> Result<(), MigrateError> {
        self.check_each_shared(world, |_, dtype, tensor| dtype == tensor.ty.dtype)
    }

    /// Checks that what is shared is part of what is asked for in all models that share it.
    pub(super) fn check_all_share(&self, world: &World) -> Result<(), MigrateError> {
        self.check_each_shared(world, |is_whole, _, _| is_whole)
    }

    /// Checks what is shared wherever a model has it: whether its whole group is converted, to which type, and what it is
    /// there then.
    fn check_each_shared(
        &self,
        world: &World,
        is_right: impl Fn(bool, Dtype, &Parameter) -> bool,
    ) -> Result<(), MigrateError> {
        let Some(population) = self.population.filter(|_| !self.shared.is_empty()) else {
            return Ok(());
        };
        let groups =
            world.get::<Population>(population).map(Population::groups).unwrap_or_default();
        for (number, group) in groups.iter().enumerate().filter(|(_, of)| !of.members.is_empty()) {
            let of = self.groups.iter().find(|of| of.group == number && of.is_whole);
            let structure = of.map_or(&**group.structure(), |of| &of.blueprint);
            for (position, at) in structure.positions.iter().enumerate() {
                for tensor in at.parameters.iter().chain(&at.buffers) {
                    let found = tensor.shared.and_then(|row| Some((row, *self.shared.get(&row)?)));
                    let Some((row, dtype)) = found else { continue };
                    if row.owner != population || !is_right(of.is_some(), dtype, tensor) {
                        let name = structure.path_below(position, &tensor.name);
                        return Err(MigrateError::Shared { name });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns a parameter or buffer of a position.
pub(super) fn tensor(at: &Position, role: Role, index: usize) -> &Parameter {
    match role {
        Role::Buffer => &at.buffers[index],
        _ => &at.parameters[index],
    }
}

/// Lists the parameters and buffers at a position and below, and below what stands there under a second name; of tied ones
/// the owners.
fn places_below(blueprint: &Blueprint, position: usize) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    let mut waiting = vec![position];
    let mut seen = BTreeSet::new();
    while let Some(top) = waiting.pop() {
        for position in blueprint.subtree(top).filter(|&position| seen.insert(position)) {
            let at = &blueprint.positions[position];
            waiting.extend(at.alias);
            let parameters = at.parameters.iter().enumerate().map(|(index, of)| {
                let (owner, place) = of.tied.unwrap_or((position, index));
                (owner, Role::Parameter, place)
            });
            places.extend(parameters);
            places.extend((0..at.buffers.len()).map(|index| (position, Role::Buffer, index)));
        }
    }
    places
}

/// Refuses whole numbers for parameters that need gradients.
fn check_gradients(world: &World, aim: &Aim, blueprint: &Blueprint) -> Result<(), MigrateError> {
    let roots = || aim.places.iter().map(|&place| aim.group(world).modules[0][place]);
    let mut number = 0;
    for (position, at) in blueprint.positions.iter().enumerate() {
        for of in &at.parameters {
            let frozen =
                |root| world.get::<Mode>(root).is_some_and(|of| of.frozen.contains(number));
            if !of.ty.dtype.is_float() && of.tied.is_none() && !roots().all(frozen) {
                let name = blueprint.path_below(position, &of.name);
                return Err(MigrateError::RequiresGrad { name });
            }
            number += 1;
        }
    }
    Ok(())
}

/// Converts what a module's own settings say about types.
fn retype_module(at: &mut Position, floating: Option<Dtype>) {
    if let Some(converted) = floating.and_then(|dtype| list_in(&*at.module, dtype)) {
        at.module = Box::new(converted);
    }
}

/// Returns the list of a parametrized tensor whose originals have another type; `None` if the module is none, or they have
/// that already.
pub(super) fn list_in(module: &dyn DynModule, dtype: Dtype) -> Option<ParametrizationList> {
    let mut list = (module as &dyn Any).downcast_ref::<ParametrizationList>()?.clone();
    let tensors = core::iter::once(&mut list.tensor).chain(&mut list.originals);
    let mut is_other = false;
    for declared in tensors.filter(|of| of.dtype.is_none_or(Dtype::is_float)) {
        is_other |= declared.dtype.replace(dtype) != Some(dtype);
    }
    is_other.then_some(list)
}
