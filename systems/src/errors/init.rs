//! [`InitError`], and [`NoFans`].

use neurarch_components::module::blueprint::UNINITIALIZED_USE;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;

use super::AccessError;

/// Why parameters cannot be given numbers. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is no such parameter.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The numbers depend on fans, and the parameter has fewer than two axes; torch's words.
    #[error("'{name}': {source}")]
    Fans {
        /// The dotted name.
        name: String,
        /// Says the parameter's shape.
        source: NoFans,
    },
    /// The distribution is one of matrices; torch's words.
    #[error("'{name}': Only tensors with {supported} dimensions are supported, got shape {shape}")]
    Dimensions {
        /// The dotted name.
        name: String,
        /// How many axes there may be, in words.
        supported: &'static str,
        /// The parameter's shape.
        shape: Shape,
    },
    /// A standard deviation is negative or NaN; torch's words.
    #[error("'{name}': normal expects std >= 0.0, but found std {std}")]
    Std {
        /// The dotted name.
        name: String,
        /// What was given.
        std: f64,
    },
    /// The bounds are in the wrong order or NaN, or those of a uniform distribution infinite; torch's words.
    #[error(
        "'{name}': uniform_ expects to return a [from, to) range, but found from={low} > to={high}"
    )]
    Range {
        /// The dotted name.
        name: String,
        /// The lower bound given.
        low: f64,
        /// The upper bound given.
        high: f64,
    },
    /// The first axis is not made of so many groups; torch's words.
    #[error("'{name}': dim 0 must be divisible by groups, got shape {shape} and groups={groups}")]
    Groups {
        /// The dotted name.
        name: String,
        /// The parameter's shape.
        shape: Shape,
        /// What was given.
        groups: usize,
    },
    /// The fraction of zeros is no fraction.
    #[error("'{name}': expected sparsity in [0, 1], got {sparsity}")]
    Sparsity {
        /// The dotted name.
        name: String,
        /// What was given.
        sparsity: f64,
    },
    /// Its shape is not known yet; torch's words.
    #[error("'{name}': Attempted to use an uninitialized parameter in init. {UNINITIALIZED_USE}")]
    Uninitialized {
        /// The dotted name.
        name: String,
    },
    /// Integers and truth values are not drawn.
    #[error("'{name}': expected a floating-point dtype, got {dtype:?}")]
    Dtype {
        /// The dotted name.
        name: String,
        /// The type of the buffer.
        dtype: Dtype,
    },
}

/// A shape with fewer than two axes has no fans; torch's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, got shape {0}"
)]
pub struct NoFans(pub Shape);
