//! [`Tape`]: what the last forward pass left behind, and whose it is.
//!
//! Models may come, go and change between the calls of a step. Rows of the tape follow those that are left to their
//! new indices; for models that did not run, or ran as something else, there is nothing to go on from.

use std::collections::HashMap;
use std::sync::Arc;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::Mode;
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;
use neurarch_components::population::versions::Versions;
use neurarch_kernels::ir::autocast::Autocast;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::tree::Arguments;
use neurarch_kernels::memory::AlignedBytes;

use crate::compile::array::Called;
use crate::compile::entrance::Entrance;
use crate::compile::plans::Planned;
use crate::compile::results::Results;
use crate::errors::StepError;
use crate::errors::room::{self, NoRoom};
use crate::execute::cohort::{Cohort, Cohorts, Passed};
use crate::execute::record::Record;
use crate::storage::gather::gathered;
use crate::storage::launch::Read;
use crate::structure::population::population;

/// What the last forward pass left behind.
#[derive(Default)]
pub(crate) struct Tape {
    /// The types of what the models were called with in the last pass that wrote the tape.
    inputs: Vec<Type>,
    /// How these were nested; `None` if they were one value.
    structure: Option<Arguments<usize>>,
    /// What autocast did in that pass.
    pub(crate) autocast: Option<Autocast>,
    /// Where the models were entered in that pass.
    pub(crate) entry: Option<Arc<Entrance>>,
    /// Whether a pass is kept for `backward`.
    is_written: bool,
    /// What the models gave; `None` before the first pass.
    pub(crate) results: Option<Results>,
    whose: Whose,
    /// When it was written.
    pub(crate) written: Written,
    /// Saved values, a row for each model of the population.
    pub(crate) saved: AlignedBytes,
    /// Bytes of a row.
    pub(crate) stride: usize,
    /// The same of a watched pass that may still fail.
    pub(crate) next: AlignedBytes,
    /// Bytes of a row of the pass that is being made.
    pub(crate) next_stride: usize,
    /// The results, a row for each model.
    pub(crate) outputs: AlignedBytes,
    /// Their gradients, which lie as the results do.
    pub(crate) gradient: AlignedBytes,
    /// Which floating results `gradient` is of; of all if it is empty.
    pub(crate) given: Vec<bool>,
    /// What `gradient` holds.
    pub(crate) start: Start,
    /// The gradients of what the models were called with, a row for each model, where the last backward pass
    /// found one that was asked for.
    pub(crate) dx: InputGradients,
}

/// The gradients of what models were called with, as far as there are any: their types, and a row for each model.
pub(crate) type InputGradients = Vec<Option<(Type, Vec<u8>)>>;

/// What a backward pass would start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// There was no loss since the last forward pass.
    #[default]
    Nothing,
    /// The gradient of a loss of one number.
    Loss,
    /// None, since the loss was an array.
    LossArray,
}

/// When a tape was written: parameters that somebody writes to later are others than it was written with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Written {
    pub(crate) tick: Tick,
    /// See [`Versions::now`].
    pub(crate) version: u64,
}

impl Written {
    /// Makes an end of what is written by now.
    pub(crate) fn now(world: &mut World, population: Entity) -> Self {
        let version = world.get::<Versions>(population).map_or(0, Versions::now);
        Written { tick: world.increment_change_tick(), version }
    }
}

/// Whose forward pass a tape is of.
#[derive(Default)]
struct Whose {
    /// The models, by the rows of the tape.
    rows: Vec<Row>,
    passes: Vec<Pass>,
    /// The population's version and the regrouping of its cohorts at the pass.
    made: Option<(u64, u64)>,
    /// Those that the rows follow.
    seen: Option<(u64, u64)>,
    /// Whether the cohorts that were seen last have the modes of the pass.
    fits: bool,
}

/// A model that a row is of.
#[derive(Clone, Copy)]
struct Row {
    root: Entity,
    number: u64,
    /// In which pass it ran, and its place there; none if it was inactive.
    ran: Option<(u32, u32)>,
}

/// The forward pass of a cohort.
struct Pass {
    blueprint: Arc<Blueprint>,
    mode: Mode,
    /// For each position, the module's entity of each member.
    modules: Vec<Vec<Entity>>,
    /// The place of its record among those of the run, if it has one.
    record: usize,
}

/// A part of a pass: its number, and the places of those of its members that are left, if they are not all.
type Part = (usize, Option<Vec<usize>>);

impl Tape {
    /// Forgets what `backward` would need.
    pub(crate) fn forget(&mut self) {
        self.is_written = false;
        self.start = Start::Nothing;
        self.dx.clear();
    }

    /// Checks that there is room for the rows of the pass that is being made, and for its results of `row_bytes` a model.
    ///
    /// # Errors
    ///
    /// If they do not fit the memory that is free.
    pub(crate) fn check_room(&self, n_models: usize, row_bytes: usize) -> Result<(), NoRoom> {
        let [rows, results] = [self.next_stride, row_bytes].map(|row| row.saturating_mul(n_models));
        let rows = if rows > self.saved.len() { rows } else { 0 };
        // Results lie here, and in the array that the caller gets.
        let results = if results > self.outputs.len() { results.saturating_mul(2) } else { 0 };
        room::check_free(rows.saturating_add(results))
    }

    /// Returns the bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let Tape { saved, next, outputs, gradient, dx, .. } = self;
        let of_inputs = dx.iter().flatten().map(|(_, bytes)| bytes.len()).sum::<usize>();
        [saved, next, outputs, gradient].map(AlignedBytes::len).iter().sum::<usize>() + of_inputs
    }

    /// Begins to write the tape of a pass of which watched cohorts, if there are any, wrote theirs already.
    pub(crate) fn begin(&mut self, n_models: usize, is_watched: bool) {
        self.forget();
        self.stride = self.next_stride;
        match is_watched {
            true => std::mem::swap(&mut self.saved, &mut self.next),
            false => self.saved.reserve(self.stride * n_models),
        }
    }

    /// Remembers a forward pass of these cohorts that gave `y`, whose types are known already.
    /// Gradients were off: nothing is kept for `backward`.
    pub(crate) fn remember(
        &mut self,
        world: &World,
        called: &Called<'_>,
        y: &[u8],
        (of, cohorts): (Entity, &Cohorts),
        keeps_gradients: bool,
    ) -> Result<(), StepError> {
        self.outputs.reserve(y.len());
        self.outputs.bytes_mut()[..y.len()].copy_from_slice(y);
        self.whose.remember(world, of, cohorts)?;
        let is_written = |cohort: &Cohort| cohort.keeps_tape || cohort.is_watched;
        self.is_written = keeps_gradients && cohorts.list.iter().any(is_written);
        if !self.is_written {
            return Ok(());
        }
        let is_known = self.inputs.len() == called.arrays.len()
            && self.inputs.iter().zip(called.arrays).all(|(known, x)| x.ty().is(known));
        if !is_known {
            self.inputs = called.arrays.iter().map(|x| x.ty().to_type()).collect();
        }
        self.autocast = cohorts.list.first().and_then(|cohort| cohort.scheme.autocast);
        self.entry = called.entry.cloned();
        if self.structure.as_ref() != called.structure {
            self.structure = called.structure.cloned();
        }
        Ok(())
    }

    /// Ends a pass, after all that it writes: parameters that somebody writes to later are others than it ran with.
    pub(crate) fn close(&mut self, world: &mut World, population: Entity) {
        if self.is_written {
            self.written = Written::now(world, population);
        }
    }

    /// Returns the types of the inputs of the pass kept for `backward`, if there is one, and how they were nested.
    pub(crate) fn inputs(&self) -> Option<(&[Type], Option<&Arguments<usize>>)> {
        self.is_written.then_some((self.inputs.as_slice(), self.structure.as_ref()))
    }

    /// Returns, of each model's root, in which cohort it ran, and whether that left a record.
    pub(crate) fn passes(&self, recorded: &[Option<Record>]) -> Passed {
        let has_record = |pass: &Pass| recorded.get(pass.record).is_some_and(Option::is_some);
        let recorded: Vec<_> = self.whose.passes.iter().map(has_record).collect();
        let rows = self.whose.rows.iter();
        let pass = |row: &Row| row.ran.map(|(pass, _)| (pass, recorded[pass as usize]));
        rows.filter_map(|row| Some((row.root, pass(row)?))).collect()
    }

    /// Returns whether the cohorts have the modes of the pass: after [`Run::follow`].
    pub(crate) fn has_modes(&self) -> bool {
        self.whose.fits
    }

    /// Returns whether the cohorts were not regrouped since it was made to follow them.
    pub(crate) fn has_seen(&self, cohorts: &Cohorts) -> bool {
        self.whose.seen.is_some_and(|(_, regrouped)| regrouped == cohorts.regrouped)
    }

    /// Returns the gradients of what the models were called with, by the indices that they have now.
    ///
    /// # Errors
    ///
    /// If a model was spawned since the pass.
    pub(crate) fn input_gradients(
        &self,
        world: &World,
        population: &Population,
    ) -> Result<InputGradients, StepError> {
        if self.dx.iter().all(Option::is_none) {
            return Ok(vec![None; self.dx.len()]);
        }
        let rows = self.whose.rows_of(world, population)?;
        let gather = |found: &Option<(Type, Vec<u8>)>| {
            let (ty, bytes) = found.as_ref()?;
            Some((ty.clone(), gathered(bytes, ty.size_bytes(), &rows)))
        };
        Ok(self.dx.iter().map(gather).collect())
    }

    /// Returns what the plans of a backward pass read: the gradients of the results, and the tape.
    pub(crate) fn reads<'a>(&'a self, planned: &Planned, n_models: usize) -> Vec<Read<'a>> {
        let row = self.results.as_ref().map_or(0, |results| results.row_bytes);
        let gradient = Read::new(&self.gradient.bytes()[..row * n_models], row);
        let saved = Read::new(self.saved.bytes(), self.stride);
        let floats = self.results.iter().flat_map(Results::floats);
        let gradients = floats.map(|(_, offset)| gradient.at(offset, 0));
        gradients.chain(planned.saved.iter().map(|&offset| saved.at(offset, 0))).collect()
    }

    /// Puts the rows of models where their indices are now.
    fn gather(&mut self, rows: &[usize]) {
        let row_bytes = self.results.as_ref().map_or(0, |results| results.row_bytes);
        let buffers = [
            (&mut self.saved, self.stride),
            (&mut self.outputs, row_bytes),
            (&mut self.gradient, row_bytes),
        ];
        let n_rows = self.whose.rows.len();
        for (buffer, stride) in
            buffers.into_iter().filter(|(buffer, of)| buffer.len() >= of * n_rows)
        {
            let all = gathered(buffer.bytes(), stride, rows);
            buffer.bytes_mut()[..all.len()].copy_from_slice(&all);
        }
        for (ty, bytes) in self.dx.iter_mut().flatten() {
            *bytes = gathered(bytes, ty.size_bytes(), rows);
        }
        self.whose.rows = rows.iter().map(|&row| self.whose.rows[row]).collect();
        self.whose.made = None;
    }
}

fn is_identity(rows: &[usize], n_rows: usize) -> bool {
    rows.len() == n_rows && rows.iter().enumerate().all(|(index, &row)| index == row)
}

impl Whose {
    /// Lists who just ran.
    fn remember(&mut self, world: &World, of: Entity, cohorts: &Cohorts) -> Result<(), StepError> {
        let now = cohorts.now();
        self.seen = now;
        self.fits = true;
        if now.is_some() && self.made == now {
            return Ok(());
        }
        let found = population(world, of)?;
        if self.follow_turnover(world, found, cohorts) {
            self.made = now;
            return Ok(());
        }
        self.made = now;
        let number = |root| world.get::<Model>(root).map_or(0, |model| model.number);
        let row = |&root: &Entity| Row { root, number: number(root), ran: None };
        self.rows = found.models().iter().map(row).collect();
        self.passes.clear();
        for (pass, cohort) in cohorts.list.iter().enumerate() {
            let group = &found.groups()[cohort.at.group];
            for (place, index) in cohort.at.members.indices().enumerate() {
                self.rows[index].ran = Some((pass as u32, place as u32));
            }
            let of_members = |all: &Vec<Entity>| {
                cohort.places.iter().map(|&place| all[place as usize]).collect()
            };
            self.passes.push(Pass {
                blueprint: cohort.scheme.blueprint.clone(),
                mode: cohort.scheme.mode.clone(),
                modules: group.modules.iter().map(of_members).collect(),
                record: pass,
            });
        }
        Ok(())
    }

    /// Follows the models that came, went or moved since the last pass, if all were one cohort and still are; says whether
    /// they are.
    fn follow_turnover(&mut self, world: &World, found: &Population, cohorts: &Cohorts) -> bool {
        let Some((version, regrouped)) = self.made else { return false };
        let ([pass], [cohort]) = (self.passes.as_mut_slice(), cohorts.list.as_slice()) else {
            return false;
        };
        let is_one = regrouped == cohorts.regrouped && cohort.at.members.is_all();
        let Some(turnover) = found.turnover(version).filter(|_| is_one) else { return false };
        let (before, count) = (self.rows.len() as u32, found.len());
        let row = Row { root: Entity::PLACEHOLDER, number: 0, ran: None };
        self.rows.resize(count, row);
        let group = &found.groups()[cohort.at.group];
        pass.modules.iter_mut().for_each(|of| of.resize(count, Entity::PLACEHOLDER));
        for index in turnover.chain(before..count as u32).filter(|&at| (at as usize) < count) {
            let (place, root) = (index as usize, found.models()[index as usize]);
            let number = world.get::<Model>(root).map_or(0, |model| model.number);
            self.rows[place] = Row { root, number, ran: Some((0, index)) };
            pass.modules
                .iter_mut()
                .zip(&group.modules)
                .for_each(|(of, now)| of[place] = now[place]);
        }
        (pass.mode, pass.record) = (cohort.scheme.mode.clone(), 0);
        true
    }

    /// Finds the row of each model of the population.
    fn rows_of(&self, world: &World, found: &Population) -> Result<Vec<usize>, StepError> {
        let by_root: HashMap<_, _> =
            self.rows.iter().enumerate().map(|(row, of)| (of.root, row)).collect();
        let row = |(model, root): (usize, &Entity)| {
            let number = world.get::<Model>(*root).map(|model| model.number);
            let known = by_root.get(root).copied();
            let known = known.filter(|&row| Some(self.rows[row].number) == number);
            known.ok_or(StepError::Spawned { model })
        };
        found.models().iter().enumerate().map(row).collect()
    }

    /// Checks that the members of a cohort ran with the modules that they have now; says whether their modes are
    /// those of then.
    fn check(
        &self,
        found: &Population,
        cohort: &Cohort,
        rows: &[usize],
    ) -> Result<bool, StepError> {
        let group = &found.groups()[cohort.at.group];
        let mut fits = true;
        for (model, &place) in cohort.at.members.indices().zip(&cohort.places) {
            let ran = self.rows[rows[model]].ran;
            let (pass, then) = ran.ok_or(StepError::Activated { model })?;
            let pass = &self.passes[pass as usize];
            let mut modules = pass.modules.iter().zip(&group.modules);
            // Who was edited there and back again has a blueprint of its own, equal to the one before.
            let (before, after) = (&pass.blueprint, &cohort.scheme.blueprint);
            let is_same = (Arc::ptr_eq(before, after) || before.is_like(after))
                && modules.all(|(of, now)| of[then as usize] == now[place as usize]);
            if !is_same {
                return Err(StepError::Edited { model });
            }
            fits &= pass.mode.computes_like(&cohort.scheme.mode);
        }
        Ok(fits)
    }

    /// Makes a pass of its own of what some rows, which increase, are of a pass.
    fn part(&mut self, pass: usize, record: usize, rows: impl Iterator<Item = usize>) {
        let number = self.passes.len() as u32;
        let mut members = Vec::new();
        for row in rows {
            let Some((_, member)) = self.rows[row].ran else { continue };
            self.rows[row].ran = Some((number, members.len() as u32));
            members.push(member as usize);
        }
        let Pass { blueprint, mode, modules, .. } = &self.passes[pass];
        let of_members = |all: &Vec<Entity>| members.iter().map(|&member| all[member]).collect();
        let modules = modules.iter().map(of_members).collect();
        let (blueprint, mode) = (blueprint.clone(), mode.clone());
        self.passes.push(Pass { blueprint, mode, modules, record });
    }

    /// Finds for each cohort the pass whose record is of its members, and their places in it if they are not all.
    fn records(
        &self,
        cohorts: &Cohorts,
        recorded: &[Option<Record>],
        rows: &[usize],
    ) -> Result<Vec<Option<Part>>, StepError> {
        let mut members = vec![0; self.passes.len()];
        let places = self.rows.iter().map(|row| {
            let (pass, _) = row.ran?;
            members[pass as usize] += 1;
            Some((pass as usize, members[pass as usize] - 1))
        });
        let places: Vec<_> = places.collect();
        let mut is_taken = vec![false; self.passes.len()];
        let record = |pass: usize| recorded.get(self.passes[pass].record)?.as_ref();
        let has_record = |pass: usize| record(pass).is_some();
        let can_part = |pass: usize| record(pass).is_some_and(Record::can_part);
        let of_cohort = |cohort: &Cohort| {
            let ran = cohort.at.members.indices().filter_map(|index| places[rows[index]]);
            let (passes, places): (Vec<_>, Vec<_>) = ran.unzip();
            if !passes.iter().any(|&pass| has_record(pass)) {
                return Ok(None);
            }
            let pass = passes[0];
            let is_free = !is_taken[pass] || can_part(pass);
            match passes.iter().all(|&other| other == pass) && is_free {
                true => is_taken[pass] = true,
                false => return Err(StepError::Changed),
            }
            let are_all = is_identity(&places, members[pass]);
            Ok(Some((pass, Some(places).filter(|_| !are_all))))
        };
        cohorts.list.iter().map(of_cohort).collect()
    }
}

impl Tape {
    /// Follows the population: the rows of models that are gone are dropped, the others are put where
    /// the models' indices are now. Costs a comparison if nothing changed since the forward pass.
    ///
    /// # Errors
    ///
    /// If a model did not run, or has other modules by now. Nothing is changed then.
    pub(crate) fn follow(
        &mut self,
        world: &World,
        found: &Population,
        cohorts: &Cohorts,
        recorded: &mut Vec<Option<Record>>,
    ) -> Result<(), StepError> {
        let tape = self;
        let now = Some((found.version(), cohorts.regrouped));
        if tape.results.is_none() || tape.whose.seen == now {
            return Ok(());
        }
        let whose = &tape.whose;
        let rows = whose.rows_of(world, found)?;
        let mut fits = true;
        for cohort in &cohorts.list {
            fits &= whose.check(found, cohort, &rows)?;
        }
        let records = whose.records(cohorts, recorded, &rows)?;

        let mut before = std::mem::take(recorded);
        let passes = &mut tape.whose.passes;
        let old: Vec<_> = passes.iter().map(|pass| pass.record).collect();
        passes.iter_mut().for_each(|pass| pass.record = usize::MAX);
        let mut left = vec![0; passes.len()];
        records.iter().flatten().for_each(|(pass, _)| left[*pass] += 1);
        for ((place, record), cohort) in records.into_iter().enumerate().zip(&cohorts.list) {
            let Some((pass, places)) = record else {
                recorded.push(None);
                continue;
            };
            left[pass] -= 1;
            let of_pass = &mut before[old[pass]];
            recorded.push(match places {
                Some(places) if left[pass] > 0 => {
                    let of_cohort = cohort.at.members.indices().map(|index| rows[index]);
                    tape.whose.part(pass, place, of_cohort);
                    of_pass.as_ref().and_then(|record| record.part(&places))
                }
                Some(places) => {
                    tape.whose.passes[pass].record = place;
                    of_pass.take().map(|record| record.select(&places))
                }
                None => {
                    tape.whose.passes[pass].record = place;
                    of_pass.take()
                }
            });
        }
        if !is_identity(&rows, tape.whose.rows.len()) {
            tape.gather(&rows);
        }
        tape.whose.seen = now;
        tape.whose.fits = fits;
        Ok(())
    }
}
