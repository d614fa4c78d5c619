//! Pointers of the caller: results are written, and bytes of the host are viewed.
#![expect(unsafe_code, reason = "whoever calls the driver answers for its pointers")]

use crate::status::{INVALID_VALUE, SUCCESS, Status};

/// Writes a result where the caller wants it.
///
/// # Safety
///
/// `to` is null, or valid for a write: the driver's documentation asks it of the caller.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Status {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller upholds it.
    unsafe { to.write(value) };
    SUCCESS
}

/// Views bytes of the host that a copy reads.
pub(crate) fn host_bytes<'a>(address: usize, bytes: usize) -> &'a [u8] {
    if bytes == 0 {
        return &[];
    }
    // SAFETY: whoever submitted the copy promised so many bytes until it is done; it is done at once, or when the graph is launched.
    unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }
}

/// Views bytes of the host that a copy writes.
pub(crate) fn host_bytes_mut<'a>(address: usize, bytes: usize) -> &'a mut [u8] {
    if bytes == 0 {
        return &mut [];
    }
    // SAFETY: as above, and nobody else looks at them meanwhile.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u8, bytes) }
}
