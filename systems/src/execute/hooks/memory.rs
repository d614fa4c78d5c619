//! [`Memory`]: what an observed pass writes, kept for the next one.

use neurarch_kernels::memory::AlignedBytes;

/// Memory of an observed pass, for the next one.
#[derive(Default)]
pub(crate) struct Memory {
    /// The results, or the loss: a row for each member.
    pub(super) own: AlignedBytes,
    /// What hooks see, likewise.
    pub(super) seen: AlignedBytes,
    /// What the pass wrote over.
    pub(super) undo: Vec<u8>,
}
