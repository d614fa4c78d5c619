//! Fusion: two nodes become one where the first one's op says how. It joins loops and never changes a
//! formula, so the bits are the same.
//!
//! The pass knows no op by name: it asks [`Op::fuse_activation`] and
//! [`Op::fuse_gradient`].

use std::any::Any;

use super::clean::{drop_dead_code, rebuild};
use crate::ir::op::{Op, WithGradient};
use crate::ir::program::{Node, Origin, Program, ValueId};

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
    let found: Vec<_> = program.nodes.iter().map(|node| node.op.fuse_gradient()).collect();
    if found.iter().all(Option::is_none) {
        return program;
    }
    let readers = readers(&program);
    let mut nodes: Vec<Option<Node>> = program.nodes.iter().cloned().map(Some).collect();
    for (first, fusion) in found.into_iter().enumerate() {
        let (Some(fusion), Some(before)) = (fusion, nodes[first].clone()) else { continue };
        let is_gradient = |later: &usize| {
            let node = nodes[*later].as_ref();
            *later > first
                && node.is_some_and(|node| fusion.takes(&program, (first, &before), node))
        };
        // Whoever reads all of its inputs reads the one that is read least.
        let rarest = before.inputs.iter().min_by_key(|&&id| readers[id].len());
        let later = rarest.and_then(|&id| readers[id].iter().copied().find(is_gradient));
        if let Some(gradient) = later.and_then(|later| nodes[later].take()) {
            let outputs = before.outputs.iter().chain(&gradient.outputs).copied().collect();
            let inputs = gradient.inputs;
            nodes[first] = Some(Node { op: fusion.both, inputs, outputs, ..before });
        }
    }
    let nodes = nodes.into_iter().flatten().collect();
    drop_dead_code(rebuild(&program, nodes, &vec![true; program.values.len()]))
}

impl WithGradient {
    /// Says whether `later` is the gradient of node `first`, and could be computed there.
    fn takes(&self, program: &Program, (first, node): (usize, &Node), later: &Node) -> bool {
        let is_there = |&id: &ValueId| match program.values[id].origin {
            Origin::Node { node, .. } => node < first,
            _ => true,
        };
        later.inputs.starts_with(&node.inputs)
            && later.inputs.iter().all(is_there)
            && is_same(&*later.op, &*self.gradient)
    }
}

/// Says whether two ops compute the same.
fn is_same(a: &dyn Op, b: &dyn Op) -> bool {
    let type_of = |op: &dyn Op| (op as &dyn Any).type_id();
    type_of(a) == type_of(b) && a.name() == b.name() && a.attributes() == b.attributes()
}

/// For each value, the nodes that read it, in order.
pub(super) fn readers(program: &Program) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); program.values.len()];
    for (index, node) in program.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&id| readers[id].push(index));
    }
    readers
}

/// Counts for each value how many nodes, outputs and stores read it.
pub(super) fn count_readers(program: &Program) -> Vec<usize> {
    let mut readers = vec![0; program.values.len()];
    let nodes = program.nodes.iter().flat_map(|node| &node.inputs);
    let ends = program.outputs.iter().chain(program.stores.iter().map(|(_, value)| value));
    nodes.chain(ends).for_each(|&id| readers[id] += 1);
    readers
}
