//! What decides the next numbers of a whole population: its seed, the state of what its models share, and how many models
//! an average is of.
//!
//! | name                                       | what                                                        |
//! |--------------------------------------------|-------------------------------------------------------------|
//! | `population.seed`, `population.next_number` | what random numbers follow from                            |
//! | `population.shared.NAME.ROLE`              | gradient, states and count of steps of a shared parameter   |
//! | `population.optimizer.NAME`                | a number of the optimizer on the population's entity; of its parameter groups from 1 on behind `param_groups.GROUP.` |
//! | `population.n_averaged`                    | how many updates an `AveragedModel` is of                   |

use bevy_ecs::prelude::*;
use ndarray::arr0;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::column::{ColumnKey, RowBundle, row, row_mut};
use neurarch_components::optimizer::{AveragedModel, DynParamGroups};
use neurarch_components::population::Population;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;

use crate::storage::bind::KEEPER;

use super::error::TrainingStateError;
use super::settings::Settings;
use super::source::Source;
use crate::errors::SignError;
use crate::structure::optimizers::Optimizers;

/// What the names of these tensors begin with; they have no axis of models.
pub(super) const START: &str = "population.";

/// What decides the next numbers of a population.
pub(super) struct State {
    population: Entity,
    seed: u64,
    next_number: u64,
    /// The rows of shared parameters and their companions.
    rows: Vec<(ColumnKey, Vec<u8>)>,
    /// The places of the shared parameters, and whether they have a gradient.
    has_gradient: Vec<(usize, bool)>,
    optimizer: Option<Box<dyn DynParamGroups>>,
    averaged: Option<AveragedModel>,
}

/// Lists the companions that a shared parameter can have, with their names in a file.
fn companions(ty: &Type) -> impl Iterator<Item = (String, Role, Type)> {
    let states = (0..u8::MAX).map(|state| (format!("state.{state}"), Role::State(state)));
    let of_type = [("gradient".to_owned(), Role::Gradient)].into_iter().chain(states);
    let ty = ty.clone();
    let of_type = of_type.map(move |(name, role)| (name, role, ty.clone()));
    of_type.chain([("step".to_owned(), Role::Steps, Type::new(Dtype::F32, [1]))])
}

/// Lists the parameters that a population shares: the place and name of each, its type, and whether it has a gradient.
fn shared(world: &World, population: Entity) -> Vec<(usize, String, Type, bool)> {
    let tensors = world.get::<SharedTensors>(population).into_iter().flat_map(SharedTensors::iter);
    let parameters = tensors.filter(|(_, of)| of.role == Role::Parameter);
    let all =
        parameters.map(|(place, of)| (place, of.name.clone(), of.ty.clone(), of.has_gradient));
    all.collect()
}

fn optimizer(world: &mut World, population: Entity) -> Option<Box<dyn DynParamGroups>> {
    Optimizers::init(world);
    let own = world.resource::<Optimizers>().on(world, population);
    own.map(DynParamGroups::clone_box)
}

/// Lists what a file has of a population.
pub(super) fn list(
    world: &mut World,
    population: Entity,
) -> Result<Vec<Tensor>, TrainingStateError> {
    let found = world.get::<Population>(population);
    let found = found.ok_or(SignError::NotAPopulation(population))?;
    let whole =
        |name: &str, number: u64| Tensor::new(format!("{START}{name}"), arr0(number as i64).view());
    let mut tensors = vec![whole("seed", found.seed), whole("next_number", found.next_number())];
    for (index, name, ty, has_gradient) in shared(world, population) {
        for (companion, role, ty) in companions(&ty) {
            let key = SharedRow { owner: population, index }.key(role, &ty);
            let is_there = role != Role::Gradient || has_gradient;
            let Some(row) = row(world, population, key).filter(|_| is_there) else { continue };
            let (name, shape) = (format!("{START}shared.{name}.{companion}"), ty.shape.to_vec());
            let bytes = row[..ty.size_bytes()].to_vec();
            tensors.push(Tensor::from_native(name, ty.dtype, shape, bytes));
        }
    }
    if let Some(optimizer) = optimizer(world, population) {
        for (number, group) in (0..).map_while(|number| Some((number, optimizer.group(number)?))) {
            let numbers = group.scalar_names().iter().filter_map(|name| {
                Some(Tensor::new(of_group(number, name), arr0(group.scalar(name)?).view()))
            });
            tensors.extend(numbers);
        }
        tensors.extend(Settings::of_one(OPTIMIZER, &optimizer).tensor());
    }
    if let Some(&averaged) = world.get::<AveragedModel>(population) {
        tensors.push(whole("n_averaged", averaged.n_averaged as u64));
        tensors.extend(Settings::of_one(AVERAGED, &averaged).tensor());
    }
    Ok(tensors)
}

/// Returns what a number of a parameter group of the population's optimizer is called.
fn of_group(number: usize, name: &str) -> String {
    match number {
        0 => format!("{START}optimizer.{name}"),
        _ => format!("{START}optimizer.param_groups.{number}.{name}"),
    }
}

const OPTIMIZER: &str = "population.settings.optimizer";
const AVERAGED: &str = "population.settings.averaged";

impl State {
    /// Reads what a file has of a population.
    pub(super) fn read(
        world: &mut World,
        population: Entity,
        source: &Source<'_>,
    ) -> Result<Self, TrainingStateError> {
        let whole = |name: &str| {
            Ok::<u64, TrainingStateError>(
                source.array::<i64>(&format!("{START}{name}"), &[])?[0] as u64,
            )
        };
        let (seed, next_number) = (whole("seed")?, whole("next_number")?);
        let (mut rows, mut has_gradient) = (Vec::new(), Vec::new());
        for (index, name, ty, _) in shared(world, population) {
            for (companion, role, ty) in companions(&ty) {
                let key = SharedRow { owner: population, index }.key(role, &ty);
                let name = format!("{START}shared.{name}.{companion}");
                if role == Role::Gradient {
                    has_gradient.push((index, source.has(&name)));
                }
                if source.has(&name) {
                    rows.push((key, source.bytes(&name, ty.dtype, &ty.shape)?));
                } else if row(world, population, key).is_some() {
                    rows.push((key, vec![0; ty.size_bytes()]));
                }
            }
        }
        let mut optimizer = optimizer(world, population);
        if let Some(optimizer) = &mut optimizer {
            for number in 0..optimizer.n_groups() {
                let Some(group) = optimizer.group_mut(number) else { continue };
                for name in group.scalar_names() {
                    if let Some(scalar) = group.scalar_mut(name) {
                        *scalar = source.number(&of_group(number, name))?;
                    }
                }
            }
            Settings::of_one(OPTIMIZER, &*optimizer).check(source)?;
        }
        let mut averaged = world.get::<AveragedModel>(population).copied();
        if let Some(averaged) = &mut averaged {
            averaged.n_averaged = whole("n_averaged")? as usize;
            Settings::of_one(AVERAGED, &*averaged).check(source)?;
        }
        Ok(State { population, seed, next_number, rows, has_gradient, optimizer, averaged })
    }

    /// Writes it.
    pub(super) fn apply(self, world: &mut World) {
        let State { population, seed, next_number, .. } = self;
        if let Some(mut found) = world.get_mut::<Population>(population) {
            found.seed = seed;
            found.number_from(next_number, KEEPER);
        }
        for (key, bytes) in self.rows {
            if row(world, population, key).is_none() {
                let mut bundle = RowBundle::new(world, [key], None);
                if let Ok(mut entity) = world.get_entity_mut(population) {
                    bundle.insert(&mut entity);
                }
            }
            if let Some(row) = row_mut(world, population, key) {
                row[..bytes.len()].copy_from_slice(&bytes);
            }
        }
        if let Some(mut tensors) = world.get_mut::<SharedTensors>(population) {
            for (index, has_gradient) in self.has_gradient {
                if let Some(of) = tensors.get_mut(index) {
                    of.has_gradient = has_gradient;
                }
            }
        }
        let Ok(mut entity) = world.get_entity_mut(population) else { return };
        if let Some(optimizer) = self.optimizer {
            optimizer.insert(&mut entity);
        }
        if let Some(averaged) = self.averaged {
            entity.insert(averaged);
        }
    }
}
