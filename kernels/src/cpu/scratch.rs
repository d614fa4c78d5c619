//! Memory of a thread's own for what is not a step of a plan.

use std::cell::RefCell;

use crate::memory::AlignedBytes;

thread_local! {
    /// One for each call that is under way on this thread: a kernel that waits for the pool may have another one run
    /// meanwhile.
    static SCRATCH: RefCell<Vec<AlignedBytes>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with so many bytes of scratch memory of this thread's own (zeroed at first, then as it was left).
pub(crate) fn with_scratch(bytes: usize, f: impl FnOnce(&mut [u8])) {
    let mut scratch = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    scratch.reserve(bytes);
    f(scratch.bytes_mut());
    SCRATCH.with_borrow_mut(|free| free.push(scratch));
}
