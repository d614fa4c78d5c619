//! Calls of modules: scopes, and the edges that values cross.

use std::sync::Arc;

use super::{Trace, Var};
use crate::ir::boundary;
use crate::ir::op::Op;
use crate::ir::program::{Scope, Span, Way};
use crate::ir::tree::{Arguments, Tree};

impl Trace {
    /// Records what `run` records as a call of the module at `path`.
    pub fn scope<R>(&self, path: &str, module: &'static str, run: impl FnOnce() -> R) -> R {
        {
            let mut recorder = self.0.borrow_mut();
            let known = recorder.calls.get_key_value(path);
            let (path, call) =
                known.map_or_else(|| (path.into(), 0), |(path, n)| (path.clone(), *n));
            recorder.calls.insert(path.clone(), call + 1);
            let scope = Scope { path, module, call, function: None };
            recorder.open_outside();
            recorder.program.scopes.push(scope);
            let scope = recorder.program.scopes.len() - 1;
            recorder.open.push(scope);
        }
        let result = run();
        self.0.borrow_mut().open.pop();
        result
    }

    /// Records what `run` records as a span whose activations are not kept until the way back, which computes them again: see
    /// [`checkpoint`](crate::passes::checkpoint). A recording that computes keeps them all the same.
    ///
    /// Source: `torch.utils.checkpoint.checkpoint`.
    pub fn checkpoint<R>(&self, run: impl FnOnce() -> R) -> R {
        let first = self.program().nodes.len();
        let result = run();
        let mut recorder = self.0.borrow_mut();
        let nodes = first..recorder.program.nodes.len();
        if recorder.eager.is_none() && !nodes.is_empty() {
            recorder.program.spans.push(Span { nodes, ways: Vec::new() });
        }
        result
    }

    /// Remembers where a backward pass, whose first node is `pass`, goes through the spans that are there. `reached[n]` is how
    /// many nodes there were before the gradients of node `n - 1` and those before it.
    pub(crate) fn go_through(&self, pass: usize, reached: &[usize]) {
        for span in &mut self.0.borrow_mut().program.spans {
            let known = reached.get(span.nodes.end).zip(reached.get(span.nodes.start));
            let nodes = known.map(|(&first, &end)| first..end).filter(|nodes| !nodes.is_empty());
            span.ways.extend(nodes.map(|nodes| Way { pass, nodes }));
        }
    }

    /// Records that the values of positional arguments enter the `forward` of the module whose call is
    /// open. Keyword arguments pass unwatched, as in torch.
    pub fn enter(&self, mut arguments: Arguments) -> Arguments {
        let positional = Tree::Tuple(arguments.positional);
        let vars: Vec<_> = positional.leaves().into_iter().cloned().collect();
        let mut inside = self.cross(Arc::new(boundary::Enter), &vars).into_iter();
        let crossed = positional.map(&mut |var| inside.next().unwrap_or(var));
        arguments.positional = crossed.into_items();
        arguments
    }

    /// Records that values leave the `forward` of the module whose call is open.
    pub fn leave(&self, result: Tree) -> Tree {
        let vars: Vec<_> = result.leaves().into_iter().cloned().collect();
        let mut outside = self.cross(Arc::new(boundary::Leave), &vars).into_iter();
        result.map(&mut |var| outside.next().unwrap_or(var))
    }

    fn cross(&self, edge: Arc<dyn Op>, vars: &[Var]) -> Vec<Var> {
        let inputs: Vec<_> = vars.iter().collect();
        if inputs.is_empty() { Vec::new() } else { self.apply_all(edge, &inputs, inputs.len()) }
    }

    /// Calls a module of one value: `forward` runs between an `enter` and a `leave` boundary.
    pub fn call(
        &self,
        path: &str,
        module: &'static str,
        x: &Var,
        forward: impl FnOnce(Var) -> Var,
    ) -> Var {
        self.scope(path, module, || {
            let inside = self.apply(boundary::Enter, &[x]);
            self.apply(boundary::Leave, &[&forward(inside)])
        })
    }
}
