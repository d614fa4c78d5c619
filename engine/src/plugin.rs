//! neurarch in a host: the plugin for Bevy apps, named sets, what takes part, and what systems query, read and write.
//!
//! [`NeurarchPlugin`] needs the feature `app`. Without it, [`add_neurarch`] puts the same systems into a schedule of
//! `bevy_ecs`. A host without bevy's app calls [`World::clear_trackers`] now and then, as an app does after each frame: until
//! then bevy keeps a list of all components that were removed, those of models that went too.
//!
//! [`World::clear_trackers`]: bevy_ecs::world::World::clear_trackers

#[cfg(feature = "app")]
pub use crate::bevy::RollbackPlugin;
#[doc(inline)]
pub use crate::bevy::brains::bodies::{Brain, BrainOf, Outlives};
#[doc(inline)]
pub use crate::bevy::brains::commands::{BrainCommands, BrainError, Brains};
#[doc(inline)]
pub use crate::bevy::brains::neighbors::nearest;
#[doc(inline)]
pub use crate::bevy::brains::recurrent::{Hidden, think_recurrent};
#[doc(inline)]
pub use crate::bevy::brains::reinforce::{
    Action, Continuous, Discrete, GaussianPolicyLoss, Reinforce, reinforce,
};
#[doc(inline)]
pub use crate::bevy::brains::rollout::{Experience, Reward, Rollout, record};
#[doc(inline)]
pub use crate::bevy::brains::sample::{
    ActionStream, ActionStreams, categorical, categorical_log_prob, gaussian, gaussian_log_prob,
};
#[doc(inline)]
pub use crate::bevy::brains::think::{ThinkError, think};
#[cfg(feature = "app")]
pub use crate::bevy::plugin::{NeurarchPlugin, run_on_compute_pool};
pub use crate::bevy::{
    Actions, Checksum, Learn, Learning, LoadSystems, LoadWorld, Minibatch, ModelDespawned,
    ModelRevived, ModelSpawned, Observations, PopulationStepped, Progress, Rollback,
    RollbackFailed, RollbackTick, SaveSystems, SaveWorld, StepFailed, StepSystems, Think,
    ThinkEvery, TileWorkers, TrainingBudget, TrainingDiverged, TrainingSpent, add_neurarch,
    begin_frame, compute_gradients, get_systems, load_snapshots, order_step, report_models,
    run_forward, save_checksums, save_snapshots, settle, step_schedulers, train_tiles, update,
};
#[doc(inline)]
pub use crate::components::module::mode::Mode;
#[doc(inline)]
pub use crate::components::population::Population;
#[doc(inline)]
pub use crate::components::population::parking::{Parked, Parking};
#[doc(inline)]
pub use crate::components::population::tree::{Model, ModuleName};
#[doc(inline)]
pub use crate::components::saved::CopiedTypes;
#[doc(inline)]
pub use crate::systems::evolve::park::{Birth, bear, park, stock, unpark};
#[doc(inline)]
pub use crate::systems::execute::step::{RunWorkers, TILE, run_on_rayon};
#[doc(inline)]
pub use crate::systems::rollback::{MOST_SNAPSHOTS, Restored, RollbackError, Snapshots};
#[doc(inline)]
pub use crate::systems::system_params::commands::ParameterCommands;
#[doc(inline)]
pub use crate::systems::system_params::parameters::Parameters;
