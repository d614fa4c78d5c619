//! Halves without conversions of their own: what is rounded to a half and widened again stays in single precision, and
//! ops that can read or write halves as they lie do so.
//!
//! A program of halves is recorded with a conversion before each op and behind it (`program/trace/mixed.rs`). Each pair of
//! them becomes a rounding in the memory of the op before it, or nothing if its numbers are those of a half already. No
//! formula changes, and each result is rounded as it was, so the bits are the same.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ir::dtype::Dtype;
use crate::ir::op::{Around, InHalves, OfHalf, Op, Reads};
use crate::ir::program::{Ids, Origin, Program, ValueId};
use crate::ops::rounded::{Round, rounded, rounds_to, unrounded};
use crate::passes::clean::{drop_dead_code, rebuild};
use crate::passes::fuse::{count_readers, readers};

/// Drops conversions from halves and to them wherever it can.
pub fn fuse_halves(program: Program) -> Program {
    if program.values.iter().all(|value| !value.ty.dtype.is_half()) {
        return program;
    }
    read_halves(round_in_place(program))
}

/// Lets values that are rounded to a half and widened again stay in single precision.
fn round_in_place(mut program: Program) -> Program {
    let readers = count_readers(&program);
    let mut same: Vec<ValueId> = (0..program.values.len()).collect();
    let mut halves = vec![None; program.values.len()];
    // For each value in a half, one in single precision that it was rounded from.
    let mut from: HashMap<ValueId, ValueId> = HashMap::new();
    for index in 0..program.nodes.len() {
        program.nodes[index].inputs.iter_mut().for_each(|input| *input = same[*input]);
        match converted(&program, index) {
            Some((x, y)) if program.ty(x).dtype == Dtype::F32 => drop(from.insert(y, x)),
            Some((x, y)) => {
                let half = program.ty(x).dtype;
                let Some(&single) = from.get(&x) else { continue };
                if halves[single] != Some(half) {
                    let maker = maker_to_round(&program, single).filter(|_| readers[single] == 1);
                    let Some(maker) = maker else {
                        let node = &mut program.nodes[index];
                        node.op = Arc::new(Round { to: half });
                        node.inputs = Ids::from_slice(&[single]);
                        halves[y] = Some(half);
                        from.insert(x, y);
                        continue;
                    };
                    let node = &mut program.nodes[maker];
                    node.op = rounded(node.op.clone(), half);
                    halves[single] = Some(half);
                }
                same[y] = single;
            }
            None => {}
        }
        if let Some(of) = of_half(&program, index, |id| halves[id]) {
            program.nodes[index].outputs.iter().for_each(|&id| halves[id] = Some(of.dtype));
        }
    }
    program.outputs.iter_mut().for_each(|id| *id = same[*id]);
    program.stores.iter_mut().for_each(|(_, id)| *id = same[*id]);
    drop_dead_code(program)
}

/// Lets ops read and write halves as they lie.
fn read_halves(mut program: Program) -> Program {
    let (readers, counts) = (readers(&program), count_readers(&program));
    let mut halves: Vec<Option<OfHalf>> = vec![None; program.values.len()];
    let mut dropped = vec![false; program.nodes.len()];
    for index in 0..program.nodes.len() {
        if dropped[index] {
            continue;
        }
        if let Some(of) = of_half(&program, index, |id| halves[id].map(|of| of.dtype)) {
            program.nodes[index].outputs.iter().for_each(|&id| halves[id] = Some(of));
        }
        let node = &program.nodes[index];
        // The conversion that alone reads an output, and what it gives.
        let narrowed = |&id: &ValueId| match *readers[id] {
            [reader] if counts[id] == 1 => {
                let (_, half) = converted(&program, reader)?;
                program.ty(half).dtype.is_half().then_some((reader, half))
            }
            _ => None,
        };
        let narrowed: Vec<_> = node.outputs.iter().map(narrowed).collect();
        let types: Vec<_> = node.inputs.iter().map(|&id| program.ty(id).clone()).collect();
        let inputs: Vec<_> = node.inputs.iter().map(|&id| halves[id]).collect();
        let outputs: Vec<_> = narrowed
            .iter()
            .map(|narrowed| narrowed.map(|(_, half)| program.ty(half).dtype))
            .collect();
        let around = Around { types: &types, inputs: &inputs, outputs: &outputs };
        let Some(InHalves { op, inputs, narrows }) = node.op.in_halves(&around) else { continue };
        for (place, reads) in inputs.into_iter().enumerate() {
            // An op of a user's may say more than it has inputs.
            let Some(&id) = program.nodes[index].inputs.get(place) else { break };
            match (reads, program.values[id].origin) {
                (Reads::Half, Origin::Node { node: widening, .. }) => {
                    if let Some(&half) = program.nodes[widening].inputs.first() {
                        program.nodes[index].inputs[place] = half;
                    }
                }
                (Reads::Rounds, Origin::Node { node: maker, .. }) if counts[id] == 1 => {
                    let plain = unrounded(&*program.nodes[maker].op).cloned();
                    plain.into_iter().for_each(|plain| program.nodes[maker].op = plain);
                }
                _ => {}
            }
        }
        program.nodes[index].op = op;
        for (output, narrowed) in narrowed.into_iter().enumerate().filter(|_| narrows) {
            if let Some((conversion, half)) = narrowed {
                program.nodes[index].outputs[output] = half;
                dropped[conversion] = true;
            }
        }
    }
    let nodes = program.nodes.iter().zip(&dropped).filter(|(_, dropped)| !**dropped);
    let nodes = nodes.map(|(node, _)| node.clone()).collect();
    drop_dead_code(rebuild(&program, nodes, &vec![true; program.values.len()]))
}

/// Gives what a node converts between a half and single precision, and what it makes of it.
fn converted(program: &Program, index: usize) -> Option<(ValueId, ValueId)> {
    let node = &program.nodes[index];
    let to = node.op.converts_to()?;
    let (&[x], &[y]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return None };
    let from = program.ty(x).dtype;
    let is_pair = from == Dtype::F32 && to.is_half() || from.is_half() && to == Dtype::F32;
    is_pair.then_some((x, y))
}

/// Gives the half whose numbers all results of a node are, if they are in single precision and it is known; `of` says it
/// of its inputs.
fn of_half(
    program: &Program,
    index: usize,
    of: impl Fn(ValueId) -> Option<Dtype>,
) -> Option<OfHalf> {
    if let Some((x, _)) = converted(program, index) {
        let dtype = program.ty(x).dtype;
        return dtype.is_half().then_some(OfHalf { dtype, is_widened: true });
    }
    let node = &program.nodes[index];
    let keeps = node.op.keeps_halves() || node.op.copies_as_is();
    let kept = || {
        let (&first, others) = node.inputs.split_first().filter(|_| keeps)?;
        of(first).filter(|&half| others.iter().all(|&id| of(id) == Some(half)))
    };
    let half = rounds_to(&*node.op).or_else(kept);
    let are_singles = node.outputs.iter().all(|&id| program.ty(id).dtype == Dtype::F32);
    half.filter(|_| are_singles).map(|dtype| OfHalf { dtype, is_widened: false })
}

/// Gives the node that makes a value, if its results can be rounded where it wrote them.
fn maker_to_round(program: &Program, id: ValueId) -> Option<usize> {
    let Origin::Node { node: index, .. } = program.values[id].origin else { return None };
    let node = &program.nodes[index];
    let op: &dyn Op = &*node.op;
    // What only moves numbers had better not be computed at all, a loss is joined with its gradient.
    let is_free = op.in_place().is_empty() && !op.copies_as_is() && op.fuse_gradient().is_none();
    (node.outputs.len() == 1 && is_free && op.boundary().is_none()).then_some(index)
}
