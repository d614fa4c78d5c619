//! Dropping what nobody watches: boundaries of module calls, and nodes and sources without a reader.

use crate::ir::program::{Node, Origin, Program, Value, ValueId};

/// Drops `enter` and `leave`: their readers read what went in.
pub fn drop_boundaries(mut program: Program) -> Program {
    let mut same: Vec<ValueId> = (0..program.values.len()).collect();
    for node in &mut program.nodes {
        node.inputs.iter_mut().for_each(|input| *input = same[*input]);
        if node.op.boundary().is_some() {
            for (&output, &input) in node.outputs.iter().zip(&node.inputs) {
                same[output] = input;
            }
        }
    }
    program.outputs.iter_mut().for_each(|value| *value = same[*value]);
    program.stores.iter_mut().for_each(|(_, value)| *value = same[*value]);
    drop_dead_code(program)
}

/// Drops nodes whose outputs reach neither an output nor a store of the program, then values, slots and
/// scalars that nobody reads. Inputs stay: they are the caller's.
pub fn drop_dead_code(program: Program) -> Program {
    let mut live = vec![false; program.values.len()];
    program.outputs.iter().for_each(|&value| live[value] = true);
    program.stores.iter().for_each(|&(_, value)| live[value] = true);
    let mut keep = vec![false; program.nodes.len()];
    for (index, node) in program.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|&output| live[output]) {
            keep[index] = true;
            node.inputs.iter().for_each(|&input| live[input] = true);
            node.outputs.iter().for_each(|&output| live[output] = true);
        }
    }
    let nodes: Vec<_> = program
        .nodes
        .iter()
        .zip(&keep)
        .filter(|(_, keep)| **keep)
        .map(|(node, _)| node.clone())
        .collect();
    rebuild(&program, nodes, &live)
}

/// Makes a program of some of another's nodes, in the order given, and of the values that `live` marks;
/// numbers everything anew.
pub(crate) fn rebuild(old: &Program, nodes: Vec<Node>, live: &[bool]) -> Program {
    let mut new = Program {
        inputs: old.inputs.clone(),
        scopes: old.scopes.clone(),
        warnings: old.warnings.clone(),
        ..Program::default()
    };
    let mut values: Vec<Option<ValueId>> = vec![None; old.values.len()];
    let mut slots = vec![None; old.slots.len()];
    let mut scalars = vec![None; old.scalars.len()];
    let stored = old.stores.iter().map(|&(slot, _)| slot);
    let read =
        old.values.iter().zip(live).filter(|(_, live)| **live).map(|(value, _)| value.origin);
    let read =
        read.filter_map(|origin| if let Origin::Slot(slot) = origin { Some(slot) } else { None });
    let mut used: Vec<_> = stored.chain(read).collect();
    used.sort_unstable();
    used.dedup();
    for slot in used {
        slots[slot] = Some(new.slots.len());
        new.slots.push(old.slots[slot].clone());
    }
    for (id, Value { ty, origin }) in old.values.iter().enumerate().filter(|(id, _)| live[*id]) {
        let origin = match *origin {
            Origin::Node { .. } => continue,
            Origin::Slot(slot) => Origin::Slot(slots[slot].expect("a slot that is read is used")),
            Origin::Scalar(scalar) => Origin::Scalar(*scalars[scalar].get_or_insert_with(|| {
                new.scalars.push(old.scalars[scalar].clone());
                new.scalars.len() - 1
            })),
            origin => origin,
        };
        values[id] = Some(new.push_value(ty.clone(), origin));
    }
    let renamed = |values: &[Option<ValueId>], id: ValueId| {
        values[id].expect("what is read is live and made before")
    };
    for node in nodes {
        let inputs = node.inputs.iter().map(|&id| renamed(&values, id)).collect();
        let types = node.outputs.iter().map(|&id| old.ty(id).clone());
        let outputs = new.push(node.op, inputs, types, node.scope);
        new.nodes.last_mut().expect("just pushed").draw = node.draw;
        for (&old, new) in node.outputs.iter().zip(outputs) {
            values[old] = Some(new);
        }
    }
    new.outputs = old.outputs.iter().map(|&id| renamed(&values, id)).collect();
    let stores = old.stores.iter();
    new.stores = stores
        .map(|&(slot, id)| {
            (slots[slot].expect("a slot that is stored is used"), renamed(&values, id))
        })
        .collect();
    new
}
