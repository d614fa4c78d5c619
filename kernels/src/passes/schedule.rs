//! Puts update rules early: a parameter is updated as soon as its gradient is there and nobody reads
//! the old numbers any more, so that a gradient lives for as short a time as possible.

use super::clean::rebuild;
use crate::program::{Program, ValueId};

/// Moves nodes that work in place to the earliest point at which they may run.
pub(super) fn update_early(program: Program) -> Program {
    let mut order: Vec<usize> = (0..program.nodes.len()).collect();
    for index in 0..program.nodes.len() {
        let node = &program.nodes[index];
        if node.op.in_place().is_empty() {
            continue;
        }
        let pairs = node.op.in_place().iter();
        let overwritten: Vec<ValueId> =
            pairs.filter_map(|&(input, _)| node.inputs.get(input).copied()).collect();
        let earliest = (0..order.len())
            .filter(|&at| {
                let other = &program.nodes[order[at]];
                let makes_input = other.outputs.iter().any(|id| node.inputs.contains(id));
                let reads_old = other.inputs.iter().any(|id| overwritten.contains(id));
                order[at] != index && (makes_input || reads_old)
            })
            .map(|at| at + 1)
            .max()
            .unwrap_or(0);
        let now = order.iter().position(|&other| other == index).expect("an order has every node");
        if earliest < now {
            order.remove(now);
            order.insert(earliest, index);
        }
    }
    let nodes = order.iter().map(|&index| program.nodes[index].clone()).collect();
    rebuild(&program, nodes, &vec![true; program.values.len()])
}
