//! Fusion: two nodes become one where the first one's op says how. It joins loops and never changes a
//! formula, so the bits are the same.
//!
//! The pass knows no op by name: it asks [`Op::fuse_activation`] and
//! [`Op::fuse_gradient`].

use std::sync::Arc;

use super::clean::{drop_dead_code, rebuild};
use crate::op::Op;
use crate::program::{Node, Origin, Program, ValueId};

/// Fuses wherever it can.
pub fn fuse(program: Program) -> Program {
    fuse_gradients(fuse_activations(program))
}

/// Fuses an activation into the op before it (`linear`, then `relu`), if nobody else reads what is
/// between them.
pub fn fuse_activations(program: Program) -> Program {
    let readers = count_readers(&program);
    let mut nodes: Vec<Option<Node>> = program.nodes.iter().cloned().map(Some).collect();
    for index in 0..nodes.len() {
        let Some(next) = nodes[index].clone() else {
            continue;
        };
        let &[between, ..] = next.inputs.as_slice() else {
            continue;
        };
        let Origin::Node { node: first, .. } = program.values[between].origin else {
            continue;
        };
        let Some(before) = nodes[first].as_ref() else {
            continue;
        };
        if readers[between] != 1
            || before.outputs.as_slice() != [between]
            || next.outputs.len() != 1
        {
            continue;
        }
        if let Some(op) = before.op.fuse_activation(&*next.op) {
            let inputs = before.inputs.iter().chain(&next.inputs[1..]).copied().collect();
            let fused = Node { op, inputs, ..next };
            nodes[first] = None;
            nodes[index] = Some(fused);
        }
    }
    let nodes = nodes.into_iter().flatten().collect();
    drop_dead_code(rebuild(&program, nodes, &vec![true; program.values.len()]))
}

/// Fuses a loss with its gradient, so that its exponentials are computed once.
pub fn fuse_gradients(program: Program) -> Program {
    let mut nodes: Vec<Option<Node>> = program.nodes.iter().cloned().map(Some).collect();
    let made_at = |value: ValueId| match program.values[value].origin {
        Origin::Node { node, .. } => Some(node),
        _ => None,
    };
    for first in 0..nodes.len() {
        let found = (first + 1..nodes.len()).find_map(|later| {
            let (first_node, gradient) = (nodes[first].as_ref()?, nodes[later].as_ref()?);
            let shares_inputs = gradient.inputs.starts_with(&first_node.inputs);
            let there = gradient.inputs.iter().all(|&id| made_at(id).is_none_or(|at| at < first));
            if !shares_inputs || !there {
                return None;
            }
            let op: Arc<dyn Op> = first_node.op.fuse_gradient(&*gradient.op)?;
            Some((later, op))
        });
        if let Some((later, op)) = found
            && let (Some(before), Some(gradient)) = (nodes[first].take(), nodes[later].take())
        {
            let outputs = before.outputs.iter().chain(&gradient.outputs).copied().collect();
            nodes[first] = Some(Node { op, inputs: gradient.inputs, outputs, ..before });
        }
    }
    let nodes = nodes.into_iter().flatten().collect();
    drop_dead_code(rebuild(&program, nodes, &vec![true; program.values.len()]))
}

/// Counts for each value how many nodes, outputs and stores read it.
pub(super) fn count_readers(program: &Program) -> Vec<usize> {
    let mut readers = vec![0; program.values.len()];
    let nodes = program.nodes.iter().flat_map(|node| &node.inputs);
    let ends = program.outputs.iter().chain(program.stores.iter().map(|(_, value)| value));
    nodes.chain(ends).for_each(|&id| readers[id] += 1);
    readers
}
