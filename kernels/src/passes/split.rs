//! Splits a program with gradients in two: a forward part that writes a tape, and a backward part that
//! reads it. Nothing is computed twice.

use std::collections::HashSet;

use super::clean::{drop_dead_code, rebuild};
use crate::ir::program::{Origin, Program, Role, SlotId, ValueId};
use crate::ir::shape::Type;

/// The two halves of a program.
#[derive(Clone, Debug)]
pub struct Split {
    /// Takes the first inputs of the whole; gives its outputs, then the saved values.
    pub forward: Program,
    /// Takes the other inputs of the whole, then the saved values; stores gradients, gives the whole's last outputs
    /// where those are its.
    pub backward: Program,
    /// Types of the saved values: a row of the tape.
    pub saved: Vec<Type>,
}

/// Splits a program whose stores to gradients are all of the backward pass from all of its outputs: see [`split_at`].
pub fn split(program: Program, n_forward_inputs: usize) -> Split {
    split_at(program, Cut { n_forward_inputs, ..Cut::default() })
}

/// Where [`split_at`] cuts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// The first inputs are the forward part's, the others, gradients of outputs, the backward part's.
    pub n_forward_inputs: usize,
    /// The last outputs are the backward part's.
    pub n_backward_outputs: usize,
    /// The last stores, if any, are of a backward pass from some of the outputs. They are the backward part's then; the tape
    /// is still that of the backward pass from all.
    pub n_some: usize,
}

/// Splits `program`: whatever its outputs and its stores to anything but gradients need is the forward
/// part, the stores to gradients are the backward part's.
pub fn split_at(program: Program, cut: Cut) -> Split {
    let Cut { n_forward_inputs, n_backward_outputs, n_some } = cut;
    let mut program = drop_dead_code(program);
    let backward_outputs = program.outputs.split_off(program.outputs.len() - n_backward_outputs);
    let is_gradient = |slot: usize| program.slots[slot].role == Role::Gradient;
    let (mut backward_stores, forward_stores): (Vec<_>, Vec<_>) =
        program.stores.iter().copied().partition(|&(slot, _)| is_gradient(slot));
    let some = backward_stores.split_off(backward_stores.len() - n_some);

    let forward_values = forward_stores.iter().map(|&(_, id)| id);
    let forward_nodes =
        needed(&program, program.outputs.iter().copied().chain(forward_values), &[]);
    let given = |stores: &[(SlotId, ValueId)]| -> Vec<ValueId> {
        stores.iter().map(|&(_, id)| id).chain(backward_outputs.iter().copied()).collect()
    };
    let saved = saved(&program, &given(&backward_stores), &forward_nodes, n_forward_inputs);
    if n_some > 0 {
        let reads = self::saved(&program, &given(&some), &forward_nodes, n_forward_inputs);
        match reads.iter().all(|id| saved.binary_search(id).is_ok()) {
            true => backward_stores = some,
            // What the other way needs was not kept: go the way from all, in which the other outputs count as
            // zeros.
            false => {
                let kept: HashSet<SlotId> = some.iter().map(|&(slot, _)| slot).collect();
                backward_stores.retain(|(slot, _)| kept.contains(slot));
            }
        }
    }
    let backward_nodes = needed(&program, given(&backward_stores).into_iter(), &forward_nodes);
    let saved_types: Vec<_> = saved.iter().map(|&id| program.ty(id).clone()).collect();

    let mut forward = program.clone();
    forward.outputs.extend(&saved);
    forward.stores = forward_stores;
    let mut forward = drop_dead_code(forward);
    forward.inputs.truncate(n_forward_inputs);

    let mut backward = program.clone();
    backward.outputs = backward_outputs;
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
    let nodes = program.nodes.iter().zip(&backward_nodes).filter(|(_, is_back)| **is_back);
    let nodes: Vec<_> = nodes.map(|(node, _)| node.clone()).collect();
    let live: Vec<_> = (0..program.values.len())
        .map(|id| {
            let unused_input = matches!(program.values[id].origin, Origin::Input(input) if input < n_forward_inputs);
            !unused_input || saved.binary_search(&id).is_ok()
        })
        .collect();
    let backward = drop_dead_code(rebuild(&backward, nodes, &live));
    Split { forward, backward, saved: saved_types }
}

/// Marks the nodes that values need, but for those that `without` marks.
fn needed(program: &Program, values: impl Iterator<Item = ValueId>, without: &[bool]) -> Vec<bool> {
    let mut live = vec![false; program.values.len()];
    values.for_each(|id| live[id] = true);
    let mut nodes = vec![false; program.nodes.len()];
    for (index, node) in program.nodes.iter().enumerate().rev() {
        let is_without = without.get(index).is_some_and(|without| *without);
        if !is_without && node.outputs.iter().any(|&id| live[id]) {
            nodes[index] = true;
            node.inputs.iter().for_each(|&id| live[id] = true);
        }
    }
    nodes
}

/// Lists what a way back to `given` reads of the forward part: for its nodes, and to give it as it is.
fn saved(
    program: &Program,
    given: &[ValueId],
    forward_nodes: &[bool],
    n_forward_inputs: usize,
) -> Vec<ValueId> {
    let backward_nodes = needed(program, given.iter().copied(), forward_nodes);
    let readers = program.nodes.iter().zip(&backward_nodes).filter(|(_, is_back)| **is_back);
    let mut saved: Vec<ValueId> = readers
        .flat_map(|(node, _)| node.inputs.iter().copied())
        .chain(given.iter().copied())
        .filter(|&id| match program.values[id].origin {
            Origin::Node { node, .. } => forward_nodes[node],
            Origin::Input(input) => input < n_forward_inputs,
            _ => false,
        })
        .collect();
    saved.sort_unstable();
    saved.dedup();
    saved
}
