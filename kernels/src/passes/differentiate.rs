//! Reverse mode: gradients of values with respect to others, recorded on the same trace.
//!
//! The rules stand beside their ops ([`Op::gradient`]). Since a rule records ops
//! like any `forward`, an eager trace computes the gradients at once, and a hook's own arithmetic is
//! differentiated as in torch.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::ir::op::{Boundary, GradientAt, Op};
use crate::ir::program::{Ids, Node, ValueId};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::{Trace, Var};

/// Watches gradients on their way back. Each method may replace what it is given.
pub trait WatchGradients {
    /// Is called with the gradients that arrive at the outputs of a module call, before they go through it.
    fn leave(&mut self, call: Crossing<'_>, gradients: &mut [Option<Var>]);

    /// Is called with the gradients of the inputs of a module call: `None` where none is needed.
    fn enter(&mut self, call: Crossing<'_>, gradients: &mut [Option<Var>]);

    /// Is called with the whole gradient of the value at `index` in `wrt`, as soon as it is known.
    fn known(&mut self, index: usize, gradient: &mut Var) {
        let _ = (index, gradient);
    }
}

/// A module call whose edge gradients cross.
#[derive(Clone, Copy, Debug)]
pub struct Crossing<'a> {
    /// Index in [`Program::scopes`](crate::ir::program::Program::scopes).
    pub scope: usize,
    /// For each input of the call, whether it needs a gradient. At [`leave`](WatchGradients::leave), if
    /// none does, [`enter`](WatchGradients::enter) will not be called.
    pub needs: &'a [bool],
}

/// Records the gradients of `Σ ⟨gradient, output⟩` over the pairs `of` with respect to each of `wrt`:
/// `None` where nothing depends on it.
///
/// If an op on the way has no rule for an input that needs a gradient, the trace keeps an error that names the
/// op and the module in whose `forward` it was recorded.
///
/// Source: `torch.autograd.grad(outputs, inputs, grad_outputs, allow_unused=True)`.
pub fn backward(trace: &Trace, of: &[(Var, Var)], wrt: &[Var]) -> Vec<Option<Var>> {
    record(trace, of, wrt, None)
}

/// [`backward`], watched: what `watch` puts in the place of a gradient goes on from there.
///
/// Source: `register_full_backward_pre_hook` and `register_full_backward_hook` of `torch.nn.Module`, and
/// `torch.Tensor.register_hook`.
pub fn backward_watched(
    trace: &Trace,
    of: &[(Var, Var)],
    wrt: &[Var],
    watch: &mut dyn WatchGradients,
) -> Vec<Option<Var>> {
    record(trace, of, wrt, Some(watch))
}

fn record(
    trace: &Trace,
    of: &[(Var, Var)],
    wrt: &[Var],
    mut watch: Option<&mut dyn WatchGradients>,
) -> Vec<Option<Var>> {
    let wrt = &wrt.iter().map(|var| trace.own(var.clone())).collect::<Vec<_>>();
    let nodes = trace.program().nodes.clone();
    let needs = needs_gradient(trace, &nodes, wrt);
    let mut gradients: Vec<Option<Var>> = vec![None; needs.len()];
    // Where no gradient has arrived but one that is 0 everywhere: nothing is recorded for it.
    let mut zeros = vec![false; needs.len()];
    for (number, (output, gradient)) in of.iter().enumerate() {
        let Some(id) = trace.own(output.clone()).id() else { continue };
        if gradient.id().is_some() && gradient.shape() != output.shape() {
            let (found, expected) = (gradient.shape(), output.shape());
            trace.fail(format!(
                "Mismatch in shape: grad_output[{number}] has a shape of {found} and output[{number}] has a shape of \
                 {expected}."
            ));
        }
        accumulate(&mut gradients[id], gradient.clone());
    }
    let edges = watch.as_ref().map(|_| Edges::of(&nodes, wrt));
    let n_nodes = || trace.program().nodes.len();
    let pass = n_nodes();
    // Where the gradients of nodes begin, if it is to be remembered.
    let mut reached = match trace.program().spans.is_empty() {
        true => Vec::new(),
        false => vec![pass; nodes.len() + 1],
    };
    for (index, node) in nodes.iter().enumerate().rev() {
        let mut arrived: SmallVec<[Option<Var>; 4]> =
            node.outputs.iter().map(|&id| gradients[id].clone()).collect();
        let is_watched = watch.is_some() && node.op.boundary().is_some();
        for (gradient, &id) in arrived.iter_mut().zip(&node.outputs).filter(|_| is_watched) {
            *gradient = gradient.take().or_else(|| zeros[id].then(|| zeros_like(trace, id)));
        }
        let is_reached = node.outputs.iter().any(|&id| needs[id]);
        if is_reached && arrived.iter().all(Option::is_none) {
            // Rules are linear in what arrives.
            if node.outputs.iter().any(|&id| zeros[id]) {
                node.inputs.iter().for_each(|&id| zeros[id] |= needs[id]);
            }
        } else if is_reached {
            let needed: SmallVec<[bool; 8]> = node.inputs.iter().map(|&id| needs[id]).collect();
            if let (Some(watch), Some(edge)) = (watch.as_deref_mut(), node.op.boundary()) {
                let inputs = edges.as_ref().map_or(&[][..], |edges| edges.inputs(node.scope));
                cross(edge, inputs, node, &needs, &mut arrived, watch);
            }
            let vars =
                |ids: &Ids| -> SmallVec<[Var; 4]> { ids.iter().map(|&id| trace.var(id)).collect() };
            let (inputs, outputs) = (vars(&node.inputs), vars(&node.outputs));
            let at = GradientAt::new(&inputs, &outputs, &arrived, &needed);
            trace.within(node.scope, || {
                let found = node.op.gradient(&at);
                let found = found.into_iter().chain(core::iter::repeat(None));
                let needed = node.inputs.iter().enumerate().zip(found);
                for ((number, &input), gradient) in needed.filter(|((_, input), _)| needs[**input])
                {
                    match gradient {
                        Some(gradient) => {
                            let expected = inputs[number].shape();
                            if gradient.id().is_some() && gradient.shape() != expected {
                                trace.fail(wrong_shape(
                                    &*node.op,
                                    number,
                                    gradient.shape(),
                                    expected,
                                ));
                            }
                            accumulate(&mut gradients[input], gradient);
                        }
                        // A boundary has no arithmetic: what did not arrive there is not needed here.
                        None if node.op.boundary().is_some() => {
                            zeros[input] |= zeros[node.outputs[number]];
                        }
                        None if at.is_zero(number) => zeros[input] = true,
                        None => drop(trace.fail(no_rule(&*node.op, number))),
                    }
                }
            });
        }
        if let Some(reached) = reached.get_mut(index) {
            *reached = n_nodes();
        }
        for &number in edges.iter().filter_map(|edges| edges.known_after.get(&index)).flatten() {
            let Some(id) = wrt[number].id() else { continue };
            if gradients[id].is_none() && zeros[id] {
                gradients[id] = Some(zeros_like(trace, id));
            }
            if let (Some(watch), Some(gradient)) = (watch.as_deref_mut(), &mut gradients[id]) {
                watch.known(number, gradient);
            }
        }
    }
    trace.go_through(pass, &reached);
    let of = |id: usize| gradients[id].clone().or_else(|| zeros[id].then(|| zeros_like(trace, id)));
    wrt.iter().map(|var| var.id().and_then(of)).collect()
}

/// Says in torch's words that an op has no rule for one of its inputs.
fn no_rule(op: &dyn Op, input: usize) -> String {
    format!("derivative for {} with respect to its input {input} is not implemented", op.name())
}

/// Says in torch's words that an op's rule for one of its inputs gave a gradient of another shape.
fn wrong_shape(op: &dyn Op, input: usize, found: &Shape, expected: &Shape) -> String {
    let name = op.name();
    format!(
        "Function {name} returned an invalid gradient at index {input} - got {found} but expected shape compatible with \
         {expected}"
    )
}

fn zeros_like(trace: &Trace, id: usize) -> Var {
    let Type { dtype, shape } = trace.program().ty(id).clone();
    trace.constant(0.0, dtype, shape).to(dtype)
}

/// Shows the gradients at an edge of a module call, of which `inputs` are the inputs, to `watch`.
fn cross(
    edge: Boundary,
    inputs: &[ValueId],
    node: &Node,
    needs: &[bool],
    arrived: &mut [Option<Var>],
    watch: &mut dyn WatchGradients,
) {
    let scope = node.scope;
    match edge {
        Boundary::Enter => {
            let needs: Vec<_> = node.inputs.iter().map(|&id| needs[id]).collect();
            for (gradient, _) in arrived.iter_mut().zip(&needs).filter(|(_, needed)| !**needed) {
                *gradient = None;
            }
            watch.enter(Crossing { scope, needs: &needs }, arrived);
        }
        Boundary::Leave => {
            let needs = inputs.iter().map(|&id| needs[id]).collect::<Vec<_>>();
            watch.leave(Crossing { scope, needs: &needs }, arrived);
        }
    }
}

/// Where gradients are shown to whoever watches.
struct Edges<'a> {
    /// For each module call, by its scope, the node at which values enter it.
    enters: HashMap<usize, &'a Node>,
    /// For each node that is the first to read some of `wrt`, their numbers: when the backward pass has passed it, their
    /// gradients are complete.
    known_after: HashMap<usize, Vec<usize>>,
}

impl<'a> Edges<'a> {
    fn of(nodes: &'a [Node], wrt: &[Var]) -> Self {
        let mut unread: HashMap<ValueId, Vec<usize>> = HashMap::new();
        for (number, id) in wrt.iter().enumerate().filter_map(|(n, var)| Some((n, var.id()?))) {
            unread.entry(id).or_default().push(number);
        }
        let mut edges = Edges { enters: HashMap::new(), known_after: HashMap::new() };
        for (index, node) in nodes.iter().enumerate() {
            if node.op.boundary() == Some(Boundary::Enter) {
                edges.enters.entry(node.scope).or_insert(node);
            }
            let read = node.inputs.iter().filter_map(|id| unread.remove(id)).flatten();
            let mut read: Vec<_> = read.collect();
            if !read.is_empty() {
                read.sort_unstable();
                edges.known_after.insert(index, read);
            }
        }
        edges
    }

    /// Gives the inputs of a module call.
    fn inputs(&self, scope: usize) -> &[ValueId] {
        self.enters.get(&scope).map(|node| node.inputs.as_slice()).unwrap_or_default()
    }
}

/// Marks the values that depend on one of `wrt`.
fn needs_gradient(trace: &Trace, nodes: &[Node], wrt: &[Var]) -> Vec<bool> {
    let program = trace.program();
    let mut needs = vec![false; program.values.len()];
    wrt.iter().filter_map(Var::id).for_each(|id| needs[id] = true);
    for node in nodes {
        if node.inputs.iter().any(|&id| needs[id]) && !node.op.is_constant() {
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
