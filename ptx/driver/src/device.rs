//! Devices: how many there are, and what they have.
#![expect(
    unsafe_code,
    reason = "the driver's functions have C's calling convention, and write through pointers"
)]

use std::ffi::{c_char, c_int, c_uint};

use crate::pointers::put;
use crate::state::{DEVICE_BYTES, current_device, with};
use crate::status::{INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, SUCCESS, Status};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(count, with(|driver| driver.devices.len()) as c_int) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Status {
    if ordinal < 0 || ordinal as usize >= with(|driver| driver.devices.len()) {
        return INVALID_DEVICE;
    }
    // SAFETY: the caller upholds it.
    unsafe { put(device, ordinal) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, _device: c_int) -> Status {
    let text = b"PTX interpreter\0";
    if name.is_null() || (len as usize) < text.len() {
        return INVALID_VALUE;
    }
    // SAFETY: there is room for `len` characters, and the text has no more.
    unsafe { name.copy_from_nonoverlapping(text.as_ptr().cast(), text.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(uuid, [device as u8; 16]) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(bytes, DEVICE_BYTES) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Status {
    let Some(device) = current_device() else { return INVALID_CONTEXT };
    let used =
        with(|driver| driver.devices.get(device).map_or(0, |memory| memory.allocated_bytes()));
    // SAFETY: the caller upholds it.
    match unsafe { put(free, DEVICE_BYTES.saturating_sub(used)) } {
        // SAFETY: as above.
        SUCCESS => unsafe { put(total, DEVICE_BYTES) },
        status => status,
    }
}

/// The limits of `sm_90`, by the numbers of `CUdevice_attribute`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_uint,
    _device: c_int,
) -> Status {
    let limit = match attribute {
        1..=3 => 1024, // Threads of a block: all, along x, along y.
        4 => 64,
        5 => c_int::MAX, // Blocks along x.
        6 | 7 => 65_535,
        8 => 49_152,     // Shared memory of a block.
        9 => 65_536,     // Constants.
        10 => 32,        // Lanes of a warp.
        12 => 65_536,    // Registers of a block.
        13 => 1_980_000, // Kilohertz.
        16 => 132,       // Multiprocessors.
        38 => 50 << 20,  // Second-level cache.
        39 => 2048,      // Threads of a multiprocessor.
        41 => 1,         // One address space with the host.
        75 => 9,         // Compute capability.
        76 => 0,
        81 => 233_472, // Shared memory of a multiprocessor.
        82 => 65_536,  // Registers of a multiprocessor.
        95 => 1,       // Cooperative launches.
        97 => 232_448, // Shared memory of a block that asks for it.
        106 => 32,     // Blocks of a multiprocessor.
        111 => 1024,   // Shared memory that the system takes of a block.
        115 => 1,      // Memory pools.
        _ => 0,
    };
    // SAFETY: the caller upholds it.
    unsafe { put(value, limit) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceCanAccessPeer(
    can: *mut c_int,
    _device: c_int,
    _peer: c_int,
) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(can, 1) }
}
