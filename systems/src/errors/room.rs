//! Whether the memory for a population's parameters and buffers can be had: asked before any of it is taken, for
//! tables cannot give an error when they grow.

use neurarch_components::column::row_bytes;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::check_room;

/// What is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// A parameter or buffer.
    #[error("{path}: {ty} for each of {models} models: {message}")]
    Tensor {
        /// Its dotted path.
        path: String,
        /// Its element type and shape.
        ty: Type,
        /// How many models there are to be.
        models: usize,
        /// What was asked for, in torch's words.
        message: String,
    },
    /// The modules themselves, without their numbers.
    #[error("{models} models: {message}")]
    Modules {
        /// How many models there are to be.
        models: usize,
        /// What was asked for, in torch's words.
        message: String,
    },
}

/// Bytes that a module of a model takes at least beside its numbers: its entity, its components and its places in lists.
const MODULE_BYTES: usize = 128;

/// A table that grows has room for this many rows at least.
const FIRST_ROWS: usize = 4;

/// Checks that there is room for `models` models of a blueprint.
///
/// # Errors
///
/// That names the first parameter or buffer at which there is none.
pub(crate) fn check(blueprint: &Blueprint, models: usize) -> Result<(), RoomError> {
    let rows = models.max(FIRST_ROWS);
    let mut all = MODULE_BYTES.saturating_mul(blueprint.positions.len()).saturating_mul(models);
    check_room(all).map_err(|wrong| RoomError::Modules { models, message: wrong.to_string() })?;
    for (position, at) in blueprint.positions.iter().enumerate() {
        // One that is tied or lazy has no column, but a shape, whose elements are counted.
        for of in at.parameters.iter().chain(&at.buffers).filter(|of| !of.uninitialized) {
            let error = |message: String| RoomError::Tensor {
                path: blueprint.path_below(position, &of.name),
                ty: of.ty.clone(),
                models,
                message,
            };
            let bytes = of.ty.checked_size_bytes().map_err(|wrong| error(wrong.0))?;
            if of.has_column() {
                let row = row_bytes(bytes);
                all = all.saturating_add(row.saturating_mul(models));
                // A column is one block, and so is a row of zeros for it.
                let column = row.saturating_mul(rows);
                check_room(all.max(column)).map_err(|wrong| error(wrong.to_string()))?;
            }
        }
    }
    Ok(())
}
