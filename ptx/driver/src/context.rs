//! Initialization, contexts, errors.
#![expect(
    unsafe_code,
    reason = "the driver's functions have C's calling convention, and write through pointers"
)]

use std::ffi::{CStr, c_char, c_int, c_uint};

use crate::state::{
    self, CONTEXT, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, SUCCESS, Status, current_device,
    with,
};

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

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(version, 13_000) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> Status {
    if device < 0 || device as usize >= with(|driver| driver.devices.len()) {
        return INVALID_DEVICE;
    }
    // SAFETY: the caller upholds it.
    unsafe { put(context, device as usize + 1) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(context, CONTEXT.get()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> Status {
    if context > with(|driver| driver.devices.len()) {
        return INVALID_CONTEXT;
    }
    CONTEXT.set(context);
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Status {
    match current_device() {
        // SAFETY: the caller upholds it.
        Some(current) => unsafe { put(device, current as c_int) },
        None => INVALID_CONTEXT,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxEnablePeerAccess(_peer: usize, _flags: c_uint) -> Status {
    SUCCESS
}

fn name(status: Status) -> &'static CStr {
    match status {
        state::SUCCESS => c"CUDA_SUCCESS",
        state::INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        state::OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        state::INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        state::INVALID_IMAGE => c"CUDA_ERROR_INVALID_IMAGE",
        state::INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        state::NO_BINARY => c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        state::INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        state::INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        state::NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        state::ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        state::TIMEOUT => c"CUDA_ERROR_LAUNCH_TIMEOUT",
        state::MISALIGNED_ADDRESS => c"CUDA_ERROR_MISALIGNED_ADDRESS",
        state::LAUNCH_FAILED => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => c"CUDA_ERROR_UNKNOWN",
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(status: Status, text: *mut *const c_char) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(text, name(status).as_ptr()) }
}

/// The text of a fault is its report.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(status: Status, text: *mut *const c_char) -> Status {
    let is_report = status >= state::ILLEGAL_ADDRESS || status == state::INVALID_PTX;
    let message = with(|driver| driver.message.clone()).filter(|_| is_report);
    // Whoever asked may keep the text: it is never freed.
    let message = message.map_or(name(status).as_ptr(), |message| message.into_raw().cast_const());
    // SAFETY: the caller upholds it.
    unsafe { put(text, message) }
}
