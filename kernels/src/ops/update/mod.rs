//! Update rules of optimizers, in place.

pub mod adadelta;
pub mod adafactor;
pub mod adagrad;
pub mod adam;
pub mod adamax;
pub mod asgd;
pub mod muon;
pub mod nadam;
mod on_device;
pub mod radam;
pub mod rmsprop;
pub mod rprop;
pub mod rule;
pub mod sgd;
pub mod sparse_adam;
