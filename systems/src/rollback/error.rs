//! [`RollbackError`]: why a population cannot be saved at a tick, or go back to one.

use bevy_ecs::prelude::*;

use super::marks::MOST_SNAPSHOTS;
use crate::errors::{BindError, SignError};
use crate::evolve::EvolveError;

/// Why a population cannot be saved at a tick, or go back to one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// Nobody asked for snapshots of the population.
    #[error("population {0} keeps no snapshots: call keep_snapshots first")]
    NotKept(Entity),
    /// There is no room for a tick, or for more than there may be.
    #[error("expected from 1 to {most} snapshots, got {given}", most = MOST_SNAPSHOTS)]
    Depth {
        /// What was asked for.
        given: usize,
    },
    /// A later tick was saved already.
    #[error("expected a tick from {newest} on, which was saved last, got {tick}")]
    Order {
        /// What was asked for.
        tick: u64,
        /// The last one that was saved.
        newest: u64,
    },
    /// The tick was never saved, or is no longer kept.
    #[error("tick {tick} is not kept: {}", kept(.saved))]
    NotSaved {
        /// What was asked for.
        tick: u64,
        /// The ticks that are kept, in order.
        saved: Vec<u64>,
    },
    /// A model was edited since: its structure is another one.
    #[error("model {number} has another structure than at tick {tick}")]
    Structure {
        /// The model's number.
        number: u64,
        /// What was asked for.
        tick: u64,
    },
    /// A model is gone, and so are all others of its structure, of which it could be made anew.
    #[error("model {number} of tick {tick} is gone, with all models of its structure")]
    Gone {
        /// The model's number.
        number: u64,
        /// What was asked for.
        tick: u64,
    },
    /// The population was converted to another element type since.
    #[error("the population has other element types than at tick {tick}")]
    Dtype {
        /// What was asked for.
        tick: u64,
    },
    /// Observers of the host's spawned or despawned models while the population went back.
    #[error("models came or went while the population went back to tick {tick}")]
    Interfered {
        /// What was asked for.
        tick: u64,
    },
    /// Models cannot be made anew.
    #[error(transparent)]
    Clone(#[from] EvolveError),
    /// A model's tree is not a model.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A model's rows cannot be found.
    #[error(transparent)]
    Bind(#[from] BindError),
}

fn kept(saved: &[u64]) -> String {
    match saved {
        [] => "no tick is".to_owned(),
        [one] => format!("tick {one} is"),
        [first, .., last] => format!("ticks {first} to {last} are"),
    }
}
