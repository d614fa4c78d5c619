//! What the blocks of a launch share.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Counts, Options};
use crate::error::Thread;
use crate::memory::Memory;
use crate::program::{Area, Function, Program};

/// Where the parts of a block's shared memory begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedLayout {
    kernel: usize,
    dynamic: usize,
    pub(super) bytes: usize,
}

impl SharedLayout {
    pub(super) fn new(program: &Program, f: &Function, dynamic_bytes: usize) -> Self {
        let kernel = program.common_shared.next_multiple_of(16);
        let dynamic = (kernel + f.shared_bytes).next_multiple_of(16);
        SharedLayout { kernel, dynamic, bytes: dynamic.saturating_add(dynamic_bytes) }
    }

    pub(super) fn start(&self, area: Area) -> u64 {
        match area {
            Area::Common => 0,
            Area::Kernel => self.kernel as u64,
            Area::Dynamic => self.dynamic as u64,
        }
    }
}

/// The sizes of a launch: names blocks and threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// The number of the launch's first block.
    pub(super) first_block: u64,
}

impl Shape {
    /// Returns a block's place in the grid from its number.
    pub(super) fn place(&self, block: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(|n| u64::from(n.max(1)));
        let at = block.saturating_sub(self.first_block);
        [(at % x) as u32, (at / x % y) as u32, (at / x / y) as u32]
    }

    /// Returns a thread from its block's number and its own number in it.
    pub(super) fn thread(&self, block: u64, thread: u32) -> Thread {
        let [x, y, _] = self.block.map(|n| n.max(1));
        Thread { block: self.place(block), thread: [thread % x, thread / x % y, thread / x / y] }
    }
}

/// What the blocks of a launch share.
pub(super) struct Grid<'p, 'm> {
    pub(super) program: &'p Program,
    pub(super) kernel: &'p Function,
    pub(super) shape: Shape,
    /// Bytes of dynamic shared memory.
    pub(super) dynamic_shared: usize,
    pub(super) parameters: &'p [u8],
    pub(super) layout: SharedLayout,
    pub(super) memory: &'m mut Memory,
    /// The addresses of the program's variables.
    pub(super) variables: Arc<[u64]>,
    pub(super) options: Options,
    pub(super) counts: Counts,
    /// By the program's numbers of opcodes.
    pub(super) opcodes: Vec<u64>,
    /// By address: the blocks that published what they wrote by a fence and an atomic.
    pub(super) published: HashMap<u64, Vec<u64>>,
}
