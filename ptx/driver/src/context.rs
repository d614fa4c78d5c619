//! Initialization, contexts, errors.
#![expect(
    unsafe_code,
    reason = "the driver's functions have C's calling convention, and write through pointers"
)]

use std::ffi::{c_char, c_int, c_uint};

use crate::pointers::put;
use crate::state::{CONTEXT, current_device, with};
use crate::status::{
    ILLEGAL_ADDRESS, INVALID_CONTEXT, INVALID_DEVICE, INVALID_PTX, SUCCESS, Status, name,
};

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

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(status: Status, text: *mut *const c_char) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(text, name(status).as_ptr()) }
}

/// The text of a fault is its report.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(status: Status, text: *mut *const c_char) -> Status {
    let is_report = status >= ILLEGAL_ADDRESS || status == INVALID_PTX;
    let message = with(|driver| driver.message.clone()).filter(|_| is_report);
    // Whoever asked may keep the text: it is never freed.
    let message = message.map_or(name(status).as_ptr(), |message| message.into_raw().cast_const());
    // SAFETY: the caller upholds it.
    unsafe { put(text, message) }
}
