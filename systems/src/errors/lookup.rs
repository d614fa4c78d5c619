//! [`LookupError`].

use super::access::AccessError;
use super::parametrize::ParametrizeError;

/// Why nothing was found; torch's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// A part of the path is not there.
    #[error("{class} has no attribute `{name}`")]
    NoAttribute {
        /// The type of the module that was asked.
        class: String,
        /// What it was asked for.
        name: String,
    },
    /// A part of the path is no module.
    #[error("`{name}` is not an nn.Module")]
    NotAModule {
        /// That part.
        name: String,
    },
    /// The last part of the path is no parameter.
    #[error("`{name}` is not an nn.Parameter")]
    NotAParameter {
        /// That part.
        name: String,
    },
    /// The last part of the path is no buffer.
    #[error("`{name}` is not a buffer")]
    NotABuffer {
        /// That part.
        name: String,
    },
    /// The entity is no module of a model, or none any more.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What is parametrized cannot be computed.
    #[error(transparent)]
    Parametrize(#[from] ParametrizeError),
}
