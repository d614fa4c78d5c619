//! [`StepError`].

use bevy_ecs::prelude::*;
use neurarch_components::hook::HookKind;
use neurarch_components::optimizer::OptimizerError;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::eager::ReadError;
use neurarch_kernels::ir::program::VerifyError;
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::ir::trace::TraceError;

use crate::errors::room::NoRoom;
use crate::errors::{AccessError, BindError, SignError};

/// What torch says when `backward` is asked of a loss that is not one number.
pub(crate) const NOT_SCALAR: &str = "grad can be implicitly created only for scalar outputs";

/// Why models cannot run. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// There is no such population, or a model's tree is none of modules.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// There is no such module.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// All modules of all models are no module that can be called.
    #[error("expected a module to call, or a population and a path, got all modules")]
    AllModules,
    /// A parameter has no column.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A module or the loss cannot take its input.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A recorded program breaks the grammar: an op of a user's own that lies about itself.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A value that a hook or a loss was to give is not there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The activations of a batch, or what a forward pass keeps of it for `backward`, do not fit the memory that is free.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// One of [several populations](crate::execute::step::train_step_all) cannot run.
    #[error("call {number}: {error}")]
    Call {
        /// Which of the calls, from 0.
        number: usize,
        /// Why.
        error: Box<StepError>,
    },
    /// An array is for another number of models.
    #[error("{array}: expected numbers for {expected} models, got {given}")]
    Models {
        /// Which array.
        array: &'static str,
        /// How many models the population has.
        expected: usize,
        /// How long the array's first axis is.
        given: usize,
    },
    /// An array has another shape.
    #[error("{array}: expected shape {expected}, got {given}")]
    Shape {
        /// Which array.
        array: &'static str,
        /// The shape for all models.
        expected: Shape,
        /// The array's shape.
        given: Shape,
    },
    /// Models give results of another structure.
    #[error("result: expected {expected} values, got {given}")]
    Results {
        /// How many values others give, or are expected.
        expected: usize,
        /// How many there are.
        given: usize,
    },
    /// An array has another element type.
    #[error("{array}: expected {expected}, got {given}")]
    Dtype {
        /// Which array.
        array: &'static str,
        /// The models' element type.
        expected: Dtype,
        /// The array's.
        given: Dtype,
    },
    /// A gradient is asked of an input that has none.
    #[error("only Tensors of floating point dtype can require gradients")]
    NotFloat,
    /// A class index is no class.
    #[error("Target {target} is out of bounds (model {model}, item {item}: expected 0 to {last})")]
    Target {
        /// The class index.
        target: i64,
        /// The model's index; 0 if the targets are shared.
        model: usize,
        /// The place in the model's targets.
        item: usize,
        /// The last class.
        last: usize,
    },
    /// An item number is no item.
    #[error("order: expected item numbers below {items}, got {given}")]
    Item {
        /// How many items there are.
        items: usize,
        /// The greatest item number.
        given: u32,
    },
    /// A data set cannot be cut into minibatches as asked.
    #[error("data set: {0}")]
    DataSet(String),
    /// A batch cannot be cut into micro-batches as asked.
    #[error("micro-batches: {0}")]
    MicroBatches(String),
    /// A component has no such number.
    #[error("{path}: no scalar slot '{name}'")]
    Scalar {
        /// The module's dotted path.
        path: String,
        /// The slot's name.
        name: &'static str,
    },
    /// No model of the population is active.
    #[error("no model of the population is active")]
    Inactive,
    /// A model has no optimizer, on its root or on a module.
    #[error(
        "model {model} has no optimizer: insert one, such as Adam::default(); a type of your own is made known by \
         Optimizers::register"
    )]
    NoOptimizer {
        /// The model's index.
        model: usize,
    },
    /// An optimizer has a number that its rule refuses; torch's words.
    #[error("model {model}: {source}")]
    Optimizer {
        /// The model's index.
        model: usize,
        /// Why.
        source: OptimizerError,
    },
    /// There is no forward pass to go on from.
    #[error("expected a forward pass before {0}")]
    NoForward(&'static str),
    /// The modes of models changed since the forward pass, or models with hooks were told apart.
    #[error("expected the models and modes of the last forward pass: they changed since")]
    Changed,
    /// A model was spawned since the forward pass.
    #[error("model {model} was spawned since the last forward pass: call forward again")]
    Spawned {
        /// The model's index.
        model: usize,
    },
    /// A model has other modules than in the forward pass.
    #[error(
        "the structure of model {model} was edited since the last forward pass: call forward again"
    )]
    Edited {
        /// The model's index.
        model: usize,
    },
    /// A model took no part in the forward pass.
    #[error("model {model} was not active in the last forward pass: call forward again")]
    Activated {
        /// The model's index.
        model: usize,
    },
    /// A parameter that `backward` reads has other numbers than in the forward pass; torch's words.
    #[error(
        "{name}: one of the variables needed for gradient computation has been modified by an inplace operation: \
         {ty} of model {model} is at another version than in the forward pass"
    )]
    Modified {
        /// The dotted name.
        name: String,
        /// The type of one model's numbers.
        ty: Type,
        /// The model's index; the first one if all were written to at once.
        model: usize,
    },
    /// A call on the population is under way: an observer of the host's, which it set off, made another one.
    #[error("population {0} is in the middle of another call")]
    Busy(Entity),
    /// The loss is an array.
    #[error("{}", NOT_SCALAR)]
    NotScalar,
    /// A hook failed, or panicked.
    #[error("{path}: {kind} {number}: {message}")]
    Hook {
        /// The module's dotted path; the root's type.
        path: String,
        /// The kind of hook.
        kind: HookKind,
        /// Its place among the hooks of its kind that are called there.
        number: usize,
        /// What it said.
        message: String,
    },
    /// A model writes to a parameter or buffer that it shares with the others of its population.
    #[error(
        "{name}: a parameter or buffer that a population shares cannot be written by its models"
    )]
    SharedWritten {
        /// The dotted name.
        name: String,
    },
    /// Models that share a parameter have optimizers of their own for it which differ.
    #[error(
        "{name}: the optimizers of models {first} and {other} differ, but the population shares it: insert one \
         on the population's entity"
    )]
    SharedOptimizer {
        /// The dotted name.
        name: String,
        /// A model's index.
        first: usize,
        /// The index of one with another optimizer.
        other: usize,
    },
    /// `backward` has nothing to start with.
    #[error("expected a loss before backward: call loss, or backward_from with a gradient")]
    NoLoss,
}

impl StepError {
    /// Returns whether a number was read in the middle of a program that is only recorded.
    pub(crate) fn needs_values(&self) -> bool {
        matches!(self, StepError::Trace(error) if error.needs_values)
    }

    /// Says which of several calls it is of.
    pub(crate) fn of_call(self, number: usize) -> StepError {
        StepError::Call { number, error: Box::new(self) }
    }
}
