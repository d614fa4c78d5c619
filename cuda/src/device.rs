//! [`Device`]: a GPU and its stream, and what `torch.cuda` says of one.
#![expect(
    unsafe_code,
    reason = "a library is probed before cudarc opens it; events are not tracked"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, PinnedHostSlice};
use neurarch_device::limits::DeviceLimits;

use crate::error::CudaError;

/// The least version of the driver: CUDA 12.0.
const NEEDED_DRIVER: i32 = 12_000;

/// The driver's functions that this crate calls through cudarc, which panics where one is missing.
const SYMBOLS: &[&str] = &[
    "cuInit",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemAllocAsync",
    "cuMemFree_v2",
    "cuMemFreeAsync",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventDestroy_v2",
    "cuGraphInstantiateWithFlags",
    "cuGraphUpload",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
];

/// Checks that there is a driver, that it is new enough, and that it has all functions.
fn probe() -> Result<(), CudaError> {
    // SAFETY: opening the driver's library runs its initializers, as any use of CUDA does.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    check_symbols(SYMBOLS)?;
    let mut found = 0;
    // SAFETY: the function is there, and writes one number.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut found) };
    status.result().map_err(CudaError::driver("cuDriverGetVersion"))?;
    if found < NEEDED_DRIVER {
        return Err(CudaError::OldDriver { found, needed: NEEDED_DRIVER });
    }
    Ok(())
}

/// Checks that the driver, which is there, has these functions.
fn check_symbols(symbols: &[&str]) -> Result<(), CudaError> {
    // SAFETY: opening the driver's library runs its initializers; it is there, so this does not panic.
    let library = unsafe { sys::culib() };
    for &symbol in symbols {
        // SAFETY: the address is asked for and not used.
        if unsafe { library.get::<*const ()>(symbol) }.is_err() {
            return Err(CudaError::MissingSymbol { library: "libcuda", symbol: symbol.to_owned() });
        }
    }
    Ok(())
}

/// Says whether programs can run on a device of this machine.
///
/// Source: `torch.cuda.is_available`.
pub fn is_available() -> bool {
    device_count().is_ok_and(|count| count > 0)
}

/// Returns how many devices there are.
///
/// # Errors
///
/// [`CudaError`] if there is no driver that can be used.
///
/// Source: `torch.cuda.device_count`, which gives 0 where this is an error.
pub fn device_count() -> Result<usize, CudaError> {
    probe()?;
    match CudaContext::device_count() {
        Ok(count) => Ok(count.max(0) as usize),
        Err(error) if error.0 == CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        Err(error) => Err(CudaError::driver("cuDeviceGetCount")(error)),
    }
}

/// Returns a device's name.
///
/// # Errors
///
/// [`CudaError`] if it cannot be opened.
///
/// Source: `torch.cuda.get_device_name`.
pub fn get_device_name(device: usize) -> Result<String, CudaError> {
    Ok(get_device_properties(device)?.name)
}

/// Returns what a device has.
///
/// # Errors
///
/// [`CudaError`] if it cannot be opened.
///
/// Source: `torch.cuda.get_device_properties`.
pub fn get_device_properties(device: usize) -> Result<DeviceProperties, CudaError> {
    Device::open(device)?.properties()
}

/// What a device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProperties {
    /// Its name.
    pub name: String,
    /// Major number of its compute capability.
    pub major: i32,
    /// Minor number of its compute capability.
    pub minor: i32,
    /// Bytes of its memory.
    pub total_memory: usize,
    /// How many multiprocessors it has.
    pub multi_processor_count: usize,
    /// What programs are planned for.
    pub limits: DeviceLimits,
}

/// Memory of the host that a device reads and writes by itself, in two parts so that one is filled while the other one is copied.
pub(crate) struct Staging {
    pub(crate) parts: Vec<(PinnedHostSlice<u8>, Option<CudaEvent>)>,
}

/// A GPU: its context, the stream on which everything is done in order, and what was allocated.
pub struct Device {
    index: usize,
    pub(crate) context: Arc<CudaContext>,
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) staging: Mutex<Option<Staging>>,
    allocated: AtomicUsize,
    peak: AtomicUsize,
}

/// Devices that were opened: each once, so that its counters are those of the process.
static OPENED: Mutex<BTreeMap<usize, Arc<Device>>> = Mutex::new(BTreeMap::new());

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.index)
    }
}

impl Device {
    /// Opens a device, or returns it if it was opened before.
    ///
    /// # Errors
    ///
    /// [`CudaError`] if there is no driver that can be used, or no such device.
    pub fn open(index: usize) -> Result<Arc<Device>, CudaError> {
        let count = device_count()?;
        if index >= count {
            return Err(CudaError::NoDevice { device: index, count });
        }
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.get(&index) {
            return Ok(device.clone());
        }
        let context =
            CudaContext::new(index).map_err(CudaError::driver("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: a device's memory is used on its one stream alone, in order.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(CudaError::driver("cuStreamCreate"))?;
        let zero = || AtomicUsize::new(0);
        let staging = Mutex::new(None);
        let device = Device { index, context, stream, staging, allocated: zero(), peak: zero() };
        Ok(opened.entry(index).or_insert(Arc::new(device)).clone())
    }

    /// Returns its number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns what it has.
    ///
    /// # Errors
    ///
    /// [`CudaError::OldDevice`] if kernels cannot be planned for it, [`CudaError::Driver`] if the driver fails.
    pub fn properties(&self) -> Result<DeviceProperties, CudaError> {
        let failed = CudaError::driver;
        let name = self.context.name().map_err(failed("cuDeviceGetName"))?;
        let attribute =
            |which| self.context.attribute(which).map_err(failed("cuDeviceGetAttribute"));
        let (major, minor) =
            self.context.compute_capability().map_err(failed("cuDeviceGetAttribute"))?;
        let shared =
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let processors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // Kernels are tested for 7.5 and newer.
        if (major, minor) < (7, 5) {
            return Err(CudaError::OldDevice { device: self.index, major, minor });
        }
        let limits = DeviceLimits {
            architecture: (10 * major + minor) as u32,
            opt_in_shared_bytes: shared.max(0) as usize,
            threads: 256,
        };
        let total_memory = self.context.total_mem().map_err(failed("cuDeviceTotalMem"))?;
        let multi_processor_count = processors.max(0) as usize;
        Ok(DeviceProperties { name, major, minor, total_memory, multi_processor_count, limits })
    }

    /// Waits until all that was asked of it is done.
    ///
    /// # Errors
    ///
    /// [`CudaError::Driver`] if something that was asked before has failed.
    ///
    /// Source: `torch.cuda.synchronize`.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(CudaError::driver("cuStreamSynchronize"))
    }

    /// Returns the bytes that tables have on it.
    ///
    /// Source: `torch.cuda.memory_allocated`.
    pub fn memory_allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Returns the most bytes that tables had on it since the last reset.
    ///
    /// Source: `torch.cuda.max_memory_allocated`.
    pub fn max_memory_allocated(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Makes what is allocated now the most.
    ///
    /// Source: `torch.cuda.reset_peak_memory_stats`.
    pub fn reset_peak_memory_stats(&self) {
        self.peak.store(self.memory_allocated(), Ordering::Relaxed);
    }

    /// Returns the bytes that are free, and all bytes.
    ///
    /// # Errors
    ///
    /// [`CudaError::Driver`] if the driver fails.
    ///
    /// Source: `torch.cuda.mem_get_info`.
    pub fn mem_get_info(&self) -> Result<(usize, usize), CudaError> {
        self.context.mem_get_info().map_err(CudaError::driver("cuMemGetInfo"))
    }

    /// Notes the moment when all work that was asked for so far is done.
    ///
    /// # Errors
    ///
    /// [`CudaError::Driver`] if the driver fails.
    ///
    /// Source: `torch.cuda.Event.record`, with timing.
    pub fn record_event(&self) -> Result<Event, CudaError> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        self.stream.record_event(flags).map(Event).map_err(CudaError::driver("cuEventRecord"))
    }

    pub(crate) fn count_allocated(&self, bytes: usize) {
        let now = self.allocated.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn count_freed(&self, bytes: usize) {
        self.allocated.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A moment in the work of a device.
#[derive(Debug)]
pub struct Event(CudaEvent);

impl Event {
    /// Waits for it, and returns the milliseconds since another one of the same device.
    ///
    /// # Errors
    ///
    /// [`CudaError::MissingSymbol`] if the driver is older than CUDA 12.8, [`CudaError::Driver`] if it fails.
    ///
    /// Source: `torch.cuda.Event.elapsed_time`, of the earlier event.
    pub fn milliseconds_since(&self, earlier: &Event) -> Result<f32, CudaError> {
        check_symbols(&["cuEventElapsedTime_v2"])?;
        earlier.0.elapsed_ms(&self.0).map_err(CudaError::driver("cuEventElapsedTime"))
    }
}
