//! Rollback: snapshots of a population at the last ticks, for lockstep and rollback netcode.
//!
//! [`save`] copies what changed since the tick before; [`restore`] gives a population bit for bit what it was at a tick, and
//! models that were spawned since go, those that were despawned come back.

mod checksum;
mod error;
mod lanes;
mod marks;
mod own;
mod restore;
mod save;
mod snapshots;
mod store;

pub use checksum::checksum;
pub use error::RollbackError;
pub use marks::MOST_SNAPSHOTS;
pub use restore::{Restored, restore};
pub use save::save;
pub use snapshots::{Snapshots, forget_snapshots, keep_snapshots};
