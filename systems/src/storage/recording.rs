//! [`Recording`]: what launches did, while somebody profiles.

use std::collections::HashMap;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use bevy_ecs::prelude::*;
use neurarch_kernels::execute::profile::Event;
use neurarch_kernels::ir::eager::ComputedAt;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::plan::StepInfo;

/// What plans, and passes op by op, did in a time, and how long it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// What was done: a step of a plan, or an op of a pass without one, in the order in which they were first met.
    pub ops: Vec<StepInfo>,
    /// When, in order of time.
    pub events: Vec<OpEvent>,
    /// How many threads did it.
    pub threads: usize,
    /// How long the whole took, with what lies between the plans.
    pub wall_time: Duration,
}

/// One op on one tile of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpEvent {
    /// Its place in [`Recorded::ops`].
    pub op: usize,
    /// Who did it: below [`Recorded::threads`].
    pub thread: usize,
    /// How many models the tile has.
    pub models: usize,
    /// When it began, since the beginning of the recording.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
}

/// A resource while somebody profiles: launches put down here what they do.
#[derive(Resource)]
pub(crate) struct Recording {
    start: Instant,
    recorded: Recorded,
    places: HashMap<StepInfo, usize>,
    threads: HashMap<ThreadId, usize>,
}

impl Recording {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Recording {
            start: Instant::now(),
            recorded: Recorded::default(),
            places: HashMap::new(),
            threads: HashMap::new(),
        }
    }

    /// Puts down what a launch did.
    pub(super) fn note(&mut self, mut events: Vec<Event<'_>>) {
        events.sort_by_key(|event| event.start);
        // A plan has one address as long as its launch takes.
        let mut of_launch = HashMap::new();
        for event in events {
            let Event { plan, step, models, thread, start, duration } = event;
            let op = *of_launch
                .entry((core::ptr::from_ref(plan), step))
                .or_insert_with(|| self.place(plan.step_info(step)));
            let next = self.threads.len();
            let thread = *self.threads.entry(thread).or_insert(next);
            let start = start.saturating_duration_since(self.start);
            self.recorded.events.push(OpEvent { op, thread, models, start, duration });
        }
    }

    /// Puts down what was computed op by op, for so many models.
    pub(crate) fn note_nodes(&mut self, program: &Program, models: usize, times: &[ComputedAt]) {
        let next = self.threads.len();
        let thread = *self.threads.entry(thread::current().id()).or_insert(next);
        for &ComputedAt { node, start, duration } in times {
            let op = self.place(StepInfo::of_node(program, node));
            let start = start.saturating_duration_since(self.start);
            self.recorded.events.push(OpEvent { op, thread, models, start, duration });
        }
    }

    /// Finds the place of what is done among all that is.
    fn place(&mut self, info: StepInfo) -> usize {
        let next = self.places.len();
        *self.places.entry(info).or_insert_with_key(|info| {
            self.recorded.ops.push(info.clone());
            next
        })
    }

    /// Ends now.
    pub(crate) fn end(self) -> Recorded {
        let wall_time = self.start.elapsed();
        Recorded { threads: self.threads.len(), wall_time, ..self.recorded }
    }
}
