//! A launch: blocks, one after the other.

use std::collections::HashMap;

use super::block::Block;
use super::grid::{Grid, Shape, SharedLayout};
use super::{Counts, Launch, Options};
use crate::error::Fault;
use crate::memory::{Memory, Region};
use crate::program::{Function, Program};

/// Runs all blocks.
pub(super) fn run(
    program: &Program,
    kernel: &Function,
    launch: Launch,
    parameters: &[u8],
    layout: SharedLayout,
    memory: &mut Memory,
    options: Options,
) -> Result<Counts, Box<Fault>> {
    let variables = memory.place(program);
    let blocks = launch.grid.iter().fold(1_u64, |product, &n| product.saturating_mul(u64::from(n)));
    let first_block = memory.next_block;
    memory.next_block = first_block.saturating_add(blocks);
    let mut grid = Grid {
        program,
        kernel,
        shape: Shape { grid: launch.grid, block: launch.block, first_block },
        dynamic_shared: launch.shared_bytes,
        parameters,
        layout,
        memory,
        variables,
        options,
        counts: Counts::default(),
        opcodes: vec![0; program.opcodes.len()],
        published: HashMap::new(),
    };
    let mut shared = Region::new(layout.bytes);
    for block in 0..blocks {
        shared.reset(layout.bytes);
        Block::new(&mut grid, &mut shared, first_block + block).run()?;
    }
    let Grid { mut counts, opcodes, .. } = grid;
    let ran = program.opcodes.iter().cloned().zip(opcodes).filter(|(_, count)| *count > 0);
    counts.opcodes = ran.collect();
    Ok(counts)
}
