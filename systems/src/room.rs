//! Whether the memory for a population's parameters and buffers can be had: asked before any of it is taken, for
//! tables cannot give an error when they grow.

use neurarch_components::blueprint::Blueprint;
use neurarch_components::column::row_bytes;
use neurarch_kernels::cpu::memory::check_room;
use neurarch_kernels::shape::Type;

/// A parameter or buffer that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {ty} for each of {models} models: {message}")]
#[non_exhaustive]
pub struct RoomError {
    /// Its dotted path.
    pub path: String,
    /// Its element type and shape.
    pub ty: Type,
    /// How many models there are to be.
    pub models: usize,
    /// What was asked for, in torch's words.
    pub message: String,
}

/// A table that grows has room for this many rows at least.
const FIRST_ROWS: usize = 4;

/// Checks that there is room for `models` models of a blueprint.
///
/// # Errors
///
/// That names the first parameter or buffer at which there is none.
pub(crate) fn check(blueprint: &Blueprint, models: usize) -> Result<(), RoomError> {
    let rows = models.max(FIRST_ROWS);
    let mut all: usize = 0;
    for (position, at) in blueprint.positions.iter().enumerate() {
        // One that is tied or lazy has no column, but a shape, whose elements are counted.
        for of in at.parameters.iter().chain(&at.buffers).filter(|of| !of.uninitialized) {
            let error = |message: String| RoomError {
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
