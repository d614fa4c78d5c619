//! The gradients and updates of what a population shares.

mod optimizers;
mod order;
mod sums;
mod undo;
mod update;

pub(crate) use optimizers::SharedOptimizers;
pub(crate) use order::Chunks;
pub(crate) use sums::{EagerGradients, Losses, Pass, Sums, run_summed};
pub(crate) use undo::Undo;
pub(crate) use update::{accumulate, has_optimizer, step, update, zero, zero_at};
