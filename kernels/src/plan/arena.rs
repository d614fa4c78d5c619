//! [`Arena`]: gives out and takes back parts of one model's arena.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::op::OpError;
use crate::memory::{check_room, padded};

/// Gives out and takes back parts of one model's arena, first fit. Both take time that grows with the logarithm of the
/// number of free parts, and with the number of their different sizes.
#[derive(Debug, Default)]
pub(super) struct Arena {
    size: usize,
    /// Bytes that are free below `size`.
    n_free: usize,
    /// Free parts below `size`, never adjacent: bytes by offset.
    free: BTreeMap<usize, usize>,
    /// The same parts: (bytes, offset).
    by_size: BTreeSet<(usize, usize)>,
}

impl Arena {
    /// Gives the bytes that were in use at a time, at most, if there is room for them.
    ///
    /// # Errors
    ///
    /// If there is none, or they cannot be counted.
    pub(super) fn checked_size(&self) -> Result<usize, OpError> {
        let room = check_room(self.size.min(isize::MAX as usize));
        room.map(|()| self.size).map_err(|error| OpError(error.to_string()))
    }

    /// Gives the bytes that are taken.
    pub(super) fn in_use(&self) -> usize {
        self.size.saturating_sub(self.n_free)
    }

    /// Gives the offset of that many bytes, or a few more.
    pub(super) fn take(&mut self, bytes: usize) -> usize {
        let bytes = padded(bytes.max(1));
        if let Some(offset) = self.first_fit(bytes) {
            let free = self.remove(offset);
            if free > bytes {
                self.insert(offset.saturating_add(bytes), free - bytes);
            }
            return offset;
        }
        let last = self
            .free
            .last_key_value()
            .map(|(&offset, &free)| (offset, offset.saturating_add(free)));
        let offset = match last {
            Some((offset, end)) if end == self.size => {
                self.remove(offset);
                offset
            }
            _ => self.size,
        };
        // A sum that cannot be counted stays one: see `checked_size`.
        self.size = offset.saturating_add(bytes);
        offset
    }

    /// Takes back what was taken at `offset`.
    pub(super) fn give(&mut self, offset: usize, bytes: usize) {
        let (mut start, mut end) = (offset, offset.saturating_add(padded(bytes.max(1))));
        let before = self.free.range(..offset).next_back().map(|(&before, &free)| (before, free));
        if let Some((before, free)) = before
            && before.saturating_add(free) == start
        {
            self.remove(before);
            start = before;
        }
        if self.free.contains_key(&end) {
            end += self.remove(end);
        }
        self.insert(start, end - start);
    }

    /// Finds the first free part of that many bytes or more.
    fn first_fit(&self, bytes: usize) -> Option<usize> {
        let (mut first, mut at_least) = (None, bytes);
        // Of each size, the first one.
        while let Some(&(size, offset)) = self.by_size.range((at_least, 0)..).next() {
            first = Some(first.map_or(offset, |first: usize| first.min(offset)));
            at_least = size.saturating_add(1);
        }
        first
    }

    fn insert(&mut self, offset: usize, bytes: usize) {
        self.n_free = self.n_free.saturating_add(bytes);
        self.free.insert(offset, bytes);
        self.by_size.insert((bytes, offset));
    }

    fn remove(&mut self, offset: usize) -> usize {
        let bytes = self.free.remove(&offset).unwrap_or(0);
        self.by_size.remove(&(bytes, offset));
        self.n_free = self.n_free.saturating_sub(bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_part_that_is_large_enough_is_taken(
            steps in proptest::collection::vec((any::<bool>(), 1..9_usize, any::<usize>()), 1..200),
        ) {
            let mut arena = Arena::default();
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (takes, lines, which) in steps {
                let bytes = lines * padded(1);
                if takes || taken.is_empty() {
                    let mut sorted = taken.clone();
                    sorted.sort_unstable();
                    let mut expected = 0;
                    for (offset, taken) in sorted {
                        if offset - expected >= bytes {
                            break;
                        }
                        expected = offset + taken;
                    }
                    let size = arena.size;
                    let offset = arena.take(bytes);
                    prop_assert_eq!(offset, expected);
                    prop_assert_eq!(arena.size, size.max(offset + bytes));
                    taken.push((offset, bytes));
                } else {
                    let (offset, bytes) = taken.swap_remove(which % taken.len());
                    arena.give(offset, bytes);
                }
            }
            taken.iter().for_each(|&(offset, bytes)| arena.give(offset, bytes));
            prop_assert_eq!(arena.in_use(), 0);
            let all: Vec<_> = arena.free.iter().map(|(&offset, &bytes)| (offset, bytes)).collect();
            prop_assert_eq!(all, [(0, arena.size)]);
            prop_assert_eq!(arena.by_size.len(), 1);
        }
    }
}
