//! Checkpoints: whole populations in a file, which is mapped and read in place. `docs/checkpoint.md` draws the format.
//!
//! * [`save`]: populations go into a file.
//! * [`Checkpoint`]: a file that is open, and what is [restored](Checkpoint::restore) from it.

mod check;
mod components;
mod error;
#[cfg(test)]
mod forged;
mod format;
mod index;
mod map;
mod mapped;
mod mapper;
mod open;
mod over;
mod part;
mod restore;
mod rows;
mod save;
mod structure;
mod values;
mod write;

pub use error::CheckpointError;
pub use format::HeaderError;
pub use mapped::Mapped;
pub use open::{Checkpoint, TensorInfo};
pub use restore::{Restored, restore_shards};
pub use save::{save, save_all, save_in, save_models};
