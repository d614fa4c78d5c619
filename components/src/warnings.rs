//! [`Warnings`]: what users are warned of, in torch's words, by events of the crate `tracing`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::Warning;

/// Which warnings a world has given: each is given once per place. A resource.
///
/// A warning is an event of level `WARN` and target `neurarch`. Its message is torch's; its field `place` is the type of
/// the module that it is about, or the line of the caller. Whoever installs a subscriber of `tracing` sees it; without
/// one nothing is printed.
///
/// Source: Python's `warnings.warn`, whose default filter shows a text once per line of code.
#[derive(Resource, Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<HashSet<(String, String)>>>);

/// How many warnings are remembered: a text may contain anything, so there may be ever new ones. When there are more,
/// all are forgotten.
const MOST: usize = 1024;

impl Warnings {
    /// Returns those of a world. One that lost the resource gives warnings again.
    pub fn of(world: &World) -> Warnings {
        world.get_resource::<Warnings>().cloned().unwrap_or_default()
    }

    /// Gives a warning, unless it was given for this place before.
    pub fn warn(&self, place: &str, message: &str) {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MOST {
            given.clear();
        }
        let is_new = given.insert((place.to_owned(), message.to_owned()));
        // A subscriber may do anything.
        drop(given);
        if is_new {
            tracing::warn!(target: "neurarch", place, "{message}");
        }
    }

    /// Gives the warnings of a recording.
    pub fn warn_all(&self, warnings: &[Warning]) {
        warnings.iter().for_each(|Warning { module, message }| self.warn(module, message));
    }
}
