//! [`Route`]: how a cohort makes a pass.

use crate::execute::ready::Ready;

/// How a cohort makes a pass, decided once a call, before anything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// By the plan at this place in `Cohort::ready`; nobody watches.
    Planned(usize),
    /// By the plan at this place, which also gives what hooks see; they are told afterwards.
    Observed(usize),
    /// Op by op; in one recording, or in one for each model that has hooks of its own.
    Eager,
    /// Op by op, in a recording for each model: its numbers are read in the middle.
    Alone,
    /// Not at all: no pass is kept for `backward`.
    Nowhere,
}

impl Route {
    /// Returns whether the pass is recorded with numbers.
    pub(crate) fn is_eager(self) -> bool {
        matches!(self, Route::Eager | Route::Alone)
    }

    /// Returns the place of the plan in `Cohort::ready`, if there is one.
    pub(crate) fn plan(self) -> Option<usize> {
        match self {
            Route::Planned(place) | Route::Observed(place) => Some(place),
            Route::Eager | Route::Alone | Route::Nowhere => None,
        }
    }

    /// Returns the plan, of those of the cohort, if there is one.
    pub(crate) fn ready(self, ready: &[Ready]) -> Option<&Ready> {
        ready.get(self.plan()?)
    }

    /// Returns the plan, of those of the cohort, if there is one that nobody watches.
    pub(crate) fn planned(self, ready: &[Ready]) -> Option<&Ready> {
        match self {
            Route::Planned(place) => ready.get(place),
            Route::Observed(_) | Route::Eager | Route::Alone | Route::Nowhere => None,
        }
    }
}
