//! Plans run by tiles of models, and recordings op by op.

pub(crate) mod eager;
pub mod executor;
pub mod profile;
pub mod queue;
