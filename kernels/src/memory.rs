//! Memory aligned for vectors.
#![expect(unsafe_code, reason = "bytes are viewed as numbers of any plain type")]

use bytemuck::Zeroable;

/// Bytes between which the executor starts values and rows: a cache line, and the widest vector.
pub const ALIGN_BYTES: usize = 64;

/// Rounds a size in bytes up to a multiple of [`ALIGN_BYTES`].
pub const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN_BYTES)
}

/// A block of memory that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't allocate memory: you tried to allocate {bytes} bytes")]
pub struct MemoryError {
    /// How large it was to be.
    pub bytes: usize,
}

/// Blocks below this size (16 MiB) are taken to be there: what asks for them first must stay fast.
const ALWAYS_THERE: usize = 1 << 24;

/// Checks that a block of memory of this size can be had now: asks for it, and gives it back untouched.
///
/// Memory that is there can still run out when it is written to, if the operating system promises more than it has.
///
/// # Errors
///
/// If it cannot be had.
pub fn check_room(bytes: usize) -> Result<(), MemoryError> {
    if bytes < ALWAYS_THERE {
        return Ok(());
    }
    let mut block = Vec::<Line>::new();
    let lines = bytes.div_ceil(ALIGN_BYTES);
    block.try_reserve_exact(lines).map_err(|_| MemoryError { bytes })?;
    // Else the compiler may leave out a block that nobody reads.
    core::hint::black_box(block.as_ptr());
    Ok(())
}

#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGN_BYTES]);

/// A zeroed block of bytes that starts on a cache line.
#[derive(Default)]
pub struct AlignedBytes(Vec<Line>);

impl AlignedBytes {
    /// Allocates at least `bytes` zeroed bytes.
    pub fn new(bytes: usize) -> Self {
        AlignedBytes(bytemuck::zeroed_vec(bytes.div_ceil(ALIGN_BYTES)))
    }

    /// Grows to at least `bytes` bytes; what was in it is lost. Does nothing if it is large enough.
    pub fn reserve(&mut self, bytes: usize) {
        if self.len() < bytes {
            *self = AlignedBytes::new(bytes);
        }
    }

    /// Gives the size in bytes.
    pub fn len(&self) -> usize {
        self.0.len() * ALIGN_BYTES
    }

    /// Says whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the address of the first byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// Gives the address of the first byte, to write to.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    /// Views the bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the vector owns `len` initialized bytes.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// Views the bytes, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the vector owns `len` initialized bytes, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }
}
