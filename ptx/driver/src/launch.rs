//! Modules, functions, launches.
#![expect(
    unsafe_code,
    reason = "the driver's functions have C's calling convention, and read through pointers"
)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use neurarch_ptx::{Argument, Kernel, Launch, Program};

use crate::pointers::put;
use crate::state::{Driver, Function, Work, current_device, with};
use crate::status::{
    INVALID_CONTEXT, INVALID_HANDLE, INVALID_IMAGE, INVALID_PTX, INVALID_VALUE, NO_BINARY,
    NOT_FOUND, SUCCESS, Status,
};

/// The most dynamic shared memory of a block: at first, and when a function asks for it.
const DYNAMIC_SHARED: usize = 49_152;
const DYNAMIC_SHARED_OPTED_IN: usize = 232_448;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> Status {
    let Some(device) = current_device() else { return INVALID_CONTEXT };
    if image.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: an image is PTX, which ends with a zero, or machine code, whose first bytes have one behind them.
    let image = unsafe { CStr::from_ptr(image.cast()) };
    if image.to_bytes().starts_with(b"\x7fELF") {
        return NO_BINARY;
    }
    let Ok(text) = image.to_str() else { return INVALID_IMAGE };
    match Program::parse(text) {
        Ok(program) => {
            let handle = with(|driver| {
                let handle = driver.handle();
                driver.modules.insert(handle, (device, Arc::new(program)));
                handle
            });
            // SAFETY: the caller upholds it.
            unsafe { put(module, handle) }
        }
        Err(error) => with(|driver| driver.fail(&error.to_string(), INVALID_PTX)),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_void,
    _count: c_uint,
    _options: *const c_int,
    _values: *const *const c_void,
) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { cuModuleLoadData(module, image) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> Status {
    with(|driver| if driver.modules.remove(&module).is_some() { SUCCESS } else { INVALID_HANDLE })
}

/// Reads a name that the caller passes.
///
/// # Safety
///
/// `name` is null, or ends with a zero.
unsafe fn read_name(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: the caller upholds it.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> Status {
    // SAFETY: the driver's documentation asks it of the caller.
    let name = unsafe { read_name(name) };
    let found = with(|driver| {
        let (device, program) = driver.modules.get(&module).cloned().ok_or(INVALID_HANDLE)?;
        if !program.kernels().any(|kernel| kernel.name == name) {
            return Err(NOT_FOUND);
        }
        driver.functions.push(Function { device, program, name, dynamic_shared: DYNAMIC_SHARED });
        Ok(driver.functions.len())
    });
    match found {
        // SAFETY: the caller upholds it.
        Ok(handle) => unsafe { put(function, handle) },
        Err(status) => status,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: usize,
    name: *const c_char,
) -> Status {
    // SAFETY: the driver's documentation asks it of the caller.
    let name = unsafe { read_name(name) };
    let found = with(|driver| {
        let (device, program) = driver.modules.get(&module).cloned()?;
        driver.devices.get_mut(device)?.variable(&program, &name)
    });
    let Some((at, size)) = found else { return NOT_FOUND };
    if !bytes.is_null() {
        // SAFETY: the caller upholds it.
        unsafe { put(bytes, size) };
    }
    // SAFETY: as above.
    unsafe { put(address, at) }
}

fn kernel(driver: &Driver, function: usize) -> Option<Kernel> {
    let f = driver.functions.get(function.checked_sub(1)?)?;
    f.program.kernels().find(|kernel| kernel.name == f.name)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: c_int,
    function: usize,
) -> Status {
    let found = with(|driver| {
        Some((kernel(driver, function)?, driver.functions[function - 1].dynamic_shared))
    });
    let Some((kernel, dynamic)) = found else { return INVALID_HANDLE };
    let number = match attribute {
        0 => kernel.max_threads.unwrap_or(1024) as usize,
        1 => kernel.shared_bytes,
        3 => kernel.local_bytes,
        8 => dynamic,
        _ => 0,
    };
    // SAFETY: the caller upholds it.
    unsafe { put(value, number as c_int) }
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) -> Status {
    with(|driver| {
        let Some(shared_bytes) = kernel(driver, function).map(|kernel| kernel.shared_bytes) else {
            return INVALID_HANDLE;
        };
        if attribute == 8 {
            if value < 0 || value as usize + shared_bytes > DYNAMIC_SHARED_OPTED_IN {
                return INVALID_VALUE;
            }
            driver.functions[function - 1].dynamic_shared = value as usize;
        }
        SUCCESS
    })
}

/// As many blocks as shared memory and threads allow.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    shared_bytes: usize,
) -> Status {
    let Some(kernel) = with(|driver| kernel(driver, function)) else { return INVALID_HANDLE };
    // A block takes a kibibyte more.
    let shared = kernel.shared_bytes + shared_bytes + 1024;
    let most = (233_472 / shared).min(2048 / threads.max(1) as usize).min(32);
    // SAFETY: the caller upholds it.
    unsafe { put(blocks, most as c_int) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: usize,
    parameters: *const *const c_void,
    _extra: *const *const c_void,
) -> Status {
    let Some(kernel) = with(|driver| kernel(driver, function)) else { return INVALID_HANDLE };
    if parameters.is_null() && !kernel.parameters.is_empty() {
        return INVALID_VALUE;
    }
    let argument = |(index, &(_, bytes)): (usize, &(usize, usize))| {
        // SAFETY: the caller passes as many addresses as the kernel has parameters.
        let at = unsafe { parameters.add(index).read() };
        // SAFETY: each is that of as many bytes as the parameter has.
        Argument::from_bytes(unsafe { std::slice::from_raw_parts(at.cast::<u8>(), bytes) })
    };
    let arguments = kernel.parameters.iter().enumerate().map(argument).collect();
    let launch = Launch {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared_bytes: shared_bytes as usize,
    };
    with(|driver| driver.submit(stream, Work::Launch { function: function - 1, launch, arguments }))
}
