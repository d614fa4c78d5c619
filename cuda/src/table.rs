//! [`Buffer`] and [`Column`]: bytes on a device, and rows of one size in the order of the models.
#![expect(
    unsafe_code,
    reason = "copies between addresses, and memory of the host that a device reads"
)]

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use cudarc::driver::{CudaSlice, DevicePtr, result};
use neurarch_kernels::memory::padded;

use crate::device::{Device, Staging};
use crate::error::CudaError;

/// Bytes of each part of the staging memory.
const STAGING_BYTES: usize = 4 << 20;

/// An allocation of a device, freed when nobody needs it.
#[derive(Debug)]
pub(crate) struct Memory {
    slice: CudaSlice<u8>,
    device: Arc<Device>,
}

impl Memory {
    /// Allocates zeros.
    fn new(device: &Arc<Device>, bytes: usize) -> Result<Memory, CudaError> {
        let slice = device.stream.alloc_zeros::<u8>(bytes.max(1)).map_err(|error| {
            if !CudaError::is_out_of_memory(error) {
                return CudaError::driver("cuMemAlloc")(error);
            }
            let (free, total) = device.mem_get_info().unwrap_or_default();
            CudaError::OutOfMemory { bytes, free, total }
        })?;
        device.count_allocated(slice.num_bytes());
        Ok(Memory { slice, device: device.clone() })
    }

    pub(crate) fn address(&self) -> u64 {
        self.slice.device_ptr(&self.device.stream).0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.count_freed(self.slice.num_bytes());
    }
}

/// Bytes on a device, which grow geometrically.
///
/// Work is done on the device's one stream, in the order in which it was asked for.
#[derive(Debug)]
pub struct Buffer {
    memory: Option<Arc<Memory>>,
    len: usize,
    device: Arc<Device>,
}

impl Buffer {
    /// Makes an empty one; it allocates nothing.
    pub fn new(device: &Arc<Device>) -> Buffer {
        Buffer { memory: None, len: 0, device: device.clone() }
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Returns the bytes that are allocated.
    pub fn capacity(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.slice.len())
    }

    /// Returns the address, 0 if nothing is allocated.
    pub(crate) fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.address())
    }

    /// Returns what keeps the address valid.
    pub(crate) fn memory(&self) -> Option<Arc<Memory>> {
        self.memory.clone()
    }

    /// Makes it longer, by zeros, or shorter. If it grows beyond what is allocated, at least twice as much is.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`], or [`CudaError::Driver`] if the driver fails. Nothing has changed then.
    pub fn resize(&mut self, len: usize) -> Result<(), CudaError> {
        if len > self.capacity() {
            let memory = Memory::new(&self.device, len.max(2 * self.capacity()))?;
            copy(&self.device, self.address(), memory.address(), self.len)?;
            self.memory = Some(Arc::new(memory));
        } else if let Some(memory) = &self.memory
            && len > self.len
        {
            let (address, bytes) = (memory.address() + self.len as u64, len - self.len);
            self.bind()?;
            // SAFETY: the bytes lie within the allocation.
            unsafe { result::memset_d8_async(address, 0, bytes, self.device.stream.cu_stream()) }
                .map_err(CudaError::driver("cuMemsetD8Async"))?;
        }
        self.len = len;
        Ok(())
    }

    /// Copies bytes of the host to the device, through staging memory. They may be reused at once.
    ///
    /// # Errors
    ///
    /// [`CudaError::Rows`] (of one byte) beyond the end, or [`CudaError::Driver`] if the driver fails.
    pub fn upload(&mut self, at: usize, bytes: &[u8]) -> Result<(), CudaError> {
        self.check(at, bytes.len())?;
        self.bind()?;
        let stream = &self.device.stream;
        let failed = CudaError::driver;
        let mut staging = self.device.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = &mut staged(&self.device, &mut staging)?.parts;
        for (number, chunk) in bytes.chunks(STAGING_BYTES).enumerate() {
            let which = number % parts.len();
            let (part, copied) = &mut parts[which];
            if let Some(event) = copied.take() {
                event.synchronize().map_err(failed("cuEventSynchronize"))?;
            }
            let part = part.as_mut_slice().map_err(failed("cuEventSynchronize"))?;
            let part = &mut part[..chunk.len()];
            part.copy_from_slice(chunk);
            let to = self.address() + (at + number * STAGING_BYTES) as u64;
            // SAFETY: the bytes lie within both allocations; the staging memory lives as long as the device, and is
            // not written before the event behind the copy.
            unsafe { result::memcpy_htod_async(to, part, stream.cu_stream()) }
                .map_err(failed("cuMemcpyHtoDAsync"))?;
            *copied = Some(stream.record_event(None).map_err(failed("cuEventRecord"))?);
        }
        Ok(())
    }

    /// Copies bytes of the device to the host, through staging memory, when all that was asked before is done.
    ///
    /// # Errors
    ///
    /// [`CudaError::Rows`] (of one byte) beyond the end, or [`CudaError::Driver`] if the driver or work before fails.
    pub fn download(&self, at: usize, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.check(at, bytes.len())?;
        self.bind()?;
        let stream = &self.device.stream;
        let failed = CudaError::driver;
        let mut staging = self.device.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let (part, copied) = &mut staged(&self.device, &mut staging)?.parts[0];
        for (number, chunk) in bytes.chunks_mut(STAGING_BYTES).enumerate() {
            let part = part.as_mut_slice().map_err(failed("cuEventSynchronize"))?;
            let part = &mut part[..chunk.len()];
            let from = self.address() + (at + number * STAGING_BYTES) as u64;
            // SAFETY: the bytes lie within both allocations, and the stream is waited for; copies into the staging
            // memory that are under way are before this one on the stream.
            unsafe { result::memcpy_dtoh_async(part, from, stream.cu_stream()) }
                .map_err(failed("cuMemcpyDtoHAsync"))?;
            stream.synchronize().map_err(failed("cuStreamSynchronize"))?;
            *copied = None;
            chunk.copy_from_slice(part);
        }
        Ok(())
    }

    /// Copies bytes within the device. The ranges may overlap.
    fn copy_within(&mut self, from: Range<usize>, to: usize, step: usize) -> Result<(), CudaError> {
        let (bytes, address) = (from.len(), self.address());
        let one = |from: usize, to: usize, bytes| {
            copy(&self.device, address + from as u64, address + to as u64, bytes)
        };
        if from.start.abs_diff(to) >= bytes {
            return one(from.start, to, bytes);
        }
        // One step after the other, so that none is overwritten before it was read.
        let steps = bytes / step;
        for number in 0..steps {
            let number = if to < from.start { number } else { steps - 1 - number };
            one(from.start + number * step, to + number * step, step)?;
        }
        Ok(())
    }

    fn bind(&self) -> Result<(), CudaError> {
        self.device.context.bind_to_thread().map_err(CudaError::driver("cuCtxSetCurrent"))
    }

    fn check(&self, at: usize, bytes: usize) -> Result<(), CudaError> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.len => Ok(()),
            end => {
                Err(CudaError::Rows { first: at, end: end.unwrap_or(usize::MAX), rows: self.len })
            }
        }
    }
}

/// Returns the staging memory, allocated when it is first needed.
fn staged<'a>(
    device: &Device,
    staging: &'a mut Option<Staging>,
) -> Result<&'a mut Staging, CudaError> {
    if staging.is_none() {
        let mut parts = Vec::new();
        for _ in 0..2 {
            // SAFETY: it is written before it is read, by the host or by the device. It is not write-combined.
            let part = unsafe { device.context.alloc_pinned_with_flags::<u8>(STAGING_BYTES, 0) };
            parts.push((part.map_err(CudaError::driver("cuMemHostAlloc"))?, None));
        }
        *staging = Some(Staging { parts });
    }
    Ok(staging.as_mut().expect("it was made above"))
}

/// Copies bytes that do not overlap from address to address of one device.
fn copy(device: &Device, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
    if bytes == 0 || from == to {
        return Ok(());
    }
    device.context.bind_to_thread().map_err(CudaError::driver("cuCtxSetCurrent"))?;
    // SAFETY: callers pass ranges of one device's allocations that are apart.
    unsafe { result::memcpy_dtod_async(to, from, bytes, device.stream.cu_stream()) }
        .map_err(CudaError::driver("cuMemcpyDtoDAsync"))
}

/// Rows on a device, one for each model, in the order of the models.
#[derive(Debug)]
pub struct Column {
    buffer: Buffer,
    row_bytes: usize,
    rows: usize,
}

impl Column {
    /// Makes a column without rows; a row's bytes are rounded up to a multiple of 64.
    pub fn new(device: &Arc<Device>, row_bytes: usize) -> Column {
        Column { buffer: Buffer::new(device), row_bytes: padded(row_bytes.max(1)), rows: 0 }
    }

    /// Returns how many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the bytes from row to row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Returns the bytes of all rows.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Adds rows of zeros at the end, or takes rows away there.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`], or [`CudaError::Driver`]. Nothing has changed then.
    pub fn resize(&mut self, rows: usize) -> Result<(), CudaError> {
        let bytes = rows.checked_mul(self.row_bytes).ok_or(CudaError::OutOfMemory {
            bytes: usize::MAX,
            free: 0,
            total: 0,
        })?;
        self.buffer.resize(bytes)?;
        self.rows = rows;
        Ok(())
    }

    /// Copies rows of the host to the device, from row `first` on.
    ///
    /// # Errors
    ///
    /// [`CudaError::Bytes`] if it is not whole rows, [`CudaError::Rows`] beyond the end, [`CudaError::Driver`].
    pub fn upload(&mut self, first: usize, rows: &[u8]) -> Result<(), CudaError> {
        let at = self.start_of(first, rows.len())?;
        self.buffer.upload(at, rows)
    }

    /// Copies rows to the host, from row `first` on.
    ///
    /// # Errors
    ///
    /// [`CudaError::Bytes`] if it is not whole rows, [`CudaError::Rows`] beyond the end, [`CudaError::Driver`].
    pub fn download(&self, first: usize, rows: &mut [u8]) -> Result<(), CudaError> {
        let at = self.start_of(first, rows.len())?;
        self.buffer.download(at, rows)
    }

    /// Overwrites rows by other rows on the device; both ranges may overlap.
    ///
    /// # Errors
    ///
    /// [`CudaError::Rows`] beyond the end, [`CudaError::Driver`].
    pub fn copy_rows(&mut self, from: Range<usize>, to: usize) -> Result<(), CudaError> {
        let size = self.row_bytes;
        let bytes = from.len().saturating_mul(size);
        let (start, to) = (self.start_of(from.start, bytes)?, self.start_of(to, bytes)?);
        self.buffer.copy_within(start..start + bytes, to, size)
    }

    /// Takes a row away; the last one takes its place.
    ///
    /// # Errors
    ///
    /// [`CudaError::Rows`] beyond the end, [`CudaError::Driver`].
    pub fn swap_remove(&mut self, row: usize) -> Result<(), CudaError> {
        self.start_of(row, self.row_bytes)?;
        let last = self.rows - 1;
        self.copy_rows(last..last + 1, row)?;
        self.resize(last)
    }

    /// Returns where a row starts, if there are as many bytes of rows from it on.
    fn start_of(&self, first: usize, bytes: usize) -> Result<usize, CudaError> {
        if !bytes.is_multiple_of(self.row_bytes) {
            let expected = bytes.next_multiple_of(self.row_bytes);
            return Err(CudaError::Bytes { expected, found: bytes });
        }
        let end = first.saturating_add(bytes / self.row_bytes);
        if end > self.rows {
            return Err(CudaError::Rows { first, end, rows: self.rows });
        }
        Ok(first * self.row_bytes)
    }
}
