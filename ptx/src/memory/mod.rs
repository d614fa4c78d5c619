//! Device memory: allocations at made-up addresses.

mod region;
mod shadow;

use std::sync::Arc;

use bytemuck::Pod;

pub(crate) use region::Region;
pub(crate) use shadow::{Conflict, Stamp, Visit};

use crate::error::MemoryError;
use crate::program::Program;

/// The first address that is given out, unless the memory has another base.
const BASE: u64 = 0x7f00_0000_0000;

#[derive(Clone, Debug)]
struct Allocation {
    base: u64,
    region: Region,
    is_freed: bool,
}

/// The memory of a device.
///
/// Reads of bytes that were never written, by the host or by a kernel, are faults of the kernel that reads.
#[derive(Clone, Debug)]
pub struct Memory {
    allocations: Vec<Allocation>,
    /// The allocation that was looked up last.
    last: usize,
    next: u64,
    used: usize,
    /// Where the variables of programs lie that ran here.
    placed: Vec<(Arc<()>, Arc<[u64]>)>,
    /// The number of the next block that runs here.
    pub(crate) next_block: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

impl Memory {
    /// Creates memory in which nothing is allocated.
    pub fn new() -> Self {
        Memory::with_base(BASE)
    }

    /// Creates memory whose addresses begin at `base`, a multiple of 512: several devices have addresses apart.
    pub fn with_base(base: u64) -> Self {
        let next = base.next_multiple_of(512);
        Memory {
            allocations: Vec::new(),
            last: 0,
            next,
            used: 0,
            placed: Vec::new(),
            next_block: 1,
        }
    }

    /// Allocates `bytes` that count as unwritten, and returns their address, a multiple of 512.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        let base = self.next;
        // A gap behind each allocation catches what runs over its end.
        self.next = (base + bytes as u64 + 4096).next_multiple_of(512);
        self.used += bytes;
        self.allocations.push(Allocation { base, region: Region::new(bytes), is_freed: false });
        base
    }

    /// Allocates room for numbers, writes them, and returns their address.
    pub fn allocate_from<T: Pod>(&mut self, numbers: &[T]) -> u64 {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let address = self.allocate(bytes.len());
        if let Some((region, at)) = self.find(address, bytes.len()) {
            region.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            region.mark_written(at, bytes.len());
        }
        address
    }

    /// Frees an allocation; later accesses to it are out of bounds.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NotAllocated`] if none begins at `address`, or it was freed before.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let found = self.allocations.binary_search_by_key(&address, |a| a.base).ok();
        match found.map(|at| &mut self.allocations[at]).filter(|a| !a.is_freed) {
            Some(allocation) => {
                self.used -= allocation.region.bytes.len();
                allocation.region = Region::default();
                allocation.is_freed = true;
                Ok(())
            }
            None => Err(MemoryError::NotAllocated(address)),
        }
    }

    /// Returns how many bytes are allocated.
    pub fn allocated_bytes(&self) -> usize {
        self.used
    }

    /// Writes bytes from the host.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfBounds`] if they are not all within one allocation. Nothing is written then.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (region, at) = self.found(address, bytes.len())?;
        region.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        region.mark_written(at, bytes.len());
        Ok(())
    }

    /// Reads bytes to the host, written or not.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfBounds`] if they are not all within one allocation.
    pub fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let (region, at) = self.found(address, bytes.len())?;
        bytes.copy_from_slice(&region.bytes[at..at + bytes.len()]);
        Ok(())
    }

    /// Reads `len` numbers to the host, written or not.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfBounds`] if they are not all within one allocation.
    pub fn read_vec<T: Pod>(&mut self, address: u64, len: usize) -> Result<Vec<T>, MemoryError> {
        let bytes = len.saturating_mul(size_of::<T>());
        // Before room is made for them.
        self.found(address, bytes)?;
        let mut numbers = vec![T::zeroed(); len];
        self.read(address, bytemuck::cast_slice_mut(&mut numbers))?;
        Ok(numbers)
    }

    /// Says whether all bytes were written.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfBounds`] if they are not all within one allocation.
    pub fn is_written(&mut self, address: u64, bytes: usize) -> Result<bool, MemoryError> {
        let (region, at) = self.found(address, bytes)?;
        Ok(region.is_written(at, bytes))
    }

    /// Returns the address and size of a program's variable; the program's variables are placed here at first.
    pub fn variable(&mut self, program: &Program, name: &str) -> Option<(u64, usize)> {
        let at = program.variables.iter().position(|v| v.name == name)?;
        Some((self.place(program)[at], program.variables[at].bytes.len()))
    }

    /// Returns where a program's variables lie.
    pub(crate) fn place(&mut self, program: &Program) -> Arc<[u64]> {
        if let Some((_, placed)) =
            self.placed.iter().find(|(id, _)| Arc::ptr_eq(id, &program.identity))
        {
            return placed.clone();
        }
        let addresses = program.variables.iter().map(|v| self.allocate_from(&v.bytes)).collect();
        self.placed.push((program.identity.clone(), Arc::clone(&addresses)));
        addresses
    }

    fn found(&mut self, address: u64, bytes: usize) -> Result<(&mut Region, usize), MemoryError> {
        self.find(address, bytes).ok_or(MemoryError::OutOfBounds { address, bytes })
    }

    /// Returns the allocation that holds all the bytes, and where they begin in it.
    pub(crate) fn find(&mut self, address: u64, bytes: usize) -> Option<(&mut Region, usize)> {
        let inside =
            |a: &Allocation| address >= a.base && a.region.is_inside(address - a.base, bytes);
        if !self.allocations.get(self.last).is_some_and(inside) {
            let at = self.allocations.partition_point(|a| a.base <= address).checked_sub(1)?;
            if !inside(&self.allocations[at]) {
                return None;
            }
            self.last = at;
        }
        let allocation = &mut self.allocations[self.last];
        Some((&mut allocation.region, (address - allocation.base) as usize))
    }
}
