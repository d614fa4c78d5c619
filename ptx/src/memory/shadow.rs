//! Who read and wrote what last: how races are found.
//!
//! Time is a number of the block that grows whenever a barrier opens; a warp that came to one without waiting is ahead. A warp has *seen* another one up to the
//! time of the last barrier that both passed, directly or through others. An access is ordered before a later one of
//! another warp if that warp has seen its time. Within a warp, `bar.warp.sync` and barriers order; shuffles do not.

use crate::error::Access;

/// Who does something, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The block, by a number that no other launch has; 0 is nobody.
    pub(crate) block: u64,
    pub(crate) time: u32,
    /// How often the warp has synchronized its lanes.
    pub(crate) epoch: u32,
    /// The thread's number in its block.
    pub(crate) thread: u32,
}

/// An access, as its warp sees it.
#[derive(Clone, Copy)]
pub(crate) struct Visit<'a> {
    pub(crate) stamp: Stamp,
    /// Up to which time the warp has seen each warp of its block.
    pub(crate) seen: &'a [u32],
    /// The number of the launch's first block: earlier ones are done.
    pub(crate) first_block: u64,
    /// Earlier blocks of the launch whose doings the warp's block has acquired through atomics.
    pub(crate) acquired: &'a [u64],
    pub(crate) access: Access,
    /// Two such accesses never race with each other.
    pub(crate) atomic: bool,
}

/// The other side of a race; several threads have no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) earlier: Access,
    pub(crate) block: u64,
    pub(crate) thread: Option<u32>,
}

/// What is known about some bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    writer: Stamp,
    /// The last of the readers since the last write.
    reader: Stamp,
    /// The warps that read, a bit each, if they are of one block.
    reader_warps: u32,
    wrote_atomically: bool,
    read_atomically: bool,
    several_readers: bool,
    several_blocks: bool,
}

impl Visit<'_> {
    fn is_over(&self, block: u64) -> bool {
        block < self.first_block || block != self.stamp.block && self.acquired.contains(&block)
    }

    /// Says whether what was done before is surely done now.
    fn follows(&self, before: &Stamp) -> bool {
        if self.is_over(before.block) {
            return true;
        }
        if before.block != self.stamp.block {
            return false;
        }
        if before.thread == self.stamp.thread {
            return true;
        }
        let warp = before.thread / 32;
        match warp == self.stamp.thread / 32 {
            true => before.epoch < self.stamp.epoch,
            false => self.seen.get(warp as usize).is_some_and(|&time| before.time <= time),
        }
    }

    /// As [`Visit::follows`] for all who read; where there are several, the last time stands for each.
    fn follows_readers(&self, cell: &Cell) -> bool {
        if cell.several_blocks {
            return cell.reader.block < self.first_block;
        }
        if !cell.several_readers || self.is_over(cell.reader.block) {
            return self.follows(&cell.reader);
        }
        if cell.reader.block != self.stamp.block {
            return false;
        }
        let own = self.stamp.thread / 32;
        (0..32).filter(|warp| cell.reader_warps >> warp & 1 == 1).all(|warp| match warp == own {
            true => cell.reader.epoch < self.stamp.epoch,
            false => self.seen.get(warp as usize).is_some_and(|&time| cell.reader.time <= time),
        })
    }
}

impl Cell {
    /// Notes an access, and returns what it races with.
    pub(crate) fn visit(&mut self, visit: &Visit<'_>) -> Option<Conflict> {
        let stamp = visit.stamp;
        let mut conflict = None;
        if !(visit.follows(&self.writer) || visit.atomic && self.wrote_atomically) {
            let (block, thread) = (self.writer.block, Some(self.writer.thread));
            conflict = Some(Conflict { earlier: Access::Write, block, thread });
        }
        let warp = 1 << (stamp.thread / 32);
        match visit.access {
            Access::Read if visit.follows_readers(self) => {
                self.reader = stamp;
                self.reader_warps = warp;
                (self.several_readers, self.several_blocks) = (false, false);
                self.read_atomically = visit.atomic;
            }
            Access::Read => {
                self.several_blocks |= self.reader.block != stamp.block;
                self.several_readers = true;
                self.reader_warps |= warp;
                self.read_atomically &= visit.atomic;
                self.reader = Stamp {
                    time: stamp.time.max(self.reader.time),
                    epoch: stamp.epoch.max(self.reader.epoch),
                    ..stamp
                };
            }
            Access::Write => {
                if !(visit.follows_readers(self) || visit.atomic && self.read_atomically) {
                    let thread = (!self.several_readers).then_some(self.reader.thread);
                    let block = self.reader.block;
                    conflict = conflict.or(Some(Conflict { earlier: Access::Read, block, thread }));
                }
                *self = Cell { writer: stamp, wrote_atomically: visit.atomic, ..Cell::default() };
            }
        }
        conflict
    }
}
