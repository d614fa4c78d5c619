//! [`MigrateError`].

use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::Dtype;

use crate::errors::{AccessError, RoomError, SignError};

/// Why modules cannot be converted, in torch's words. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// There is no such module.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// `to` takes no type of whole numbers; torch's words.
    #[error(
        "nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={}",
        .0.torch_name()
    )]
    NotFloating(Dtype),
    /// A parameter that needs a gradient cannot become one of whole numbers; torch's words.
    #[error(
        "{name}: data set to a tensor that requires gradients must be floating point or complex dtype"
    )]
    RequiresGrad {
        /// Its dotted path.
        name: String,
    },
    /// The device is not there.
    #[error("{0} is not there: Torch not compiled with CUDA enabled")]
    NoDevice(Device),
    /// Models share a parameter or buffer, and not all of them are to be converted.
    #[error("'{name}' is shared by all models of its population: convert it in all of them")]
    Shared {
        /// Its dotted path.
        name: String,
    },
    /// A function made another shape of a parameter or buffer.
    #[error("'{name}': expected a tensor of shape {expected:?} from the function, got {given:?}")]
    Shape {
        /// Its dotted path.
        name: String,
        /// The shape that it has.
        expected: Vec<usize>,
        /// The shape that came.
        given: Vec<usize>,
    },
    /// A function made a gradient of another type than its parameter; torch's words.
    #[error(
        "'{name}': assigned grad has data of a different type: expected {expected}, got {given}"
    )]
    Gradient {
        /// The parameter's dotted path.
        name: String,
        /// The parameter's type.
        expected: Dtype,
        /// The gradient's.
        given: Dtype,
    },
    /// There is no memory for wider rows.
    #[error(transparent)]
    Room(#[from] RoomError),
}

impl From<SignError> for MigrateError {
    fn from(error: SignError) -> Self {
        MigrateError::Access(error.into())
    }
}
