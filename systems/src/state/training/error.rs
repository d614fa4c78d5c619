//! [`TrainingStateError`].

use neurarch_components::scheduler::SchedulerError;
use neurarch_kernels::ir::dtype::Dtype;

use crate::errors::AccessError;
use crate::errors::SignError;
use crate::optim::state_dict::OptimizerStateError;

/// Why what training has come to cannot be read or loaded. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingStateError {
    /// The entity is neither a population nor the root of a model.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A model's tree is no model.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The state of the optimizers does not fit.
    #[error(transparent)]
    Optimizer(#[from] OptimizerStateError),
    /// The state of a scheduler does not fit.
    #[error("lr_scheduler {place}: {source}")]
    Scheduler {
        /// Its place among the model's schedulers.
        place: usize,
        /// Why.
        source: SchedulerError,
    },
    /// A tensor is not there.
    #[error("the training state has no {0}")]
    Missing(String),
    /// A tensor is of nothing that the model has.
    #[error("the training state has {0}, for which the model has no optimizer or scheduler")]
    Unexpected(String),
    /// A tensor is of another type or shape.
    #[error("{name}: expected {expected} {shape:?}, got {given} {given_shape:?}")]
    Type {
        /// Its name.
        name: String,
        /// The element type that it should have.
        expected: Dtype,
        /// The shape that it should have.
        shape: Vec<usize>,
        /// Its element type.
        given: Dtype,
        /// Its shape.
        given_shape: Vec<usize>,
    },
    /// What decides the next numbers has other settings than when the state was saved.
    #[error("{of}: the training state was saved with other settings than {settings}")]
    Settings {
        /// The module, optimizer or scheduler.
        of: String,
        /// What it is now.
        settings: String,
    },
    /// Random numbers would be others.
    #[error("the training state is of seed {given}, but the population has seed {expected}")]
    Seed {
        /// The population's.
        expected: u64,
        /// That of the saved model.
        given: u64,
    },
    /// Random numbers would be those of another model.
    #[error(
        "the training state is of model number {number}, which another model of the population has"
    )]
    Number {
        /// The number of the saved model.
        number: u64,
    },
    /// Models do not have it alike, so that it cannot be stacked.
    #[error("{name} is not in all models of the population: save each by itself")]
    Mixed {
        /// Its name.
        name: String,
    },
    /// A stacked tensor is for another number of models.
    #[error("{name}: expected numbers for {expected} models, got shape {given:?}")]
    Models {
        /// Its name.
        name: String,
        /// How many models the population has.
        expected: usize,
        /// Its shape.
        given: Vec<usize>,
    },
}
