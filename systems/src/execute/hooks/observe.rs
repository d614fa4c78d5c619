//! Observed passes: computed by a plan that also gives what hooks see; the hooks are called afterwards.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::memory::padded;

use super::teller::{Teller, Turn};
use super::{Again, CallHooks, Kinds, OuterHooks, Past, watched};
use crate::compile::plans::{Planned, Request};
use crate::errors::{BindError, StepError};
use crate::execute::cohort::Cohort;
use crate::execute::eager::Made;
use crate::execute::hooks::Memory;
use crate::execute::route::Route;
use crate::execute::undo::Undo;
use crate::storage::bind::{Bound, Located};
use crate::storage::launch::{Buffers, Job, Listed, Read, Write};
use crate::structure::population::population;

/// An observed pass that is made.
#[derive(Default)]
pub(crate) struct Done {
    undo: Option<Undo>,
    /// Whether models had turns of their own: then there is one of what follows for each member, else one for all; none
    /// if nobody will ask.
    is_each: bool,
    past: Vec<Past>,
    calls: Vec<CallHooks>,
    /// Whose random states moved on.
    drew: Drew,
}

/// Who drew random numbers.
#[derive(Clone, Default)]
enum Drew {
    /// The plan, for all members.
    All,
    /// The hooks of these members.
    Some(Vec<u32>),
    #[default]
    Nobody,
}

impl Done {
    /// Counts what was drawn.
    ///
    /// # Errors
    ///
    /// If the population is gone.
    pub(crate) fn keep(&self, world: &mut World, cohort: &mut Cohort) {
        match &self.drew {
            Drew::All => cohort.advance_keys(world, 1),
            Drew::Some(members) => cohort.advance_keys_of(world, members),
            Drew::Nobody => {}
        }
    }

    /// Leaves its memory to the next pass.
    pub(crate) fn leave_memory(self, cohort: &mut Cohort) {
        cohort.observed.undo = self.undo.map(Undo::into_memory).unwrap_or_default();
    }

    /// Copies what is of some of the members, by their places, in that order.
    pub(crate) fn part(&self, members: &[usize]) -> Done {
        let Done { undo, is_each, past, calls, drew } = self;
        let of_each = |all: usize| members.iter().copied().filter(move |&member| member < all);
        let drew = match drew {
            Drew::Some(of) => {
                let places = members.iter().enumerate();
                let places = places.filter(|(_, member)| of.contains(&(**member as u32)));
                Drew::Some(places.map(|(place, _)| place as u32).collect())
            }
            of => of.clone(),
        };
        let mut past: Vec<Past> = match is_each {
            true => of_each(past.len()).map(|member| past[member].clone()).collect(),
            false => past.clone(),
        };
        if !is_each {
            for keys in past.iter_mut().filter_map(|past| past.keys.as_mut()) {
                *keys = members.iter().map(|&member| keys[member]).collect();
            }
        }
        let calls = match is_each {
            true => of_each(calls.len()).map(|member| calls[member].clone()).collect(),
            false => calls.clone(),
        };
        let undo = undo.as_ref().map(|undo| undo.part(members));
        Done { undo, is_each: *is_each, past, calls, drew }
    }

    /// Returns whether members had turns of their own.
    pub(super) fn is_each(&self) -> bool {
        self.is_each
    }

    /// Takes the hooks that gradients will meet.
    pub(super) fn take_calls(&mut self) -> Vec<CallHooks> {
        std::mem::take(&mut self.calls)
    }

    /// Takes what the hooks did, for a pass that is made again by the members at once: there is one of them, or they had
    /// one turn together.
    pub(super) fn take_past(&mut self) -> Past {
        self.past.pop().unwrap_or_default()
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

/// Finds the plan that gives what the hooks of a cohort see, too, if there is one.
pub(crate) fn prepare(
    world: &mut World,
    cohort: &mut Cohort,
    shared: Option<&OuterHooks>,
    request: Request<'_>,
) -> Result<Route, StepError> {
    let watched = watched_now(world, cohort, shared)?;
    if cohort.changes.as_ref() == Some(&watched) {
        return Ok(if cohort.is_alone { Route::Alone } else { Route::Eager });
    }
    cohort.changes = None;
    prepare_for(world, cohort, watched, request)
}

/// Lists the kinds of hooks that a cohort has at each position. Where several models have hooks of their own, some of these
/// may be gone by now.
pub(super) fn watched_now(
    world: &World,
    cohort: &Cohort,
    shared: Option<&OuterHooks>,
) -> Result<Vec<Kinds>, StepError> {
    let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
    let one = cohort.hooked().filter(|_| cohort.places.len() == 1);
    let mut kinds = watched(world, &cohort.scheme.blueprint, shared, group, one);
    if let (None, Some(own)) = (one, &cohort.own) {
        kinds.iter_mut().zip(&own.kinds).for_each(|(kinds, own)| kinds.extend(*own));
    }
    Ok(kinds)
}

/// Finds the plan for these hooks.
pub(super) fn prepare_for(
    world: &mut World,
    cohort: &mut Cohort,
    watched: Vec<Kinds>,
    request: Request<'_>,
) -> Result<Route, StepError> {
    let request = Request { watched: &watched, ..request };
    match cohort.prepare(world, cohort.at.population, &request) {
        // A hook may recover from a tracing error, or be told of it.
        Err(StepError::Trace(error)) => {
            cohort.changes = Some(watched);
            Ok(if error.needs_values { Route::Alone } else { Route::Eager })
        }
        found => found.map(Route::Observed),
    }
}

/// What an observed pass is made of.
pub(crate) struct Look<'a> {
    /// The place of its plan in [`Cohort::ready`].
    pub(crate) chosen: usize,
    pub(crate) inputs: &'a [Read<'a>],
    /// Where its tape goes, if it has one.
    pub(crate) tape: Write<'a>,
    /// The hooks that gradients will meet, if it is a way back: those of each turn.
    pub(crate) calls: Vec<CallHooks>,
    /// Whether it can be undone. If not, all hooks only look.
    pub(crate) keeps_undo: bool,
    /// Whether it may have to be made again after it ended.
    pub(crate) keeps_past: bool,
}

/// A pass that is computed, and whose hooks are told of it in turns.
pub(crate) struct Seen {
    planned: Arc<Planned>,
    memory: Memory,
    teller: Teller,
    done: Done,
    keeps_past: bool,
    /// The hooks that gradients will meet, of a way back.
    met: Vec<CallHooks>,
}

impl Seen {
    /// Makes a pass of the members of a cohort by a plan; nobody is told of it.
    ///
    /// # Errors
    ///
    /// If it cannot be run, which is a bug.
    pub(crate) fn compute(
        world: &mut World,
        cohort: &mut Cohort,
        shared: Option<OuterHooks>,
        look: Look<'_>,
        buffers: &mut Buffers,
    ) -> Result<Self, StepError> {
        let Look { chosen, inputs, tape, calls: met, keeps_undo, keeps_past } = look;
        let planned = cohort.ready[chosen].planned.clone();
        // Hooks may draw where the models do not.
        cohort.refresh_keys(world)?;
        let teller = Teller::new(world, cohort, shared, !keeps_undo)?;
        let mut memory = std::mem::take(&mut cohort.observed);
        let models = cohort.at.members.len();
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
            first_array: 0,
            scalars: &cohort.ready[chosen].scalars,
            written: &planned.written,
            keys: if planned.is_random { cohort.keys.get() } else { &[] },
        };
        let (mut undo, mut spare) = (None, std::mem::take(&mut memory.undo));
        let keep = &mut |bound: &Bound<'_>| {
            if keeps_undo {
                undo = Some(Undo::copy(bound, &planned, std::mem::take(&mut spare)));
            }
        };
        let mut queue = buffers.queue();
        queue.push(&mut cohort.at, [job]);
        queue.launch_seen(world, &mut arrays, buffers, keep)?;
        let drew = if planned.is_random { Drew::All } else { Drew::Nobody };
        let is_each = cohort.has_own_hooks();
        let (past, calls) = (Vec::new(), Vec::new());
        let done = Done { undo, is_each, past, calls, drew };
        Ok(Seen { planned, memory, teller, done, keeps_past, met })
    }

    /// Tells the hooks of a turn; gives what they did if one of them changes something, or fails: then what the turn's
    /// members wrote has to be undone, and their pass made again.
    ///
    /// # Errors
    ///
    /// If a hook fails in a pass that cannot be undone.
    pub(crate) fn tell(
        &mut self,
        world: &World,
        cohort: &Cohort,
        turn: usize,
    ) -> Result<Option<Again>, StepError> {
        let met = self.met.get_mut(turn).map(std::mem::take).unwrap_or_default();
        let seen = (&*self.planned, self.memory.seen.bytes());
        let Turn { again, calls, drew } = self.teller.tell(world, cohort, turn, met, seen)?;
        if again.has_answer() {
            return Ok(Some(again));
        }
        if drew && !self.planned.is_random {
            self.count_draw(turn, cohort.places.len());
        }
        if self.keeps_past {
            let keys = cohort.keys.get();
            let keys = if self.done.is_each { &keys[turn..=turn] } else { keys };
            let mut past = again.into_past();
            past.keys = (drew || self.planned.is_random).then(|| keys.to_vec());
            self.done.past.resize_with(turn, Past::default);
            self.done.past.push(past);
            self.done.calls.resize_with(turn, CallHooks::default);
            self.done.calls.push(calls);
        }
        Ok(None)
    }

    fn count_draw(&mut self, turn: usize, members: usize) {
        let is_each = self.done.is_each;
        let all = if is_each { turn as u32..turn as u32 + 1 } else { 0..members as u32 };
        match &mut self.done.drew {
            Drew::Some(of) => of.extend(all),
            of => *of = Drew::Some(all.collect()),
        }
    }

    /// The kinds of hooks that were watched.
    pub(crate) fn watched(&self) -> &[Kinds] {
        &self.planned.watched
    }

    /// Undoes what was written for the members of a turn. `at` are these members.
    ///
    /// # Errors
    ///
    /// If a slot has no column any more.
    pub(crate) fn undo_turn(
        &self,
        world: &mut World,
        turn: usize,
        at: &mut Located,
    ) -> Result<(), StepError> {
        let Some(undo) = &self.done.undo else { return Ok(()) };
        Ok(undo.part(&[turn]).restore(world, at)?)
    }

    /// Undoes everything.
    ///
    /// # Errors
    ///
    /// If a slot has no column any more.
    pub(crate) fn undo(self, world: &mut World, cohort: &mut Cohort) -> Result<(), StepError> {
        let Seen { mut memory, teller, done, .. } = self;
        if let Some(mut undo) = done.undo {
            undo.exchange(world, &mut cohort.at)?;
            memory.undo = undo.into_memory();
        }
        teller.end(cohort);
        cohort.observed = memory;
        Ok(())
    }

    /// Ends the pass: gives the results of all members.
    pub(crate) fn end(self, cohort: &mut Cohort) -> (Made, Done) {
        let Seen { planned, memory, teller, mut done, .. } = self;
        if done.calls.iter().all(CallHooks::is_empty) {
            done.calls = Vec::new();
        }
        let row = planned.row_bytes();
        let mut bytes = Vec::with_capacity(row * cohort.at.members.len());
        let rows = memory.own.bytes().chunks_exact(padded(row).max(1));
        rows.take(cohort.at.members.len()).for_each(|of| bytes.extend_from_slice(&of[..row]));
        let made = Made { results: planned.results.clone().unwrap_or_default(), bytes };
        teller.end(cohort);
        cohort.observed = memory;
        (made, done)
    }
}
