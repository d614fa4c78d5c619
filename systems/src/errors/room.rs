//! Whether the memory for a population's parameters and buffers can be had: asked before any of it is taken, for
//! tables cannot give an error when they grow.

use std::fs;

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

/// Activations that do not fit the memory that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "can't allocate memory: activations need {needed} bytes, {}",
    .free.map_or("which cannot be had".to_owned(), |free| format!("{free} bytes are free"))
)]
pub struct NoRoom {
    /// What they need, in bytes.
    pub needed: usize,
    /// What is free, in bytes, where the system says so.
    pub free: Option<usize>,
}

/// What is smaller is taken to be there: 16 MiB. What asks for it must stay fast.
const ALWAYS_THERE: usize = 1 << 24;

/// Checks that so many bytes are free, before any of them is asked for.
///
/// # Errors
///
/// If they are not.
pub(crate) fn check_free(needed: usize) -> Result<(), NoRoom> {
    if needed < ALWAYS_THERE {
        return Ok(());
    }
    let free = free_bytes();
    match check_room(needed) {
        Ok(()) if free.is_none_or(|free| needed <= free) => Ok(()),
        _ => Err(NoRoom { needed, free }),
    }
}

/// Returns the bytes of memory that the system has left, as far as Linux says so: what programs can get without swapping,
/// and what the group of the process may still take.
fn free_bytes() -> Option<usize> {
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<usize>().ok();
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let available = meminfo.as_deref().and_then(available_bytes);
    let group = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    let group = group.map(|(most, now)| most.saturating_sub(now));
    available.into_iter().chain(group).min()
}

/// Reads `/proc/meminfo`.
fn available_bytes(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?;
    kibibytes.checked_mul(1024)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_is_free_is_read() {
        let text = "MemTotal:       24052932 kB\nMemAvailable:   21967136 kB\nBuffers: 1 kB\n";
        assert_eq!(available_bytes(text), Some(21_967_136 * 1024));
        assert_eq!(available_bytes("MemAvailable: many kB"), None);
        assert_eq!(available_bytes(""), None);
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        assert_eq!(check_free(1000), Ok(()));
        let error = check_free(usize::MAX / 2).expect_err("nobody has that much");
        let words = "can't allocate memory: activations need 9223372036854775807 bytes, ";
        assert!(error.to_string().starts_with(words), "{error}");
    }
}
