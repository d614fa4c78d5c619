//! Autocast of a program that is recorded already.
//!
//! The rule is [`Trace::autocast`]'s: the program is recorded once more, with it. A `forward` that is recorded with
//! autocast from the start finds the types that it runs in, which this pass cannot show it; where `forward` does
//! not ask for them, both give the same program.

use std::collections::HashMap;

use super::clean::drop_dead_code;
use crate::ir::autocast::Autocast;
use crate::ir::program::{Node, Origin, Program, ValueId};
use crate::ir::trace::{Function, Trace, TraceError, Var};

/// Records a forward pass once more with autocast: inputs, slots and stores keep their types, outputs may become
/// others.
///
/// # Errors
///
/// If a function refuses to run under autocast, or values of several types meet where torch allows one.
///
/// # Example
///
/// ```
/// use neurarch_kernels::ir::autocast::Autocast;
/// use neurarch_kernels::ir::device::Device;
/// use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_kernels::passes::autocast::autocast;
/// use neurarch_kernels::ir::trace::Trace;
/// use neurarch_kernels::ir::shape::Type;
///
/// let trace = Trace::new();
/// let [x, weight] = [[4, 3], [2, 3]].map(|shape| trace.input(Type::new(Dtype::F32, shape)));
/// let program = trace.finish(&[x.linear(&weight, None)])?;
/// let how = Autocast::new(Device::Cpu, Dtype::BF16).expect("bf16 is a lower precision");
/// let cast = autocast(&program, how)?;
/// assert_eq!(cast.ty(cast.outputs[0]).to_string(), "bf16[4, 2]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.autocast`.
pub fn autocast(program: &Program, how: Autocast) -> Result<Program, TraceError> {
    let trace = Trace::resume(Program {
        scopes: program.scopes.clone(),
        warnings: program.warnings.clone(),
        ..Program::default()
    });
    let inputs: Vec<_> = program.inputs.iter().map(|ty| trace.input(ty.clone())).collect();
    let mut vars: HashMap<ValueId, Var> = HashMap::new();
    for (id, value) in program.values.iter().enumerate() {
        let (dtype, shape) = (value.ty.dtype, value.ty.shape.clone());
        let var = match value.origin {
            Origin::Input(input) => inputs[input].clone(),
            Origin::Slot(slot) => trace.slot(program.slots[slot].clone()),
            Origin::Scalar(scalar) => trace.scalar(program.scalars[scalar].clone(), dtype),
            Origin::Constant(number) => trace.constant(number, dtype, shape),
            Origin::Node { .. } => continue,
        };
        vars.insert(id, var);
    }
    let mut stored = HashMap::new();
    trace.autocast(Some(how), || {
        for nodes in program.nodes.chunk_by(|a, b| a.scope == b.scope && is_within(program, a)) {
            let scope = nodes[0].scope;
            let function = program.scopes.get(scope).and_then(|scope| scope.function);
            trace.within(scope, || match function {
                Some(function) => call(&trace, program, function, nodes, &mut vars, &mut stored),
                None => record(&trace, nodes, &mut vars),
            });
        }
    });
    for &(slot, value) in &program.stores {
        let value = stored.get(&value).unwrap_or(&vars[&value]);
        trace.store(&trace.slot(program.slots[slot].clone()), value);
    }
    let outputs: Vec<_> = program.outputs.iter().map(|id| vars[id].clone()).collect();
    trace.finish(&outputs).map(drop_dead_code)
}

/// Says whether a node is part of a function.
fn is_within(program: &Program, node: &Node) -> bool {
    program.scopes.get(node.scope).is_some_and(|scope| scope.function.is_some())
}

/// Records nodes over `vars`.
fn record(trace: &Trace, nodes: &[Node], vars: &mut HashMap<ValueId, Var>) {
    for node in nodes {
        let inputs: Vec<_> = node.inputs.iter().map(|id| &vars[id]).collect();
        let outputs = trace.apply_all(node.op.clone(), &inputs, node.outputs.len());
        vars.extend(node.outputs.iter().copied().zip(outputs));
    }
}

/// Records the nodes of a function. What it stores is kept in `stored` as it was before its results were rounded.
fn call(
    trace: &Trace,
    program: &Program,
    function: Function,
    nodes: &[Node],
    vars: &mut HashMap<ValueId, Var>,
    stored: &mut HashMap<ValueId, Var>,
) {
    let made = |id: &ValueId| nodes.iter().any(|node| node.outputs.contains(id));
    let mut inputs: Vec<ValueId> =
        nodes.iter().flat_map(|node| &node.inputs).copied().filter(|id| !made(id)).collect();
    inputs.dedup();
    let outer: Vec<_> = inputs.iter().map(|id| vars[id].clone()).collect();
    let results: Vec<ValueId> = nodes.iter().flat_map(|node| &node.outputs).copied().collect();
    let given: Vec<_> = outer.iter().map(Some).collect();
    let found = trace.function(function, &given, |cast| {
        let mut inside: HashMap<_, _> =
            inputs.iter().zip(&outer).map(|(&id, var)| (id, cast(var))).collect();
        record(trace, nodes, &mut inside);
        for (_, id) in program.stores.iter().filter(|(_, id)| made(id)) {
            stored.insert(*id, inside[id].clone());
        }
        results.iter().map(|id| inside[id].clone()).collect::<Vec<_>>()
    });
    vars.extend(results.into_iter().zip(found));
}
