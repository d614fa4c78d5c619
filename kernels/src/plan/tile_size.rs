//! How many models go through a plan together.

use crate::cpu::cache::CacheSizes;
use crate::ir::program::{Origin, Program};
use crate::memory::padded;

/// As many models as fit half of the first cache with everything that more than one step touches; beyond
/// that, a few, so that a kernel call is shared, while they fit half of the second.
pub(super) fn tile_size(program: &Program, arena_bytes: usize) -> usize {
    let slots = program.slots.iter().map(|slot| padded(slot.ty.size_bytes()));
    let sum = |all: usize, bytes: usize| all.saturating_add(bytes);
    let inputs = program.inputs.iter().map(|ty| ty.size_bytes()).fold(0, sum);
    let pass_by = read_once(program);
    let kept = slots
        .clone()
        .zip(pass_by)
        .filter(|(_, passes_by)| !passes_by)
        .map(|(bytes, _)| bytes)
        .fold(0, sum);
    let caches = CacheSizes::current();
    let with = |rows: usize| sum(arena_bytes, sum(inputs, rows)).max(1);
    let in_l1 = caches.l1_bytes / 2 / with(kept);
    let in_l2 = caches.l2_bytes / 2 / with(slots.fold(0, sum));
    in_l1.max(in_l2.min(MIN_TILE)).clamp(1, MAX_TILE)
}

/// Says for each slot whether its numbers pass by: one node reads them, and they stay as they are.
fn read_once(program: &Program) -> Vec<bool> {
    let mut reads = vec![0; program.slots.len()];
    for &id in program.nodes.iter().flat_map(|node| &node.inputs) {
        if let Origin::Slot(slot) = program.values[id].origin {
            reads[slot] += 1;
        }
    }
    let mut once: Vec<_> = reads.into_iter().map(|reads| reads <= 1).collect();
    program.stores.iter().for_each(|&(slot, _)| once[slot] = false);
    once
}

/// Models that share a kernel call even if they do not fit the first cache together: of 4, 6, 8, 12 and 16, a
/// training step of 10,000 tiny models was fastest with 12 (6 % faster than with 4).
const MIN_TILE: usize = 12;

/// Beyond this many models, a kernel call costs nothing any more.
const MAX_TILE: usize = 128;
