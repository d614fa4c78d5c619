//! neurarch in a host's schedules: what `neurarch::plugin` exports.

pub(crate) mod brains;
mod budget;
mod forward;
mod messages;
mod participation;
#[cfg(feature = "app")]
pub(crate) mod plugin;
mod progress;
#[cfg(all(feature = "app", feature = "reflect"))]
mod reflect;
mod rollback;
mod round;
mod sets;
mod steps;
mod training;
mod turns;

pub use budget::{TileWorkers, TrainingBudget, TrainingSpent, begin_frame};
pub use forward::run_forward;
#[cfg(feature = "asset")]
pub(crate) use messages::write;
pub use messages::{
    ModelDespawned, ModelSpawned, PopulationStepped, StepFailed, TrainingDiverged, report_models,
};
pub use participation::{Actions, Learn, Minibatch, Observations, Think, ThinkEvery};
pub use progress::Progress;
#[cfg(feature = "app")]
pub use rollback::RollbackPlugin;
pub(crate) use rollback::copy_types;
pub use rollback::{
    Checksum, LoadSystems, LoadWorld, ModelRevived, Rollback, RollbackFailed, RollbackTick,
    SaveSystems, SaveWorld, load_snapshots, save_checksums, save_snapshots,
};
pub use sets::{Learning, StepSystems, add_neurarch, get_systems, order_step};
pub use steps::{compute_gradients, settle, step_schedulers, update};
pub use training::train_tiles;
