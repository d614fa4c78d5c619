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
        (at..at + bytes).all(|at| self.written[at / 64] >> (at % 64) & 1 == 1)
    }

    pub(crate) fn mark_written(&mut self, at: usize, bytes: usize) {
        let mut at = at;
        let end = at + bytes;
        while at < end {
            if at % 64 == 0 && end - at >= 64 {
                self.written[at / 64] = u64::MAX;
                at += 64;
            } else {
                self.written[at / 64] |= 1 << (at % 64);
                at += 1;
            }
        }
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
