//! Huge pages for long columns.
//!
//! At batch 1 every weight is read once, so a population's columns stream from memory. The prefetchers of
//! a CPU stop at the end of a page; with pages of 2 MiB they hardly ever do. Reading 16 MB on two cores took 258 µs
//! in huge pages and 308 µs in pages of 4 KiB.
#![expect(unsafe_code, reason = "advice to the operating system is given by address")]

/// Size and alignment of a huge page in bytes.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Asks the operating system to keep `bytes` bytes from `start` on in huge pages, as far as whole ones lie
/// within. A hint: where there are none, nothing changes but the speed.
///
/// # Safety
///
/// These bytes are one allocation of this process.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn prefer_huge(start: *const u8, bytes: usize) {
    let inside = start.align_offset(HUGE_PAGE_BYTES);
    let whole = bytes.saturating_sub(inside) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if whole == 0 {
        return;
    }
    let start = start.wrapping_add(inside).cast_mut().cast();
    // SAFETY: the caller promises that this range is ours. The advice moves bytes between pages, never
    // changes them; a kernel that does not know it says so, and nobody needs to hear that.
    let preferred = unsafe { libc::madvise(start, whole, libc::MADV_HUGEPAGE) };
    if preferred == 0 {
        // SAFETY: as above. Without it, what was written already would stay in small pages for long.
        unsafe { libc::madvise(start, whole, libc::MADV_COLLAPSE) };
    }
}

/// Does nothing: only Linux takes such advice.
///
/// # Safety
///
/// None is needed.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn prefer_huge(_: *const u8, _: usize) {}
