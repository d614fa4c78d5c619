//! Cohorts that are watched: their forward passes, ways back and training steps, observed or op by op.

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;

use super::StepError;
use super::watched_step::{reads_at, step_eagerly};
use crate::compile::array::{Called, Erased};
use crate::compile::results::Results;
use crate::compile::script::Kinds;
use crate::execute::cohort::Cohort;
use crate::execute::eager;
use crate::execute::eager::{Given, Made, Recorded};
use crate::execute::hooks::observe::{Done, Look, Seen};
use crate::execute::hooks::{Again, OuterHooks, Passed};
use crate::execute::loss_arrays::LossArrays;
use crate::execute::record::Record;
use crate::execute::route::Route;
use crate::execute::run::Run;
use crate::execute::shared::EagerGradients;
use crate::execute::step::stretch::Stretch;
use crate::execute::tape::Tape;
use crate::storage::launch::{Read, Write};

/// A pass of watched cohorts.
pub(super) enum What<'a> {
    Forward(&'a Called<'a>),
    /// The way back from the last forward pass, of so many models.
    Backward(usize),
    /// A training step on a minibatch.
    Step(Minibatch<'a>),
}

/// One of the minibatches of a call.
pub(super) struct Minibatch<'a> {
    pub(super) part: &'a Stretch<'a>,
    /// The part's number, of so many.
    pub(super) number: usize,
    pub(super) n_parts: usize,
    /// The step in the part.
    pub(super) step: usize,
    pub(super) loss: &'a dyn DynLoss,
}

/// The pass of a watched cohort. Until it is kept nobody else knows of it.
pub(super) struct Ran {
    /// The cohort's place.
    pub(super) place: usize,
    /// What it gave: nothing in a backward pass.
    pub(super) made: Made,
    by: Way,
}

/// How a pass was made.
enum Way {
    Eager(Box<Recorded>),
    Observed(Done),
}

/// The pass of a watched cohort that is being made.
struct Making {
    place: usize,
    /// Where it was made by a plan, what the hooks are told.
    seen: Option<Seen>,
    /// What it goes back from.
    record: Option<Record>,
    /// What was made op by op instead, of all members.
    eager: Option<(Made, Box<Recorded>)>,
    /// The same of single members, whose hooks changed something.
    ones: Vec<One>,
}

/// A member whose hooks changed something.
struct One {
    member: usize,
    cohort: Cohort,
    made: (Made, Box<Recorded>),
}

/// A turn of hooks: which model is the first that they are told of, the cohort's number among the watched, and the turn of the
/// cohort.
type Turn = (usize, usize, usize);

/// Makes the pass of all watched cohorts: those with a plan are computed, then hooks are called in the order of
/// models; where they change something, the model's pass is made again, op by op. If one fails, all are as they were
/// before, unless all hooks only look.
///
/// # Errors
///
/// What a hook, or an eager pass, fails with.
pub(super) fn make(
    world: &mut World,
    run: &mut Run,
    what: &What<'_>,
) -> Result<Vec<Ran>, StepError> {
    let mut all = begin(run, what);
    let made =
        compute(world, run, what, &mut all).and_then(|()| take_turns(world, run, what, &mut all));
    match made {
        Ok(()) => Ok(end(run, what, all)),
        Err(failure) => {
            for Making { place, seen, .. } in all.into_iter().rev() {
                if let Some(seen) = seen {
                    seen.undo(world, &mut run.cohorts.list[place])?;
                }
            }
            Err(failure)
        }
    }
}

/// Lists the cohorts that are watched.
fn begin(run: &mut Run, what: &What<'_>) -> Vec<Making> {
    let mut all = Vec::new();
    for (place, cohort) in run.cohorts.list.iter().enumerate() {
        let record = match what {
            What::Backward(_) => run.recorded.get_mut(place).and_then(Option::take),
            _ => None,
        };
        let is_watched = match what {
            What::Backward(_) => record.is_some(),
            _ => cohort.is_watched,
        };
        if is_watched {
            all.push(Making { place, seen: None, record, eager: None, ones: Vec::new() });
        }
    }
    all
}

/// Runs the plans of those that have one.
fn compute(
    world: &mut World,
    run: &mut Run,
    what: &What<'_>,
    all: &mut [Making],
) -> Result<(), StepError> {
    let Run { cohorts, chosen, shared, buffers, tape, loss, keeps_gradients, .. } = run;
    let route = |place: usize, cohort: &Cohort| match what {
        What::Step(_) if cohort.changes.is_some() => Route::Eager,
        What::Step(of) => chosen[place * of.n_parts + of.number],
        _ => chosen[place],
    };
    let all_look = shared.as_ref().is_none_or(OuterHooks::only_look)
        && all.iter().all(|Making { place, .. }| {
            let cohort = &cohorts.list[*place];
            !route(*place, cohort).is_eager() && cohort.own.as_ref().is_none_or(|own| own.only_look)
        });
    // A forward pass writes little, and may fail in what follows.
    let keeps_undo = !all_look || matches!(what, What::Forward(_));
    for Making { place, seen, record, .. } in all {
        let cohort = &mut cohorts.list[*place];
        let route = route(*place, cohort);
        let Route::Observed(chosen) = route else { continue };
        let (mut inputs, outputs) = buffers.take();
        let mut tape_of_pass = Write::nothing();
        let mut calls = Vec::new();
        match what {
            What::Forward(called) => {
                inputs.extend(called.arrays.iter().map(|x| Read::new(x.bytes, x.stride())));
                tape_of_pass = Write::new(tape.next.bytes_mut(), tape.next_stride);
            }
            What::Backward(n_models) => {
                inputs.extend(tape.reads(&cohort.ready[chosen].planned, *n_models));
                if let Some(Record::Observed(passed)) = record {
                    calls = passed.take_calls();
                }
            }
            What::Step(of) => {
                inputs.extend(reads_at(of.part, of.step).chain(loss.reads()));
            }
        }
        let look = Look {
            chosen,
            inputs: &inputs,
            tape: tape_of_pass,
            calls,
            keeps_undo,
            keeps_past: matches!(what, What::Forward(_)) && *keeps_gradients && cohort.keeps_tape,
        };
        let computed = Seen::compute(world, cohort, shared.clone(), look, buffers);
        buffers.put(inputs, outputs);
        *seen = Some(computed?);
    }
    Ok(())
}

/// Calls the hooks, model after model; those that have no plan run as their turn comes.
fn take_turns(
    world: &mut World,
    run: &mut Run,
    what: &What<'_>,
    all: &mut [Making],
) -> Result<(), StepError> {
    let turns = all.iter().enumerate().flat_map(|(number, making)| {
        let cohort = &run.cohorts.list[making.place];
        let n_turns = if making.seen.is_some() { cohort.turns() } else { 1 };
        let models = cohort.at.members.indices().take(n_turns).enumerate();
        models.map(move |(turn, model)| (model, number, turn))
    });
    let mut turns: Vec<Turn> = turns.collect();
    if all.len() > 1 {
        turns.sort_unstable();
    }
    turns.into_iter().try_for_each(|turn| take_turn(world, run, what, all, turn))
}

fn take_turn(
    world: &mut World,
    run: &mut Run,
    what: &What<'_>,
    all: &mut [Making],
    (_, number, turn): Turn,
) -> Result<(), StepError> {
    let Run { cohorts, shared, tape, loss, .. } = run;
    let Making { place, seen, record, eager, ones } = &mut all[number];
    let cohort = &mut cohorts.list[*place];
    let with = (&*tape, &*loss);
    let Some(of_plan) = seen else {
        let hooks = (shared.clone(), Again::default());
        *eager = Some(run_eagerly(world, cohort, what, hooks, record.take(), with)?);
        return Ok(());
    };
    let Some(again) = of_plan.tell(world, cohort, turn)? else { return Ok(()) };
    let watched: Vec<Kinds> = of_plan.watched().to_vec();
    let hooks = (shared.clone(), again);
    if cohort.turns() == 1 {
        if let Some(of_plan) = seen.take() {
            of_plan.undo(world, cohort)?;
        }
        cohort.changes = Some(watched);
        *eager = Some(run_eagerly(world, cohort, what, hooks, record.take(), with)?);
        return Ok(());
    }
    let mut one = cohort.alone(turn);
    one.changes = Some(watched);
    of_plan.undo_turn(world, turn, &mut one.at)?;
    let record = record.as_ref().and_then(|record| record.part(&[turn]));
    let made = run_eagerly(world, &mut one, what, hooks, record, with)?;
    ones.push(One { member: turn, cohort: one, made });
    Ok(())
}

/// Makes the pass of a cohort op by op; nothing is written yet.
fn run_eagerly(
    world: &mut World,
    cohort: &mut Cohort,
    what: &What<'_>,
    (shared, again): (Option<OuterHooks>, Again),
    record: Option<Record>,
    (tape, arrays): (&Tape, &LossArrays),
) -> Result<(Made, Box<Recorded>), StepError> {
    let made = match what {
        What::Forward(called) => {
            let given: Vec<_> = called.arrays.iter().map(|x| given(*x, cohort)).collect();
            eager::forward(world, cohort, (shared, again), &given, called.structure)
        }
        What::Step(Minibatch { part, step, loss, .. }) => {
            step_eagerly(world, cohort, (shared, again), (*loss, arrays), (part, *step))
        }
        What::Backward(_) => {
            let recorded = match record.ok_or(StepError::NoForward("backward"))? {
                Record::Eager(recorded) => *recorded,
                Record::Observed(passed) => {
                    let called = tape.inputs().ok_or(StepError::NoForward("backward"))?;
                    passed.again(world, cohort, shared.clone(), called)?
                }
            };
            let given = gradients(tape, cohort);
            let back = eager::backward(world, cohort, (shared, again), recorded, &given);
            back.map(|recorded| (Made::default(), recorded))
        }
    };
    let (made, recorded) = made.inspect_err(|_| cohort.changes = None)?;
    Ok((made, Box::new(recorded)))
}

/// Ends the passes. Members whose hooks changed something run in cohorts of their own from then on.
fn end(run: &mut Run, what: &What<'_>, all: Vec<Making>) -> Vec<Ran> {
    let n_chosen = if let What::Step(of) = what { of.n_parts } else { 1 };
    let mut ran = Vec::with_capacity(all.len());
    for Making { place, seen, eager, ones, .. } in all {
        if let Some((made, recorded)) = eager {
            ran.push(Ran { place, made, by: Way::Eager(recorded) });
            if let What::Backward(_) = what {
                run.chosen[place] = Route::Eager;
            }
        }
        let Some(seen) = seen else { continue };
        let cohort = &mut run.cohorts.list[place];
        let n_members = cohort.places.len();
        let (mut made, mut done) = seen.end(cohort);
        let (mut members, mut cohorts, mut made_alone) = (Vec::new(), Vec::new(), Vec::new());
        for One { member, cohort, made } in ones {
            members.push(member);
            cohorts.push(cohort);
            made_alone.push(made);
        }
        if !members.is_empty() {
            let is_kept = |member: &usize| members.binary_search(member).is_err();
            let kept: Vec<_> = (0..n_members).filter(is_kept).collect();
            made.select(&kept, n_members);
            done = done.part(&kept);
            let places = run.part_changed(place, &members, cohorts, n_chosen);
            let alone = places.into_iter().zip(made_alone);
            ran.extend(alone.map(|(place, (made, recorded))| Ran {
                place,
                made,
                by: Way::Eager(recorded),
            }));
            if kept.is_empty() {
                continue;
            }
        }
        ran.push(Ran { place, made, by: Way::Observed(done) });
    }
    ran
}

/// Returns the rows of an array for the members of a cohort.
fn given<'a>(array: Erased<'a>, cohort: &Cohort) -> Given<'a> {
    let ty = array.ty().to_type();
    let (stride, row) = (array.stride(), ty.size_bytes());
    let rows = cohort.at.members.indices().map(|index| &array.bytes[index * stride..][..row]);
    Given { rows: rows.collect(), ty, needs_gradient: array.needs_gradient }
}

/// Returns the gradients of the results for the members of a cohort, where there are any.
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

/// Makes all as it was before those passes, from the last to the first.
pub(super) fn undo(world: &mut World, run: &mut Run, all: Vec<Ran>) -> Result<(), StepError> {
    all.into_iter().rev().try_for_each(|Ran { place, by, .. }| match by {
        Way::Eager(_) => Ok(()),
        Way::Observed(mut done) => Ok(done.exchange(world, &mut run.cohorts.list[place].at)?),
    })
}

/// Writes what forward passes stored, counts what they drew, and keeps what going back takes.
pub(super) fn keep(
    world: &mut World,
    run: &mut Run,
    called: &Called<'_>,
    all: Vec<Ran>,
) -> Result<(), StepError> {
    let Run { cohorts, recorded, chosen, keeps_gradients, .. } = run;
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
                if !*keeps_gradients || !cohort.keeps_tape {
                    done.leave_memory(cohort);
                    continue;
                }
                let watched =
                    chosen[place].ready(&cohort.ready).map(|ready| ready.planned.watched.clone());
                let watched = watched.unwrap_or_default();
                let given: Vec<_> = called.arrays.iter().map(|x| given(*x, cohort)).collect();
                Record::Observed(Passed::new(done, watched, &given))
            }
        };
        recorded.resize_with(cohorts.list.len(), || None);
        recorded[place] = Some(record);
    }
    Ok(())
}

/// Writes what training steps stored, and counts what they drew.
///
/// # Errors
///
/// If a slot has no column any more.
pub(super) fn keep_steps(world: &mut World, run: &mut Run, all: Vec<Ran>) -> Result<(), StepError> {
    for Ran { place, by, .. } in all {
        let cohort = &mut run.cohorts.list[place];
        match by {
            Way::Eager(mut recorded) => {
                eager::commit(world, cohort, &mut recorded)?;
                recorded.leave_memory(cohort);
            }
            Way::Observed(done) => {
                done.keep(world, cohort);
                done.leave_memory(cohort);
            }
        }
    }
    Ok(())
}

impl Ran {
    /// Takes the gradients of parameters that are shared.
    pub(super) fn take_shared(&mut self) -> Option<EagerGradients> {
        match &mut self.by {
            Way::Eager(recorded) => Some(recorded.take_shared()),
            Way::Observed(_) => None,
        }
    }

    /// Returns what is not written yet.
    pub(super) fn into_recorded(self) -> Option<Recorded> {
        match self.by {
            Way::Eager(recorded) => Some(*recorded),
            Way::Observed(_) => None,
        }
    }
}
