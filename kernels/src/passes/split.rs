//! Splits a program with gradients in two: a forward part that writes a tape, and a backward part that
//! reads it. Nothing is computed twice.

use super::clean::{drop_dead_code, rebuild};
use crate::program::{Origin, Program, Role, ValueId};
use crate::shape::Type;

/// The two halves of a program.
#[derive(Clone, Debug)]
pub struct Split {
    /// Takes the first inputs of the whole; gives its outputs, then the saved values.
    pub forward: Program,
    /// Takes the other inputs of the whole, then the saved values; stores gradients.
    pub backward: Program,
    /// Types of the saved values: a row of the tape.
    pub saved: Vec<Type>,
}

/// Splits `program`: whatever its outputs and its stores to anything but gradients need is the forward
/// part, the stores to gradients are the backward part's. The first `n_forward_inputs` inputs are the
/// forward part's, the others (gradients of outputs) the backward part's.
pub fn split(program: Program, n_forward_inputs: usize) -> Split {
    let program = drop_dead_code(program);
    let is_gradient = |slot: usize| program.slots[slot].role == Role::Gradient;
    let (backward_stores, forward_stores): (Vec<_>, Vec<_>) =
        program.stores.iter().copied().partition(|&(slot, _)| is_gradient(slot));

    let mut in_forward = vec![false; program.values.len()];
    program.outputs.iter().for_each(|&id| in_forward[id] = true);
    forward_stores.iter().for_each(|&(_, id)| in_forward[id] = true);
    let mut forward_nodes = vec![false; program.nodes.len()];
    for (index, node) in program.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|&id| in_forward[id]) {
            forward_nodes[index] = true;
            node.inputs.iter().chain(&node.outputs).for_each(|&id| in_forward[id] = true);
        }
    }

    let backward_readers = program.nodes.iter().zip(&forward_nodes).filter(|(_, f)| !**f);
    let mut saved: Vec<ValueId> = backward_readers
        .flat_map(|(node, _)| node.inputs.iter().copied())
        .chain(backward_stores.iter().map(|&(_, id)| id))
        .filter(|&id| match program.values[id].origin {
            Origin::Node { node, .. } => forward_nodes[node],
            Origin::Input(input) => input < n_forward_inputs,
            _ => false,
        })
        .collect();
    saved.sort_unstable();
    saved.dedup();
    let saved_types: Vec<_> = saved.iter().map(|&id| program.ty(id).clone()).collect();

    let mut forward = program.clone();
    forward.outputs.extend(&saved);
    forward.stores = forward_stores;
    let mut forward = drop_dead_code(forward);
    forward.inputs.truncate(n_forward_inputs);

    let mut backward = program.clone();
    backward.outputs.clear();
    backward.stores = backward_stores;
    backward.inputs.drain(..n_forward_inputs.min(backward.inputs.len()));
    let first_saved = backward.inputs.len();
    backward.inputs.extend(saved_types.iter().cloned());
    for value in &mut backward.values {
        if let Origin::Input(input) = &mut value.origin {
            *input = input.saturating_sub(n_forward_inputs);
        }
    }
    for (index, &id) in saved.iter().enumerate() {
        backward.values[id].origin = Origin::Input(first_saved + index);
    }
    let nodes = program.nodes.iter().zip(&forward_nodes).filter(|(_, f)| !**f);
    let nodes: Vec<_> = nodes.map(|(node, _)| node.clone()).collect();
    let live: Vec<_> = (0..program.values.len())
        .map(|id| {
            let unused_input = matches!(program.values[id].origin, Origin::Input(input) if input < n_forward_inputs);
            !unused_input || saved.contains(&id)
        })
        .collect();
    let backward = drop_dead_code(rebuild(&backward, nodes, &live));
    Split { forward, backward, saved: saved_types }
}
