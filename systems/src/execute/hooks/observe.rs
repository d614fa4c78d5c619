//! Observed passes: computed by a plan that also gives what hooks see; the hooks are called afterwards.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::cpu::memory::{AlignedBytes, padded};
use neurarch_kernels::cpu::tile::Key;
use neurarch_kernels::passes::differentiate::{Crossing, WatchGradients};
use neurarch_kernels::program::Node;
use neurarch_kernels::program::trace::{Trace, Var};

use super::{Again, CallHooks, Past, Runner, Shared, watched};
use crate::compile::plans::{Planned, Request};
use crate::compile::script::{Event, Kinds};
use crate::errors::BindError;
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::cohort::EAGER;
use crate::execute::eager::Made;
use crate::execute::hooks::Memory;
use crate::execute::undo::Undo;
use crate::storage::bind::Bound;
use crate::storage::bind::Located;
use crate::storage::launch::Buffers;
use crate::storage::launch::Job;
use crate::storage::launch::Listed;
use crate::storage::launch::Read;
use crate::storage::launch::Write;
use crate::structure::population::population;

/// What came of an observed pass.
pub(crate) enum Observed {
    /// Hooks only looked.
    Made(Made, Done),
    /// A hook changes something, or fails: all is as it was before, and the pass has to be made again.
    Undone(Again),
}

/// An observed pass that is made.
pub(crate) struct Done {
    undo: Option<Undo>,
    pub(super) past: Past,
    pub(super) calls: CallHooks,
}

impl Done {
    /// Counts what was drawn.
    pub(crate) fn keep(&self, world: &mut World, cohort: &mut Cohort) {
        if self.past.keys.is_some() {
            cohort.advance_keys(world, 1);
        }
    }

    /// Keeps some of the members, by their places, in that order.
    pub(super) fn select(&mut self, members: &[usize]) {
        if let Some(undo) = &mut self.undo {
            undo.select(members);
        }
        if let Some(keys) = &mut self.past.keys {
            *keys = members.iter().map(|&member| keys[member]).collect();
        }
    }

    /// Makes everything as it was before, and keeps what was there instead.
    ///
    /// # Errors
    ///
    /// If a slot has no column any more.
    pub(crate) fn exchange(
        &mut self,
        world: &mut World,
        at: &mut Located,
    ) -> Result<(), BindError> {
        self.undo.as_mut().map_or(Ok(()), |undo| undo.exchange(world, at))
    }
}

/// Finds the plan that gives what the hooks of a cohort see, too; no place if it has to run eagerly.
pub(crate) fn prepare(
    world: &mut World,
    cohort: &mut Cohort,
    shared: Option<&Shared>,
    request: Request<'_>,
) -> Result<usize, StepError> {
    let watched = watched_now(world, cohort, shared)?;
    if cohort.changes.as_ref() == Some(&watched) {
        return Ok(EAGER);
    }
    cohort.changes = None;
    prepare_for(world, cohort, watched, request)
}

/// Lists the kinds of hooks that a cohort has at each position.
pub(super) fn watched_now(
    world: &World,
    cohort: &Cohort,
    shared: Option<&Shared>,
) -> Result<Vec<Kinds>, StepError> {
    let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
    Ok(watched(world, &cohort.scheme.blueprint, shared, group, cohort.hooked()))
}

/// Finds the plan for these hooks.
pub(super) fn prepare_for(
    world: &mut World,
    cohort: &mut Cohort,
    watched: Vec<Kinds>,
    request: Request<'_>,
) -> Result<usize, StepError> {
    let request = Request { watched: &watched, ..request };
    match cohort.prepare(world, cohort.at.population, &request) {
        // What goes wrong while a program is recorded, a hook may mend, or be told of.
        Err(StepError::Trace(_)) => {
            cohort.changes = Some(watched);
            Ok(EAGER)
        }
        found => found,
    }
}

/// What an observed pass is made of.
pub(crate) struct Look<'a> {
    /// The place of its plan in [`Cohort::ready`].
    pub(crate) chosen: usize,
    pub(crate) inputs: &'a [Read<'a>],
    /// Where its tape goes, if it has one.
    pub(crate) tape: Write<'a>,
    /// The hooks that gradients will meet, if it is a way back.
    pub(crate) calls: CallHooks,
}

/// Makes a pass of the members of a cohort by a plan, and tells their hooks what was computed.
///
/// # Errors
///
/// If there is nothing to run, which is a bug.
pub(crate) fn run(
    world: &mut World,
    cohort: &mut Cohort,
    shared: Option<Shared>,
    look: Look<'_>,
    buffers: &mut Buffers,
) -> Result<Observed, StepError> {
    let planned = cohort.ready[look.chosen].planned.clone();
    // Hooks may draw where the models do not.
    cohort.refresh_keys(world)?;
    let mut memory = std::mem::take(&mut cohort.observed);
    let Look { chosen, inputs, tape, calls } = look;
    let job = (cohort.ready[chosen].scalars.as_slice(), inputs);
    let undo = compute(
        world,
        &mut cohort.at,
        (&planned, cohort.keys.get()),
        job,
        tape,
        (&mut memory, buffers),
    )?;
    let (program, eager) = cohort.spare.take().map(|spare| *spare).unwrap_or_default();
    let eager = eager.again(cohort.at.members.len(), cohort.keys.get());
    let trace = Trace::eager_in(program, eager);
    let hooks = (shared, calls);
    let (again, calls) = tell(world, cohort, hooks, &planned, &memory.seen, &trace)?;
    if again.has_answer() {
        undo.map_or(Ok(()), |undo| undo.restore(world, &mut cohort.at))?;
        cohort.changes = Some(planned.watched.clone());
        return Ok(Observed::Undone(again));
    }
    let mut past = again.into_past();
    let recorded = trace.pause()?;
    let made = read(cohort, &planned, &memory.own);
    let is_random = |node: &Node| node.op.is_random();
    let draws = planned.is_random || recorded.0.nodes.iter().any(is_random);
    past.keys = draws.then(|| cohort.keys.get().to_vec());
    cohort.spare = Some(Box::new(recorded));
    cohort.observed = memory;
    Ok(Observed::Made(made, Done { undo, past, calls }))
}

/// Runs the plan; gives how to undo that.
fn compute(
    world: &mut World,
    at: &mut Located,
    (planned, keys): (&Arc<Planned>, &[Key]),
    (scalars, inputs): (&[f64], &[Read<'_>]),
    tape: Write<'_>,
    (memory, buffers): (&mut Memory, &mut Buffers),
) -> Result<Option<Undo>, StepError> {
    let models = at.members.len();
    let (own, seen) = (padded(planned.row_bytes()), planned.seen_bytes);
    memory.own.reserve(own * models);
    memory.seen.reserve(seen * models);
    let rows = Listed::new(0..models as u32);
    let mut arrays = [
        Write::listed(memory.own.bytes_mut(), own, &rows),
        tape,
        Write::listed(memory.seen.bytes_mut(), seen, &rows),
    ];
    let job = Job {
        plan: &planned.plan,
        steps: 1,
        first_step: 0,
        inputs,
        outputs: &planned.places,
        scalars,
        written: &planned.written,
        keys: if planned.is_random { keys } else { &[] },
    };
    let mut undo = None;
    let keep = &mut |bound: &Bound<'_>| undo = Some(Undo::copy(bound, planned));
    let mut queue = buffers.queue();
    queue.push(at, [job]);
    queue.launch_seen(world, &mut arrays, buffers, keep)?;
    Ok(undo)
}

/// Reads the results of all members.
fn read(cohort: &Cohort, planned: &Planned, own: &AlignedBytes) -> Made {
    let row = planned.row_bytes();
    let rows = own.bytes().chunks_exact(padded(row).max(1)).take(cohort.at.members.len());
    let bytes = rows.flat_map(|of_member| &of_member[..row]).copied().collect();
    Made { results: planned.results.clone().unwrap_or_default(), bytes }
}

/// Tells the hooks what happened, in order, up to the first answer that changes something or is an error; gives what
/// they did, and the hooks that gradients will meet.
fn tell(
    world: &World,
    cohort: &Cohort,
    (shared, calls): (Option<Shared>, CallHooks),
    planned: &Planned,
    seen: &AlignedBytes,
    trace: &Trace,
) -> Result<(Again, CallHooks), StepError> {
    let (models, stride) = (cohort.at.members.len(), planned.seen_bytes);
    let vars = planned.seen().map(|(ty, offset)| {
        let row = |model| &seen.bytes()[model * stride + offset..][..ty.size_bytes()];
        trace.input_of_rows(ty.clone(), (0..models).map(row))
    });
    let vars: Vec<_> = vars.collect();
    let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
    let blueprint = &cohort.scheme.blueprint;
    let runner = Runner::new(world, blueprint, shared, group, cohort.hooked(), models);
    let mut runner = runner.observing();
    runner.set_calls(calls);
    runner.go_back(trace);
    for event in &planned.events {
        tell_of(event, cohort, &vars, trace, &mut runner);
        if runner.has_answer() {
            break;
        }
    }
    Ok(runner.end())
}

/// Tells the hooks of one event.
fn tell_of(event: &Event, cohort: &Cohort, vars: &[Var], trace: &Trace, runner: &mut Runner) {
    let var = &mut |place: usize| vars[place].clone();
    let gradients = |of: &[Option<usize>]| -> Vec<Option<Var>> {
        of.iter().map(|place| place.map(|place| vars[place].clone())).collect()
    };
    match event {
        Event::Before { position, scope, arguments } => {
            let arguments = arguments.clone().map(var);
            within(cohort, trace, *position, || {
                runner.before_call(trace, *position, *scope, arguments);
            });
        }
        Event::After { position, arguments, result } => {
            let (arguments, result) = (arguments.clone().map(var), result.clone().map(var));
            within(cohort, trace, *position, || {
                runner.after_call(trace, *position, &arguments, Some(result));
            });
        }
        Event::Leave { scope, needs, gradients: of } => {
            runner.leave(Crossing { scope: *scope, needs }, &mut gradients(of));
        }
        Event::Enter { scope, needs, gradients: of } => {
            runner.enter(Crossing { scope: *scope, needs }, &mut gradients(of));
        }
        Event::Gradient { position, name, gradient } => {
            runner.gradient(trace, *position, name, &mut vars[*gradient].clone());
        }
        Event::Accumulated { position, name, grad } => {
            runner.accumulated(trace, *position, name, &vars[*grad]);
        }
    }
}

/// Lets hooks of a forward pass record within the call that they are told of, as autocast has it there.
fn within(cohort: &Cohort, trace: &Trace, position: usize, run: impl FnOnce()) {
    let at = &cohort.scheme.blueprint.positions[position];
    trace.autocast(cohort.scheme.autocast, || trace.scope(&at.path, at.module.type_name(), run));
}
