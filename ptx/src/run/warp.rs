//! A warp: its frames, its local memory, and what it knows of other warps.

use std::collections::VecDeque;

use super::frame::Frame;
use crate::memory::Region;
use crate::program::{Barrier, Function};

/// A copy that was started and is not yet done: from a global to a shared address.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingCopy {
    pub(super) to: u64,
    pub(super) from: u64,
    pub(super) bytes: usize,
    /// How many bytes are read; the rest is 0.
    pub(super) read: usize,
}

/// The copies of a lane.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneCopies {
    /// Those that no group has yet.
    pub(super) open: Vec<PendingCopy>,
    pub(super) groups: VecDeque<Vec<PendingCopy>>,
}

/// Lanes that wait at a barrier of the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) barrier: Barrier,
    pub(super) lanes: u32,
    /// The instruction.
    pub(super) pc: u32,
}

/// 32 threads of a block, or fewer.
pub(super) struct Warp<'p> {
    pub(super) index: u32,
    /// The lanes that exist.
    pub(super) lanes: u32,
    pub(super) frame: Frame<'p>,
    pub(super) callers: Vec<Frame<'p>>,
    /// How often its lanes were synchronized.
    pub(super) epoch: u32,
    /// Up to which time it has seen each warp of the block.
    pub(super) seen: [u32; 32],
    /// How far its time is ahead of the block's: it came to barriers without waiting.
    pub(super) ahead: u32,
    /// It ran a fence beyond the block.
    pub(super) has_fenced: bool,
    pub(super) arrivals: Vec<Arrival>,
    /// The warp's lanes are all at a barrier that has been told so.
    pub(super) is_blocked: bool,
    /// Of each lane; empty as long as there was none.
    pub(super) copies: Vec<LaneCopies>,
    pub(super) local: Vec<Region>,
}

impl<'p> Warp<'p> {
    pub(super) fn new(index: u32, lanes: u32, kernel: &'p Function, parameters: &[u8]) -> Self {
        let mut frame = Frame::new(kernel, lanes, 0);
        for lane in super::frame::lanes(lanes) {
            if let Some(room) = frame.parameter(lane, 0, parameters.len()) {
                room.copy_from_slice(parameters);
            }
        }
        let local =
            vec![Region::new(kernel.local_bytes); if kernel.local_bytes > 0 { 32 } else { 0 }];
        Warp {
            index,
            lanes,
            frame,
            callers: Vec::new(),
            epoch: 0,
            seen: [0; 32],
            ahead: 0,
            has_fenced: false,
            arrivals: Vec::new(),
            is_blocked: false,
            copies: Vec::new(),
            local,
        }
    }

    /// Returns the lanes that have not left the kernel.
    pub(super) fn alive(&self) -> u32 {
        self.callers.first().map_or(self.frame.alive(), |kernel| kernel.alive())
    }

    pub(super) fn is_done(&self) -> bool {
        self.callers.is_empty() && self.frame.alive() == 0
    }

    /// Makes room in local memory for the current function.
    pub(super) fn grow_local(&mut self) {
        let bytes = self.frame.local_base + self.frame.f.local_bytes;
        if bytes > 0 {
            self.local.resize_with(32, Region::default);
            self.local.iter_mut().for_each(|region| region.grow(bytes));
        }
    }

    /// Lets lanes leave the kernel, from all functions that they are in.
    pub(super) fn exit(&mut self, mask: u32) {
        self.frame.leave(mask);
        self.callers.iter_mut().for_each(|frame| frame.leave(mask));
    }

    /// Lets lanes go on behind a barrier.
    pub(super) fn release(&mut self, mask: u32) {
        self.frame.waiting &= !mask;
        self.frame.running |= mask;
        self.arrivals.retain(|arrival| arrival.lanes & mask == 0);
        self.is_blocked = false;
    }
}
