//! Streams, events, graphs: everything is done when it is submitted.
#![expect(
    unsafe_code,
    reason = "the driver's functions have C's calling convention, and write through pointers"
)]

use std::ffi::{c_int, c_uint};

use crate::pointers::put;
use crate::state::with;
use crate::status::{INVALID_VALUE, SUCCESS, Status};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: c_uint) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(stream, with(|driver| driver.handle())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut usize,
    flags: c_uint,
    _priority: c_int,
) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { cuStreamCreate(stream, flags) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(_stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(_stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(_stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(_stream: usize, _event: usize, _flags: c_uint) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(event, with(|driver| driver.handle())) }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(_event: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(_event: usize, _stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(_event: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(_event: usize) -> Status {
    SUCCESS
}

/// No time passes between events.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    _start: usize,
    _end: usize,
) -> Status {
    // SAFETY: the caller upholds it.
    unsafe { put(milliseconds, 0.0) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: usize, _mode: c_uint) -> Status {
    with(
        |driver| {
            if driver.captures.insert(stream, Vec::new()).is_none() {
                SUCCESS
            } else {
                INVALID_VALUE
            }
        },
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> Status {
    let handle = with(|driver| {
        let work = driver.captures.remove(&stream)?;
        let handle = driver.handle();
        driver.graphs.insert(handle, work);
        Some(handle)
    });
    match handle {
        // SAFETY: the caller upholds it.
        Some(handle) => unsafe { put(graph, handle) },
        None => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut c_uint) -> Status {
    let is_capturing = with(|driver| driver.captures.contains_key(&stream));
    // SAFETY: the caller upholds it.
    unsafe { put(status, u32::from(is_capturing)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut usize,
    graph: usize,
    _flags: u64,
) -> Status {
    let handle = with(|driver| {
        let work = driver.graphs.get(&graph).cloned()?;
        let handle = driver.handle();
        driver.graphs.insert(handle, work);
        Some(handle)
    });
    match handle {
        // SAFETY: the caller upholds it.
        Some(handle) => unsafe { put(executable, handle) },
        None => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(_executable: usize, _stream: usize) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: usize, _stream: usize) -> Status {
    with(|driver| {
        let Some(work) = driver.graphs.get(&executable).cloned() else { return INVALID_VALUE };
        work.iter()
            .map(|work| driver.perform(work))
            .find(|status| *status != SUCCESS)
            .unwrap_or(SUCCESS)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: usize) -> Status {
    with(|driver| if driver.graphs.remove(&executable).is_some() { SUCCESS } else { INVALID_VALUE })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> Status {
    cuGraphExecDestroy(graph)
}
