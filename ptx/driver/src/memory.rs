//! Memory of devices, pinned memory of the host, copies.
#![expect(
    unsafe_code,
    reason = "the driver's functions have C's calling convention, and write through pointers"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{c_uint, c_void};

use crate::pointers::put;
use crate::state::{DEVICE_BYTES, Work, current_device, with};
use crate::status::{INVALID_CONTEXT, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS, Status};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Status {
    let Some(device) = current_device() else { return INVALID_CONTEXT };
    if bytes == 0 {
        return INVALID_VALUE;
    }
    let allocated = with(|driver| {
        let memory = driver.devices.get_mut(device)?;
        let fits =
            memory.allocated_bytes().checked_add(bytes).is_some_and(|all| all <= DEVICE_BYTES);
        fits.then(|| memory.allocate(bytes))
    });
    match allocated {
        // SAFETY: the caller upholds it.
        Some(allocated) => unsafe { put(address, allocated) },
        None => OUT_OF_MEMORY,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: usize) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { cuMemAlloc_v2(address, bytes) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Status {
    with(|driver| match driver.memory(address).map(|memory| memory.free(address)) {
        Some(Ok(())) => SUCCESS,
        _ => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, _stream: usize) -> Status {
    cuMemFree_v2(address)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(
    pointer: *mut *mut c_void,
    bytes: usize,
    _flags: c_uint,
) -> Status {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 4096) else { return INVALID_VALUE };
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return OUT_OF_MEMORY;
    }
    with(|driver| driver.pinned.insert(memory as usize, layout));
    // SAFETY: the caller upholds it.
    unsafe { put(pointer, memory.cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> Status {
    match with(|driver| driver.pinned.remove(&(pointer as usize))) {
        Some(layout) => {
            // SAFETY: it was allocated with this layout, and is no longer listed.
            unsafe { dealloc(pointer.cast(), layout) };
            SUCCESS
        }
        None => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Status {
    with(|driver| driver.submit(stream, Work::ToDevice { to, from: from as usize, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: usize,
) -> Status {
    with(|driver| driver.submit(stream, Work::ToHost { to: to as usize, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> Status {
    with(|driver| driver.submit(stream, Work::OnDevice { to, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    _: usize,
    from: u64,
    _: usize,
    bytes: usize,
    stream: usize,
) -> Status {
    cuMemcpyDtoDAsync_v2(to, from, bytes, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> Status {
    with(|driver| driver.perform(&Work::ToDevice { to, from: from as usize, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> Status {
    with(|driver| driver.perform(&Work::ToHost { to: to as usize, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Status {
    with(|driver| driver.perform(&Work::OnDevice { to, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, byte: u8, count: usize, stream: usize) -> Status {
    with(|driver| driver.submit(stream, Work::Fill { to, pattern: vec![byte], count }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: u64, byte: u8, count: usize) -> Status {
    with(|driver| driver.perform(&Work::Fill { to, pattern: vec![byte], count }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: u64, word: c_uint, count: usize, stream: usize) -> Status {
    with(|driver| {
        driver.submit(stream, Work::Fill { to, pattern: word.to_le_bytes().into(), count })
    })
}
