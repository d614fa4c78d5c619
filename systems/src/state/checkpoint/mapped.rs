//! [`Checkpoint::forward`]: models run where they lie in the file.
//!
//! The first model of each structure is spawned into a world of the checkpoint's own, without numbers: what models run is
//! recorded and planned by it. The plans then read rows of the file.

use std::collections::HashMap;

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, IxDyn};
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::module::mode::{Bits, Mode};
use neurarch_components::saved::{SavedError, SavedTypes};
use neurarch_kernels::cpu::tile::RowList;
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::program::{Role, Scalar, Slot};
use neurarch_kernels::ir::shape::Type;

use super::error::CheckpointError;
use super::index::{ColumnEntry, GroupEntry, dtype_of, role_code};
use super::open::Checkpoint;
use super::part::places;
use super::structure;
use crate::compile::array::{Erased, Input};
use crate::compile::plans::{Kind, Planned, Plans, Request};
use crate::compile::trace::Scheme;
use crate::errors::StepError;
use crate::storage::launch::{Job, Read, ReadOnly, Write, launch_read_only};
use crate::storage::members::{Members, listed};

/// The models of an open checkpoint, ready to run where they lie. A world with one model of each structure records and plans
/// for them.
pub struct Mapped<'c> {
    checkpoint: &'c Checkpoint,
    world: World,
    types: SavedTypes,
    /// The groups of each population.
    populations: Vec<Vec<Structure>>,
}

/// A structure, and the models that have it.
struct Structure {
    blueprint: BlueprintId,
    /// They run in evaluation mode.
    scheme: Scheme,
    /// The models' indices in the population, ascending.
    indices: Vec<u32>,
    /// The numbers of columns in the index, by role, position and place in the module.
    columns: HashMap<(Role, usize, usize), usize>,
}

impl Checkpoint {
    /// Registers a type of the host's own, for [`mapped`](Checkpoint::mapped) models:
    /// `checkpoint.register(SavedTypes::register_module::<MyBlock>)`.
    pub fn register(&mut self, register: fn(&mut World) -> Result<(), SavedError>) {
        self.registers.push(register);
    }

    /// Makes the models ready to run where they lie, in evaluation mode: nothing is loaded, and of a file that is
    /// [mapped](Checkpoint::open) only what they need is read.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: a type is not [registered](Checkpoint::register), or what the file says of a structure is not what its
    /// modules declare.
    pub fn mapped(&self) -> Result<Mapped<'_>, CheckpointError> {
        let mut world = World::new();
        for register in &self.registers {
            register(&mut world)?;
        }
        let types = self.prepare(&mut world)?;
        let firsts = self.spawn_firsts(&mut world, types.clone())?;
        let of = |(number, (population, roots)): (usize, (Entity, Vec<Entity>))| {
            let groups = self.groups(number).iter().zip(roots);
            let of = |(entry, root)| Structure::new(self, &world, (population, root), entry);
            groups.map(of).collect::<Result<Vec<_>, _>>()
        };
        let populations = firsts.into_iter().enumerate().map(of).collect::<Result<_, _>>()?;
        Ok(Mapped { checkpoint: self, world, types, populations })
    }

    /// Runs all models of the first population once: [`Mapped::forward`]. Who calls again keeps [`mapped`](Checkpoint::mapped)
    /// models.
    ///
    /// # Shape
    ///
    /// `x` is `[models, ..]` or shared; the result `[models, ..]`.
    ///
    /// # Errors
    ///
    /// As [`Mapped::forward_some`].
    pub fn forward<'a, T: Element>(
        &self,
        x: impl Into<Input<'a, T>>,
    ) -> Result<ArrayD<T::Float>, CheckpointError> {
        self.mapped()?.forward(x)
    }

    /// Runs some models of a population once: [`Mapped::forward_some`].
    ///
    /// # Shape
    ///
    /// With `k` models, `x` is `[k, ..]` or shared; the result `[k, ..]`.
    ///
    /// # Errors
    ///
    /// As [`Mapped::forward_some`].
    pub fn forward_some<'a, T: Element>(
        &self,
        population: usize,
        models: &[usize],
        x: impl Into<Input<'a, T>>,
    ) -> Result<ArrayD<T::Float>, CheckpointError> {
        self.mapped()?.forward_some(population, models, x)
    }
}

impl Mapped<'_> {
    /// Runs all models of the checkpoint's first population.
    ///
    /// # Shape
    ///
    /// `x` is `[models, ..]` or shared; the result `[models, ..]`.
    ///
    /// # Errors
    ///
    /// As [`forward_some`](Mapped::forward_some).
    pub fn forward<'a, T: Element>(
        &mut self,
        x: impl Into<Input<'a, T>>,
    ) -> Result<ArrayD<T::Float>, CheckpointError> {
        let models: Vec<_> = (0..self.checkpoint.models(0).unwrap_or(0)).collect();
        self.forward_some(0, &models, x)
    }

    /// Runs some models of a population, by the indices that they have there.
    ///
    /// # Shape
    ///
    /// With `k` models, `x` is `[k, ..]` or shared; the result `[k, ..]`, in the order of `models`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: what the models need was changed in the file, there is no such model, one is listed twice, `x` does
    /// not fit, or the models draw random numbers or write to their buffers even in evaluation mode: such ones have to be
    /// [restored](Checkpoint::restore).
    pub fn forward_some<'a, T: Element>(
        &mut self,
        population: usize,
        models: &[usize],
        x: impl Into<Input<'a, T>>,
    ) -> Result<ArrayD<T::Float>, CheckpointError> {
        let x = x.into();
        let checkpoint = self.checkpoint;
        let entry = checkpoint.index().populations.get(population);
        let all = entry.map_or(0, |entry| entry.models as usize);
        let places = places(models, all)?;
        let dtype = entry.and_then(|entry| dtype_of(entry.dtype)).unwrap_or(Dtype::F32);
        let x = x.erase();
        check(&x, models.len(), dtype)?;
        let Mapped { world, types, populations, .. } = self;
        let mut result: Option<(Type, Vec<T::Float>)> = None;
        for (entry, structure) in checkpoint.groups(population).iter().zip(&populations[population])
        {
            // Pairs of the place in the result and the member.
            let members = structure.indices.iter().enumerate();
            let members = members
                .filter_map(|(member, &index)| Some((places[index as usize]?, member as u32)));
            let mut chosen: Vec<(u32, u32)> = members.collect();
            if chosen.is_empty() {
                continue;
            }
            chosen.sort_unstable();
            let planned = structure.plan(world, &x)?;
            let ty = result_type(&planned, T::Float::DTYPE)?;
            let numbers = ty.shape.numel();
            let (known, y) = result.get_or_insert_with(|| {
                (ty.clone(), vec![bytemuck::Zeroable::zeroed(); models.len() * numbers])
            });
            if *known != ty {
                let (expected, given) = (known.shape.clone(), ty.shape.clone());
                return Err(StepError::Shape { array: "result", expected, given }.into());
            }
            let run = Chosen { checkpoint, population, entry, structure, members: &chosen };
            run.launch(types, &planned, models.len(), &x, (y, ty.size_bytes()))?;
        }
        let (ty, y) = result.ok_or(StepError::Inactive)?;
        let shape: Vec<_> = [models.len()].into_iter().chain(ty.shape.iter().copied()).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), y)
            .map_err(|error| CheckpointError::index(error.to_string()))
    }
}

/// Checks an input for so many models.
fn check(x: &Erased<'_>, models: usize, dtype: Dtype) -> Result<(), StepError> {
    if let Some(given) = x.models.filter(|&given| given != models) {
        return Err(StepError::Models { array: "x", expected: models, given });
    }
    match x.dtype.is_float() && x.dtype != dtype {
        true => Err(StepError::Dtype { array: "x", expected: dtype, given: x.dtype }),
        false => Ok(()),
    }
}

/// Returns the type of the one value that models give.
fn result_type(planned: &Planned, dtype: Dtype) -> Result<Type, StepError> {
    let results = planned.results.as_ref();
    let ty = results.and_then(|results| results.only());
    let given = results.map_or(0, |results| results.types.len());
    let ty = ty.ok_or(StepError::Results { expected: 1, given })?;
    match ty.dtype == dtype {
        true => Ok(ty.clone()),
        false => Err(StepError::Dtype { array: "result", expected: ty.dtype, given: dtype }),
    }
}

impl Structure {
    fn new(
        checkpoint: &Checkpoint,
        world: &World,
        (population, root): (Entity, Entity),
        entry: &GroupEntry,
    ) -> Result<Self, CheckpointError> {
        let found = structure::group_of(world, population, root);
        let (_, group) = found.ok_or(CheckpointError::Gone)?;
        let slots = structure::slots(checkpoint, entry, &group)?;
        let modules = entry.modules.of(&checkpoint.index().modules);
        let numbers = modules.iter().flat_map(|module| module.columns.range());
        let key = |slot: &Slot| (slot.role, slot.position, slot.index);
        let blueprint = group.structure().clone();
        let positions = blueprint.positions.len();
        Ok(Structure {
            blueprint: group.blueprint,
            scheme: Scheme {
                blueprint,
                mode: Mode { evaluating: Bits::below(positions), ..Mode::default() },
                has_gradient: Bits::new(),
                optimizers: (0..positions).map(|_| None).collect(),
                autocast: None,
                entry: None,
            },
            indices: checkpoint.numbers(entry.indices)?,
            columns: slots.iter().map(key).zip(numbers).collect(),
        })
    }

    /// Plans a forward pass that only reads.
    fn plan(
        &self,
        world: &mut World,
        x: &Erased<'_>,
    ) -> Result<std::sync::Arc<Planned>, CheckpointError> {
        let inputs = &[x.ty()];
        let (kind, structure, target, loss) = (Kind::Forward, None, None, None);
        let request = Request { kind, inputs, structure, given: &[], target, loss, watched: &[] };
        let planned = Plans::of(world, self.blueprint, &self.scheme, &request)?;
        if planned.is_random {
            return Err(CheckpointError::Live("draw random numbers"));
        }
        match planned.plan.program.stores.is_empty() {
            true => Ok(planned),
            false => Err(CheckpointError::Live("write to their parameters or buffers")),
        }
    }
}

/// Some models of a structure.
struct Chosen<'a> {
    checkpoint: &'a Checkpoint,
    population: usize,
    entry: &'a GroupEntry,
    structure: &'a Structure,
    /// The places of their results, ascending, and which members of the group they are.
    members: &'a [(u32, u32)],
}

impl Chosen<'_> {
    fn launch<T: Element>(
        &self,
        types: &SavedTypes,
        planned: &Planned,
        results: usize,
        x: &Erased<'_>,
        (y, row_bytes): (&mut [T], usize),
    ) -> Result<(), CheckpointError> {
        let (places, members): (Vec<_>, Vec<_>) = self.members.iter().copied().unzip();
        let rows: RowList = members.iter().map(|&member| (0, member)).collect();
        let program = &planned.plan.program;
        let columns = program.slots.iter().map(|slot| self.column(slot, &members, &rows));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let scalars = program.scalars.iter().map(|scalar| self.scalars(types, scalar));
        let scalars = scalars.collect::<Result<Vec<_>, _>>()?.concat();
        let inputs = [Read::new(x.bytes, x.stride())];
        let job = Job {
            plan: &planned.plan,
            steps: 1,
            first_step: 0,
            inputs: &inputs,
            outputs: &planned.places,
            first_array: 0,
            scalars: &scalars,
            written: &planned.written,
            keys: &[],
        };
        let members: Members = listed(results, &places);
        let mut arrays = [Write::new(y, row_bytes), Write::nothing()];
        launch_read_only(&members, job, &columns, &mut arrays).map_err(StepError::from)?;
        Ok(())
    }

    /// Finds the rows of a slot in the file, and checks those that are read.
    fn column<'s>(
        &'s self,
        slot: &Slot,
        members: &[u32],
        rows: &'s RowList,
    ) -> Result<ReadOnly<'s>, CheckpointError> {
        let index = self.checkpoint.index();
        let missing = || CheckpointError::index(format!("there is no column of '{}'", slot.name));
        if let Some(shared) = self.structure.scheme.blueprint.shared(slot) {
            let columns = index.populations[self.population].columns.of(&index.columns);
            let is_it = |of: &&ColumnEntry| {
                of.index as usize == shared.index && of.role == role_code(slot.role)
            };
            let column = columns.iter().find(is_it).ok_or_else(missing)?;
            return Ok(ReadOnly::shared(self.checkpoint.section(column.rows)?));
        }
        let key = (slot.role, slot.position, slot.index);
        let number = *self.structure.columns.get(&key).ok_or_else(missing)?;
        let column = &index.columns[number];
        self.checkpoint.check_rows(column, members)?;
        let (all, bytes) = (column.rows, column.row_bytes);
        Ok(ReadOnly::rows_of(self.checkpoint.unchecked(all), bytes as usize, rows))
    }

    /// Reads a scalar of the models: a setting of their modules.
    fn scalars(&self, types: &SavedTypes, scalar: &Scalar) -> Result<Vec<f64>, CheckpointError> {
        let positions = &self.structure.scheme.blueprint.positions;
        let path = positions.get(scalar.position).map(|at| at.path.clone()).unwrap_or_default();
        let missing = || StepError::Scalar { path: path.clone(), name: scalar.name };
        let modules = self.entry.modules.of(&self.checkpoint.index().modules);
        let module = modules.get(scalar.position).ok_or_else(missing)?;
        for number in module.components.range() {
            let (ty, values) = self.checkpoint.component(types, number)?;
            let mut known: Vec<Option<f64>> = vec![None; values.len()];
            let mut read = Vec::with_capacity(self.members.len());
            for &(_, member) in self.members {
                let Some(which) = values.which(member) else { break };
                if known[which].is_none() {
                    let value = ty.read(types, values.value(which))?;
                    known[which] = value.module().and_then(|module| module.scalar(scalar.name));
                }
                let Some(number) = known[which] else { break };
                read.push(number);
            }
            if read.len() == self.members.len() {
                return Ok(read);
            }
        }
        Err(missing().into())
    }
}
