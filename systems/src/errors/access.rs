//! [`AccessError`].

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::UNINITIALIZED;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;

use super::sign::SignError;

/// Why a parameter cannot be read or written. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The entity is not the root of a model.
    #[error("{0} is not the root of a model")]
    NotAModel(Entity),
    /// The population has no model of that index.
    #[error("index {index} is out of range of {models} models")]
    NoModel {
        /// The index that was asked for.
        index: usize,
        /// How many models there are.
        models: usize,
    },
    /// The entity is no module of a model.
    #[error("{0} is no module of a model")]
    NotAModule(Entity),
    /// A model has no module at a path; torch's words.
    #[error("'{path}': {class} has no attribute `{name}`")]
    Path {
        /// The dotted path that was asked for.
        path: String,
        /// The type of the module that the path leads to.
        class: String,
        /// What that module does not have.
        name: String,
    },
    /// Only hooks are of all modules.
    #[error("expected a module, or a population and a path, got all modules")]
    AllModules,
    /// There is no such parameter or buffer; torch's words.
    #[error("{module} has no parameter or buffer '{name}'")]
    NoSuchName {
        /// The root module's type.
        module: &'static str,
        /// The dotted name that was asked for.
        name: String,
    },
    /// It is there, but has no column for that role: no gradient yet, or no optimizer state.
    #[error("'{name}' has no {role}")]
    NoColumn {
        /// The dotted name.
        name: String,
        /// What was asked for.
        role: Role,
    },
    /// Its elements are of another type.
    #[error("'{name}': expected elements of {expected}, got {given}")]
    Dtype {
        /// The dotted name.
        name: String,
        /// The element type of the column.
        expected: Dtype,
        /// The element type that was given or asked for.
        given: Dtype,
    },
    /// It is of integers; torch's words.
    #[error("'{name}': only Tensors of floating point dtype can require gradients")]
    RequiresGrad {
        /// The dotted name.
        name: String,
    },
    /// Its shape is another; torch's words.
    #[error(
        "size mismatch for {name}: copying a param with shape {given:?}, the shape in current model is {expected:?}"
    )]
    Shape {
        /// The dotted name.
        name: String,
        /// The shape of the column's rows.
        expected: Vec<usize>,
        /// The shape that was given.
        given: Vec<usize>,
    },
    /// Its shape is not known yet; torch's words.
    #[error("'{name}': {UNINITIALIZED}")]
    Uninitialized {
        /// The dotted name.
        name: String,
    },
    /// The population's models share it, and each needs its own.
    #[error("'{name}' is shared by the population: unshare it first")]
    Shared {
        /// The dotted name.
        name: String,
    },
    /// The population's models do not share it.
    #[error("'{name}' is not shared by the population")]
    NotShared {
        /// The dotted name.
        name: String,
    },
    /// The population has no models.
    #[error("{0} has no models")]
    NoModels(Entity),
    /// The models of the population do not all have it alike.
    #[error("'{name}' is not the same in all models of the population")]
    Mixed {
        /// The dotted name.
        name: String,
    },
    /// A module was edited, and nobody has used the model since: what it has now is not known yet. Only whoever reads
    /// with `&World` gets this; a call with `&mut World` settles the model first.
    #[error(
        "model {index}, {path}: was edited and is not settled yet: call `World::settle` before systems read it"
    )]
    Unsettled {
        /// The model's index.
        index: u32,
        /// Dotted path of a module that was edited; the type's name for a root.
        path: String,
    },
    /// The model's tree is not a model any more.
    #[error(transparent)]
    Sign(#[from] SignError),
}
