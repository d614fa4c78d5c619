//! Reverse mode: gradients of values with respect to others, recorded on the same trace.
//!
//! The rules stand beside their ops ([`Op::gradient`](crate::op::Op::gradient)). Since a rule records ops
//! like any `forward`, an eager trace computes the gradients at once, and a hook's own arithmetic is
//! differentiated as in torch.

use crate::op::GradientAt;
use crate::program::Node;
use crate::program::trace::{Trace, Var};

/// Records the gradients of `Σ ⟨gradient, output⟩` over the pairs `of` with respect to each of `wrt`:
/// `None` where nothing depends on it.
///
/// Source: `torch.autograd.grad(outputs, inputs, grad_outputs, allow_unused=True)`.
pub fn backward(trace: &Trace, of: &[(Var, Var)], wrt: &[Var]) -> Vec<Option<Var>> {
    let nodes = trace.program().nodes.clone();
    let needs = needs_gradient(trace, &nodes, wrt);
    let mut gradients: Vec<Option<Var>> = vec![None; needs.len()];
    for (output, gradient) in of {
        if let Some(id) = output.id() {
            accumulate(&mut gradients[id], gradient.clone());
        }
    }
    for node in nodes.iter().rev() {
        let arrived: Vec<_> = node.outputs.iter().map(|&id| gradients[id].clone()).collect();
        if arrived.iter().all(Option::is_none) || !node.outputs.iter().any(|&id| needs[id]) {
            continue;
        }
        let vars = |ids: &[usize]| ids.iter().map(|&id| trace.var(id)).collect::<Vec<_>>();
        let at = GradientAt {
            inputs: &vars(&node.inputs),
            outputs: &vars(&node.outputs),
            gradients: &arrived,
            needs: &node.inputs.iter().map(|&id| needs[id]).collect::<Vec<_>>(),
        };
        trace.within(node.scope, || {
            for (&input, gradient) in node.inputs.iter().zip(node.op.gradient(&at)) {
                if let Some(gradient) = gradient.filter(|_| needs[input]) {
                    accumulate(&mut gradients[input], gradient);
                }
            }
        });
    }
    wrt.iter().map(|var| gradients[var.id()?].clone()).collect()
}

/// Marks the values that depend on one of `wrt`.
fn needs_gradient(trace: &Trace, nodes: &[Node], wrt: &[Var]) -> Vec<bool> {
    let program = trace.program();
    let mut needs = vec![false; program.values.len()];
    wrt.iter().filter_map(Var::id).for_each(|id| needs[id] = true);
    for node in nodes {
        if node.inputs.iter().any(|&id| needs[id]) {
            for &id in &node.outputs {
                needs[id] = program.ty(id).dtype.is_float();
            }
        }
    }
    needs
}

fn accumulate(sum: &mut Option<Var>, gradient: Var) {
    *sum = Some(match sum.take() {
        None => gradient,
        Some(sum) => &sum + &gradient,
    });
}
