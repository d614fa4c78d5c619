//! neurarch in a host's schedules: what `neurarch::plugin` exports.

pub(crate) mod bodies;
mod budget;
pub(crate) mod commands;
mod forward;
mod messages;
pub(crate) mod neighbors;
pub(crate) mod park;
mod participation;
#[cfg(feature = "app")]
pub(crate) mod plugin;
mod progress;
pub(crate) mod recurrent;
#[cfg(all(feature = "app", feature = "reflect"))]
mod reflect;
mod round;
pub(crate) mod sample;
mod sets;
mod steps;
pub(crate) mod think;
mod training;
mod turns;

pub use budget::{TileWorkers, TrainingBudget, TrainingSpent, begin_frame};
pub use forward::run_forward;
pub use messages::{
    ModelDespawned, ModelSpawned, PopulationStepped, StepFailed, TrainingDiverged, report_models,
};
pub use participation::{Actions, Learn, Minibatch, Observations, Think, ThinkEvery};
pub use progress::Progress;
pub use sets::{Learning, StepSystems, add_neurarch, get_systems, order_step};
pub use steps::{compute_gradients, settle, step_schedulers, update};
pub use training::train_tiles;
