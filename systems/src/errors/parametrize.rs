//! [`ParametrizeError`].

use bevy_ecs::prelude::*;
use neurarch_components::module::NoInverse;
use neurarch_kernels::ir::trace::TraceError;

use super::sign::SignError;

/// Why a tensor cannot be parametrized, or its parametrizations cannot go. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametrizeError {
    /// There is no such population, or a model's tree is no model.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The entity is no module of a model; the second name of one is none either.
    #[error("{0} is not a module")]
    NotAModule(Entity),
    /// A parametrization belongs to one module, or to the same one of each model of a population.
    #[error("expected a module, or a population and a path, got all modules")]
    AllModules,
    /// A model has no such module; torch's words.
    #[error("`{module}` has no module '{path}'")]
    NoSuchModule {
        /// The root module's type.
        module: String,
        /// The dotted path that was asked for.
        path: String,
    },
    /// The module has no such tensor; torch's words.
    #[error(
        "Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{name}'"
    )]
    NoSuchTensor {
        /// The module's type.
        module: String,
        /// The name that was asked for.
        name: String,
    },
    /// The tensor is not parametrized; torch's words.
    #[error("Module {module} does not have a parametrization on {name}")]
    NotParametrized {
        /// The module's type.
        module: String,
        /// The name that was asked for.
        name: String,
    },
    /// The tensor depends on several originals, and none of them is what it was; torch's words.
    #[error(
        "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a sequence of tensors."
    )]
    Sequence,
    /// The tensor is tied to another: untie it first.
    #[error("'{name}' is tied to another parameter: it can't be parametrized")]
    Tied {
        /// The dotted name.
        name: String,
    },
    /// The module has a child `parametrizations` of its own.
    #[error("Module already has an attribute named '{name}'")]
    Taken {
        /// The name that is in use.
        name: String,
    },
    /// The parametrization does not fit the tensor; torch's words.
    #[error("{0}")]
    Invalid(String),
    /// The parametrization cannot be recorded.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The tensor is made of a length and a direction already; torch's words.
    #[error("Cannot register two weight_norm hooks on the same parameter {name}")]
    WeightNormedTwice {
        /// The tensor's name.
        name: String,
    },
    /// The tensor is not made of a length and a direction; torch's words.
    #[error("weight_norm of '{name}' not found in {module}")]
    NotWeightNormed {
        /// The module's type.
        module: String,
        /// The tensor's name.
        name: String,
    },
    /// The tensor has no spectral norm; torch's words.
    #[error("spectral_norm of '{name}' not found in {module}")]
    NotSpectralNormed {
        /// The module's type.
        module: String,
        /// The tensor's name.
        name: String,
    },
    /// A tensor cannot be assigned, since its parametrizations do not say what it is made of.
    #[error(transparent)]
    NoInverse(#[from] NoInverse),
}
