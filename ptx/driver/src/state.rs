//! What the driver knows: devices, modules, streams, graphs.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};

use neurarch_ptx::{Argument, FaultKind, Launch, LaunchError, Memory, Program};

use crate::pointers::{host_bytes, host_bytes_mut};
use crate::status::{
    ILLEGAL_ADDRESS, INVALID_HANDLE, INVALID_VALUE, LAUNCH_FAILED, MISALIGNED_ADDRESS, SUCCESS,
    Status, TIMEOUT,
};

/// How much memory a device says that it has.
pub(crate) const DEVICE_BYTES: usize = 4 << 30;
/// Each device has addresses of its own.
const BASE: u64 = 0x7000_0000_0000;
const BASE_STEP: u64 = 1 << 40;

/// Something for a device to do.
#[derive(Clone)]
pub(crate) enum Work {
    Launch {
        function: usize,
        launch: Launch,
        arguments: Vec<Argument>,
    },
    /// Host addresses are numbers: whoever submitted the work answers for them.
    ToDevice {
        to: u64,
        from: usize,
        bytes: usize,
    },
    ToHost {
        to: usize,
        from: u64,
        bytes: usize,
    },
    OnDevice {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        count: usize,
    },
}

pub(crate) struct Function {
    pub(crate) device: usize,
    pub(crate) program: Arc<Program>,
    pub(crate) name: String,
    /// The most dynamic shared memory.
    pub(crate) dynamic_shared: usize,
}

pub(crate) struct Driver {
    pub(crate) devices: Vec<Memory>,
    pub(crate) modules: HashMap<usize, (usize, Arc<Program>)>,
    /// A function's handle is its place, from 1.
    pub(crate) functions: Vec<Function>,
    /// What each stream that is being captured would do.
    pub(crate) captures: HashMap<usize, Vec<Work>>,
    pub(crate) graphs: HashMap<usize, Vec<Work>>,
    pub(crate) pinned: HashMap<usize, Layout>,
    last_handle: usize,
    /// What went wrong last.
    pub(crate) message: Option<CString>,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

thread_local! {
    /// The thread's context: its device's number and one; 0 is none.
    pub(crate) static CONTEXT: Cell<usize> = const { Cell::new(0) };
}

/// Does something with the driver's state.
pub(crate) fn with<T>(f: impl FnOnce(&mut Driver) -> T) -> T {
    let mut guard: MutexGuard<'_, Option<Driver>> =
        DRIVER.lock().unwrap_or_else(|poison| poison.into_inner());
    f(guard.get_or_insert_with(Driver::new))
}

/// Returns the device of the thread's context.
pub(crate) fn current_device() -> Option<usize> {
    CONTEXT.get().checked_sub(1)
}

impl Driver {
    fn new() -> Self {
        let devices =
            std::env::var("NEURARCH_DRIVER_DEVICES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        Driver {
            devices: (0..devices).map(|i: u64| Memory::with_base(BASE + i * BASE_STEP)).collect(),
            modules: HashMap::new(),
            functions: Vec::new(),
            captures: HashMap::new(),
            graphs: HashMap::new(),
            pinned: HashMap::new(),
            last_handle: 0,
            message: None,
        }
    }

    pub(crate) fn handle(&mut self) -> usize {
        self.last_handle += 1;
        self.last_handle
    }

    /// Returns the memory that an address belongs to.
    pub(crate) fn memory(&mut self, address: u64) -> Option<&mut Memory> {
        let device = address.checked_sub(BASE)? / BASE_STEP;
        self.devices.get_mut(device as usize)
    }

    /// Notes work if the stream is being captured; does it otherwise.
    pub(crate) fn submit(&mut self, stream: usize, work: Work) -> Status {
        match self.captures.get_mut(&stream) {
            Some(captured) => {
                captured.push(work);
                SUCCESS
            }
            None => self.perform(&work),
        }
    }

    /// Notes what went wrong, and reports it.
    pub(crate) fn fail(&mut self, message: &str, status: Status) -> Status {
        let reported = std::env::var_os("NEURARCH_DRIVER_REPORT").map(|path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{message}"))
        });
        if !matches!(reported, Some(Ok(()))) {
            // Nobody can be told if this fails as well.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
        self.message = CString::new(message).ok();
        status
    }

    pub(crate) fn perform(&mut self, work: &Work) -> Status {
        let done = |result: Option<()>| if result.is_some() { SUCCESS } else { INVALID_VALUE };
        match work {
            Work::Launch { function, launch, arguments } => {
                self.launch(*function, *launch, arguments)
            }
            Work::ToDevice { to, from, bytes } => {
                let from = host_bytes(*from, *bytes);
                done(self.memory(*to).and_then(|memory| memory.write(*to, from).ok()))
            }
            Work::ToHost { to, from, bytes } => {
                let to = host_bytes_mut(*to, *bytes);
                done(self.memory(*from).and_then(|memory| memory.read(*from, to).ok()))
            }
            Work::OnDevice { to, from, bytes } => {
                let read =
                    self.memory(*from).and_then(|memory| memory.read_vec::<u8>(*from, *bytes).ok());
                done(read.and_then(|read| self.memory(*to)?.write(*to, &read).ok()))
            }
            Work::Fill { to, pattern, count } => {
                let bytes = pattern.repeat(*count);
                done(self.memory(*to).and_then(|memory| memory.write(*to, &bytes).ok()))
            }
        }
    }

    fn launch(&mut self, function: usize, launch: Launch, arguments: &[Argument]) -> Status {
        let Some(f) = self.functions.get(function) else { return INVALID_HANDLE };
        if launch.shared_bytes > f.dynamic_shared || launch.grid.contains(&0) {
            return INVALID_VALUE;
        }
        let (program, name) = (f.program.clone(), f.name.clone());
        let Some(memory) = self.devices.get_mut(f.device) else { return INVALID_HANDLE };
        match program.launch(&name, launch, arguments, memory) {
            Ok(_) => SUCCESS,
            Err(error) => {
                let status = match &error {
                    LaunchError::Fault(fault) => match fault.kind {
                        FaultKind::OutOfBounds { .. } | FaultKind::Unwritten { .. } => {
                            ILLEGAL_ADDRESS
                        }
                        FaultKind::Misaligned { .. } => MISALIGNED_ADDRESS,
                        FaultKind::InstructionLimit => TIMEOUT,
                        _ => LAUNCH_FAILED,
                    },
                    _ => INVALID_VALUE,
                };
                self.fail(&error.to_string(), status)
            }
        }
    }
}
