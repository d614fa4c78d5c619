//! Bytes, which of them were written, and who touched them last.

use super::shadow::{Cell, Conflict, Visit};

/// A piece of memory: an allocation, or the shared memory of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    pub(crate) bytes: Vec<u8>,
    /// A bit for each byte.
    written: Vec<u64>,
    /// One for each word of four bytes, or for each byte once there was an access to less.
    cells: Vec<Cell>,
    by_byte: bool,
}

/// What unwritten bytes hold.
const FILLER: u8 = 0xcd;

/// Returns the words, of a bit for each byte, that hold some bytes, and which bits of each.
fn masks(at: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = at + bytes;
    (at / 64..end.div_ceil(64)).map(move |word| {
        let first = at.saturating_sub(word * 64);
        let last = (end - word * 64).min(64);
        (word, u64::MAX.checked_shr((64 - (last - first)) as u32).unwrap_or(0) << first)
    })
}

impl Region {
    pub(crate) fn new(bytes: usize) -> Self {
        let written = vec![0; bytes.div_ceil(64)];
        Region { bytes: vec![FILLER; bytes], written, ..Region::default() }
    }

    /// Makes it as new, with room for `bytes`.
    pub(crate) fn reset(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.resize(bytes, FILLER);
        self.written.clear();
        self.written.resize(bytes.div_ceil(64), 0);
        self.cells.clear();
        self.by_byte = false;
    }

    /// Makes room for `bytes` in all; what is there stays.
    pub(crate) fn grow(&mut self, bytes: usize) {
        if bytes > self.bytes.len() {
            self.bytes.resize(bytes, FILLER);
            self.written.resize(bytes.div_ceil(64), 0);
        }
    }

    pub(crate) fn is_inside(&self, at: u64, bytes: usize) -> bool {
        at.checked_add(bytes as u64).is_some_and(|end| end <= self.bytes.len() as u64)
    }

    pub(crate) fn is_written(&self, at: usize, bytes: usize) -> bool {
        masks(at, bytes).all(|(word, mask)| self.written[word] & mask == mask)
    }

    pub(crate) fn mark_written(&mut self, at: usize, bytes: usize) {
        masks(at, bytes).for_each(|(word, mask)| self.written[word] |= mask);
    }

    /// Notes an access, and returns what it races with.
    pub(crate) fn visit(&mut self, at: usize, bytes: usize, visit: &Visit<'_>) -> Option<Conflict> {
        if self.cells.is_empty() {
            self.cells.resize(self.bytes.len().div_ceil(4), Cell::default());
        }
        if bytes < 4 && !self.by_byte {
            self.by_byte = true;
            self.cells = self.cells.iter().flat_map(|cell| [*cell; 4]).collect();
        }
        let (first, last) = match self.by_byte {
            true => (at, at + bytes - 1),
            false => (at / 4, (at + bytes - 1) / 4),
        };
        let mut conflict = None;
        for cell in &mut self.cells[first..=last] {
            conflict = conflict.or(cell.visit(visit));
        }
        conflict
    }
}
