//! What a barrier of a block knows: who has come, and who waits.

use crate::program::{BarrierReduction, Target};

/// A barrier that was not reached by all yet.
#[derive(Clone, Debug, Default)]
pub(super) struct BarrierState {
    /// Threads that have come, and those that it waits for.
    pub(super) arrived: u32,
    pub(super) expected: u32,
    pub(super) waiting: Vec<(u32, u32)>,
    /// What those that came have seen.
    pub(super) seen: [u32; 32],
    /// What the threads' predicates say: how many hold, and of how many.
    pub(super) holding: u32,
    pub(super) asked: u32,
    pub(super) reduction: Option<(BarrierReduction, Target)>,
}

impl BarrierState {
    pub(super) fn has_warp(&self, warp: u32) -> bool {
        self.waiting.iter().any(|(waiting, _)| *waiting == warp)
    }
}

/// A barrier that has opened.
#[derive(Debug)]
pub(super) struct Released(pub(super) BarrierState);
