//! [`Values`]: the components of one type in an open checkpoint.

use super::error::CheckpointError;
use super::index::{ComponentEntry, NO_VALUE};
use super::open::Checkpoint;

/// The different values of components of one type, and which each entity has.
pub(super) struct Values<'a> {
    bytes: &'a [u8],
    ends: Vec<u64>,
    which: Vec<u32>,
}

impl<'a> Values<'a> {
    /// Reads those of an entry of the index.
    pub(super) fn of(
        checkpoint: &'a Checkpoint,
        entry: &ComponentEntry,
    ) -> Result<Self, CheckpointError> {
        let bytes = checkpoint.section(entry.values)?;
        let mut ends = checkpoint.numbers::<u64>(entry.ends)?;
        if ends.is_empty() {
            ends.push(bytes.len() as u64);
        }
        let which = checkpoint.numbers::<u32>(entry.which)?;
        let is_right = |&which: &u32| which == NO_VALUE || (which as usize) < ends.len();
        let are_values = ends.is_sorted() && ends.last() == Some(&(bytes.len() as u64));
        if !are_values || !which.iter().all(is_right) {
            return Err(CheckpointError::index(format!("the values of {} are none", entry.ty)));
        }
        Ok(Values { bytes, ends, which })
    }

    /// Returns the number of the value that an entity has, by its place in the group.
    pub(super) fn which(&self, member: u32) -> Option<usize> {
        let which = self.which.get(member as usize).copied().unwrap_or(0);
        (which != NO_VALUE).then_some(which as usize)
    }

    /// Returns a value.
    pub(super) fn value(&self, number: usize) -> &'a [u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[number] as usize]
    }

    /// Counts the different values.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether all entities have one value.
    pub(super) fn is_one(&self) -> bool {
        self.which.is_empty()
    }
}
