//! What threads did when: a run with [events](Event) is compiled apart from one without, so that the latter asks no clock.

use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::plan::Plan;

/// One step of a plan on one tile of models.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Which of its steps: [`Plan::step_info`] says what it does.
    pub step: usize,
    /// How many models the tile has.
    pub models: usize,
    /// Who did it. The threads that help inside of a large op are not named.
    pub thread: ThreadId,
    /// When it began.
    pub start: Instant,
    /// How long it took.
    pub duration: Duration,
}

/// Takes the time of steps, or does not.
pub(super) trait Clock<'a>: Sync {
    /// A time.
    type Time;

    /// What a thread noted in a visit of a tile.
    type Notes: Default;

    /// Gives the time before a step.
    fn start(&self) -> Self::Time;

    /// Notes a step that has ended.
    fn stop(&self, notes: &mut Self::Notes, since: Self::Time, of: (&'a Plan, usize, usize));

    /// Keeps the notes of a visit.
    fn keep(&self, notes: Self::Notes);
}

/// Takes no time.
pub(super) struct NoClock;

impl Clock<'_> for NoClock {
    type Time = ();
    type Notes = ();

    #[inline(always)]
    fn start(&self) {}

    #[inline(always)]
    fn stop(&self, (): &mut (), (): (), _: (&Plan, usize, usize)) {}

    #[inline(always)]
    fn keep(&self, (): ()) {}
}

/// Notes every step.
#[derive(Default)]
pub(super) struct Recorder<'a> {
    events: Mutex<Vec<Event<'a>>>,
}

impl<'a> Recorder<'a> {
    /// Gives what was noted.
    pub(super) fn into_events(self) -> Vec<Event<'a>> {
        self.events.into_inner().unwrap_or_default()
    }
}

impl<'a> Clock<'a> for Recorder<'a> {
    type Time = Instant;
    type Notes = Vec<Event<'a>>;

    fn start(&self) -> Instant {
        Instant::now()
    }

    fn stop(
        &self,
        notes: &mut Vec<Event<'a>>,
        start: Instant,
        (plan, step, models): (&'a Plan, usize, usize),
    ) {
        let duration = start.elapsed();
        notes.push(Event { plan, step, models, thread: thread::current().id(), start, duration });
    }

    fn keep(&self, mut notes: Vec<Event<'a>>) {
        if let Ok(mut events) = self.events.lock() {
            events.append(&mut notes);
        }
    }
}
