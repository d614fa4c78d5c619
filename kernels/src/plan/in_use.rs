//! [`InUse`]: what lies in memory in the middle of a plan.

/// What one model has in memory at one time in the middle of a plan, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// In the arena.
    pub arena: usize,
    /// In outputs that are made in their place.
    pub outputs: usize,
}
