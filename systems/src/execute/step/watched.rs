//! Cohorts that are watched: their forward passes and ways back, observed or op by op.

use bevy_ecs::prelude::*;

use crate::compile::array::{Called, Erased};
use crate::compile::results::Results;
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::cohort::EAGER;
use crate::execute::eager;
use crate::execute::eager::{Given, Made, Recorded};
use crate::execute::hooks::observe;
use crate::execute::hooks::observe::{Done, Look, Observed};
use crate::execute::hooks::{Again, CallHooks, Passed};
use crate::execute::record::Record;
use crate::execute::run::Run;
use crate::execute::shared::EagerGradients;
use crate::execute::tape::Tape;
use crate::storage::launch::{Read, Write};
use crate::structure::mode;

/// The forward pass of a watched cohort. Until it is kept nobody else knows of it.
pub(super) struct Ran {
    /// The cohort's place.
    pub(super) place: usize,
    pub(super) made: Made,
    by: Way,
}

/// The way back through a watched cohort. Until it is kept nobody else knows of it.
pub(super) struct Back {
    /// The cohort's place.
    pub(super) place: usize,
    by: Way,
}

/// How a pass was made.
enum Way {
    Eager(Box<Recorded>),
    Observed(Done),
}

impl Way {
    /// Makes everything as it was before.
    fn undo(self, world: &mut World, cohort: &mut Cohort) -> Result<(), StepError> {
        match self {
            Way::Eager(_) => Ok(()),
            Way::Observed(mut done) => Ok(done.exchange(world, &mut cohort.at)?),
        }
    }
}

/// Runs the watched cohorts forward: if one fails, all are as they were before.
pub(super) fn forward(
    world: &mut World,
    run: &mut Run,
    called: &Called<'_>,
) -> Result<Vec<Ran>, StepError> {
    let mut all = Vec::new();
    for place in 0..run.cohorts.list.len() {
        if !run.cohorts.list[place].is_eager {
            continue;
        }
        match forward_one(world, run, called, place) {
            Ok((made, by)) => all.push(Ran { place, made, by }),
            Err(failure) => {
                undo(world, run, all)?;
                return Err(failure);
            }
        }
    }
    Ok(all)
}

fn forward_one(
    world: &mut World,
    run: &mut Run,
    called: &Called<'_>,
    place: usize,
) -> Result<(Made, Way), StepError> {
    let Run { cohorts, chosen, shared, buffers, tape, .. } = run;
    let (cohort, chosen) = (&mut cohorts.list[place], chosen[place]);
    let mut again = Again::default();
    if chosen != EAGER {
        let inputs: Vec<_> = called.arrays.iter().map(|x| Read::new(x.bytes, x.stride())).collect();
        let tape = Write::new(tape.next.bytes_mut(), tape.next_stride);
        let look = Look { chosen, inputs: &inputs, tape, calls: CallHooks::default() };
        match observe::run(world, cohort, shared.clone(), look, buffers)? {
            Observed::Made(made, done) => return Ok((made, Way::Observed(done))),
            Observed::Undone(so_far) => again = so_far,
        }
    }
    let given: Vec<_> = called.arrays.iter().map(|x| given(*x, cohort)).collect();
    let made = eager::forward(world, cohort, (shared.clone(), again), &given, called.structure);
    let (made, recorded) = made.inspect_err(|_| cohort.changes = None)?;
    Ok((made, Way::Eager(Box::new(recorded))))
}

/// Gives the rows of an array for the members of a cohort.
fn given<'a>(array: Erased<'a>, cohort: &Cohort) -> Given<'a> {
    let ty = array.ty().to_type();
    let (stride, row) = (array.stride(), ty.size_bytes());
    let rows = cohort.at.members.indices().map(|index| &array.bytes[index * stride..][..row]);
    Given { rows: rows.collect(), ty, needs_gradient: array.needs_gradient }
}

/// Makes all as it was before those passes, from the last to the first.
pub(super) fn undo(world: &mut World, run: &mut Run, all: Vec<Ran>) -> Result<(), StepError> {
    let mut all = all.into_iter().rev();
    all.try_for_each(|Ran { place, by, .. }| by.undo(world, &mut run.cohorts.list[place]))
}

/// Writes what those passes stored, counts what they drew, and keeps what going back takes.
pub(super) fn keep(
    world: &mut World,
    run: &mut Run,
    called: &Called<'_>,
    all: Vec<Ran>,
) -> Result<(), StepError> {
    let keeps_gradients = mode::is_grad_enabled(world);
    let Run { cohorts, recorded, chosen, .. } = run;
    for (cohort, record) in cohorts.list.iter_mut().zip(recorded.drain(..)) {
        if let Some(Record::Eager(recorded)) = record {
            recorded.leave_memory(cohort);
        }
    }
    for Ran { place, by, .. } in all {
        let cohort = &mut cohorts.list[place];
        let record = match by {
            Way::Eager(mut recorded) => {
                eager::commit(world, cohort, &mut recorded)?;
                Record::Eager(recorded)
            }
            Way::Observed(done) => {
                done.keep(world, cohort);
                if !keeps_gradients || !cohort.keeps_tape {
                    continue;
                }
                let watched = cohort.ready[chosen[place]].planned.watched.clone();
                let given: Vec<_> = called.arrays.iter().map(|x| given(*x, cohort)).collect();
                Record::Observed(Passed::new(done, watched, &given))
            }
        };
        recorded.resize_with(cohorts.list.len(), || None);
        recorded[place] = Some(record);
    }
    Ok(())
}

/// Goes back through the watched cohorts, by the chosen plans or op by op: if one fails, all are as they were before.
pub(super) fn backward(
    world: &mut World,
    run: &mut Run,
    n_models: usize,
) -> Result<Vec<Back>, StepError> {
    let mut all: Vec<Back> = Vec::new();
    for place in 0..run.recorded.len() {
        let Some(record) = run.recorded[place].take() else { continue };
        match backward_one(world, run, n_models, (place, record)) {
            Ok(by) => all.push(Back { place, by }),
            Err(failure) => {
                let mut all = all.into_iter().rev();
                all.try_for_each(|Back { place, by }| {
                    by.undo(world, &mut run.cohorts.list[place])
                })?;
                return Err(failure);
            }
        }
    }
    Ok(all)
}

fn backward_one(
    world: &mut World,
    run: &mut Run,
    n_models: usize,
    (place, record): (usize, Record),
) -> Result<Way, StepError> {
    let Run { cohorts, chosen, shared, buffers, tape, .. } = run;
    let (cohort, chosen) = (&mut cohorts.list[place], &mut chosen[place]);
    let mut again = Again::default();
    let recorded = match record {
        Record::Eager(recorded) => *recorded,
        Record::Observed(mut passed) => {
            if *chosen != EAGER {
                let planned = cohort.ready[*chosen].planned.clone();
                let inputs = tape.reads(&planned, n_models);
                let (tape, calls) = (Write::nothing(), passed.take_calls());
                let look = Look { chosen: *chosen, inputs: &inputs, tape, calls };
                match observe::run(world, cohort, shared.clone(), look, buffers)? {
                    Observed::Made(_, done) => return Ok(Way::Observed(done)),
                    Observed::Undone(so_far) => again = so_far,
                }
                *chosen = EAGER;
            }
            let called = tape.inputs().ok_or(StepError::NoForward("backward"))?;
            passed.again(world, cohort, shared.clone(), called)?
        }
    };
    let given = gradients(tape, cohort);
    let back = eager::backward(world, cohort, (shared.clone(), again), recorded, &given);
    let back = back.inspect_err(|_| cohort.changes = None)?;
    Ok(Way::Eager(Box::new(back)))
}

/// Gives the gradients of the results for the members of a cohort, where there are any.
fn gradients<'a>(tape: &'a Tape, cohort: &Cohort) -> Vec<Option<Given<'a>>> {
    let row_bytes = tape.results.as_ref().map_or(0, |results| results.row_bytes);
    let given = tape.results.iter().flat_map(Results::floats).map(|(ty, offset)| {
        let start = |index: usize| index * row_bytes + offset;
        let row = |index: usize| &tape.gradient.bytes()[start(index)..][..ty.size_bytes()];
        let rows = cohort.at.members.indices().map(row).collect();
        Given { rows, ty: ty.clone(), needs_gradient: false }
    });
    let is_given = |number: usize| tape.given.get(number).is_none_or(|given| *given);
    given.enumerate().map(|(number, given)| is_given(number).then_some(given)).collect()
}

impl Back {
    /// Takes the gradients of parameters that are shared.
    pub(super) fn take_shared(&mut self) -> Option<EagerGradients> {
        match &mut self.by {
            Way::Eager(recorded) => Some(recorded.take_shared()),
            Way::Observed(_) => None,
        }
    }

    /// Gives what is not written yet.
    pub(super) fn into_recorded(self) -> Option<Recorded> {
        match self.by {
            Way::Eager(recorded) => Some(*recorded),
            Way::Observed(_) => None,
        }
    }
}
