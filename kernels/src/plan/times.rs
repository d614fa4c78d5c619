//! [`Times`]: how long each step of a plan takes, for whoever wants to make one faster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long each step took, in all tiles together. Knows nothing of a plan that is not timed, and costs it
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Times {
    nanoseconds: Box<[AtomicU64]>,
}

impl Times {
    /// Makes room for that many steps.
    pub(crate) fn new(steps: usize) -> Self {
        Times { nanoseconds: (0..steps).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Gives the time before a step; `None` if nobody wants to know.
    #[inline(always)]
    pub(crate) fn start(&self) -> Option<Instant> {
        (!self.nanoseconds.is_empty()).then(Instant::now)
    }

    /// Adds the time that has passed to a step's.
    #[inline(always)]
    pub(crate) fn stop(&self, step: usize, start: Option<Instant>) {
        if let Some(start) = start {
            let passed = start.elapsed().as_nanos() as u64;
            self.nanoseconds[step].fetch_add(passed, Ordering::Relaxed);
        }
    }

    /// Gives the time of each step.
    pub(crate) fn all(&self) -> impl Iterator<Item = Duration> {
        let load = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Relaxed));
        self.nanoseconds.iter().map(load)
    }
}
