//! [`StepInfo`]: what a step of a plan does, and for which module.

use crate::ir::op::Op;
use crate::ir::program::{Origin, Program, Role, Scope, Slot, SlotId, ValueId};
use crate::ops::shape::contiguous::Contiguous;
use crate::plan::{Location, MadeOf, Plan, Step};

/// What a step of a plan does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepInfo {
    /// The op's name.
    pub op: &'static str,
    /// The dotted path of the module that called it; a gradient belongs to the call that it is of, an update to the module
    /// whose parameter it is. Empty for the root, and outside of modules, as a loss is.
    pub path: String,
    /// The module's type; empty where no module called it.
    pub module: &'static str,
    /// The op with its operands: `arena+0:f32[2] = relu input 0:f32[2]`.
    pub text: String,
}

impl StepInfo {
    /// Says what a node of a program does that is computed op by op, without a plan.
    ///
    /// # Panics
    ///
    /// If there are fewer nodes.
    pub fn of_node(program: &Program, node: usize) -> Self {
        let node = &program.nodes[node];
        let slots = node.inputs.iter().filter_map(|&id| match program.values[id].origin {
            Origin::Slot(slot) => Some(slot),
            _ => None,
        });
        let (path, module) = called_by(program, Some(node.scope), slots);
        let types = |ids: &[ValueId]| {
            ids.iter().map(|&id| program.ty(id).to_string()).collect::<Vec<_>>().join(" ")
        };
        let attributes = node.op.attributes();
        let space = if attributes.is_empty() { "" } else { " " };
        let (name, outputs, inputs) = (node.op.name(), types(&node.outputs), types(&node.inputs));
        let text = format!("{outputs} = {name}{space}{attributes} {inputs}");
        StepInfo { op: name, path, module, text }
    }
}

/// Finds the path and the type of the module that recorded in a scope; outside of modules that of the first parameter
/// among some slots: an update, or a copy of a parameter.
fn called_by(
    program: &Program,
    scope: Option<usize>,
    slots: impl Iterator<Item = SlotId>,
) -> (String, &'static str) {
    let scopes = &program.scopes;
    let scope = scope.and_then(|scope| scopes.get(scope));
    if let Some(Scope { path, module, .. }) = scope.filter(|scope| !scope.module.is_empty()) {
        return (path.to_string(), module);
    }
    let mut parameters =
        slots.map(|slot| &program.slots[slot]).filter(|slot| slot.role == Role::Parameter);
    let Some(Slot { name, .. }) = parameters.next() else { return Default::default() };
    let path = name.rsplit_once('.').map_or("", |(path, _)| path);
    let of_path = scopes.iter().find(|scope| *scope.path == *path && !scope.module.is_empty());
    (path.to_owned(), of_path.map_or("", |scope| scope.module))
}

impl Plan {
    /// Says what a step does.
    ///
    /// # Panics
    ///
    /// If there are fewer steps.
    pub fn step_info(&self, step: usize) -> StepInfo {
        let step = &self.steps[step];
        let (path, module) = self.called_by(step);
        StepInfo { op: self.op(step).0.name(), path, module, text: self.text(step) }
    }

    /// Returns the op of a step, and the values that it reads and makes.
    fn op<'a>(&'a self, step: &'a Step) -> (&'a dyn Op, &'a [ValueId], &'a [ValueId]) {
        match &step.made_of {
            MadeOf::Node(node) => {
                let node = &self.program.nodes[*node];
                (&*node.op, &node.inputs, &node.outputs)
            }
            MadeOf::Copy(id) => (&Contiguous, std::slice::from_ref(id), std::slice::from_ref(id)),
        }
    }

    /// Writes what a step does: `arena+0:f32[2] = relu input 0:f32[2]`.
    pub(super) fn text(&self, step: &Step) -> String {
        let (op, inputs, outputs) = self.op(step);
        let attributes = op.attributes();
        let space = if attributes.is_empty() { "" } else { " " };
        let [outputs, inputs] = [(&step.outputs, outputs), (&step.inputs, inputs)]
            .map(|(views, ids)| self.operands(views, ids));
        format!("{outputs} = {}{space}{attributes} {inputs}", op.name())
    }

    fn operands(&self, views: &[u32], ids: &[ValueId]) -> String {
        let all = views.iter().zip(ids).map(|(&view, &id)| {
            format!("{}:{}", self.views[view as usize].place, self.program.ty(id))
        });
        all.collect::<Vec<_>>().join(" ")
    }

    /// Finds the path and the type of the module that a step is for.
    fn called_by(&self, step: &Step) -> (String, &'static str) {
        let program = &self.program;
        let node = match step.made_of {
            MadeOf::Node(node) => Some(node),
            MadeOf::Copy(id) => match program.values[id].origin {
                Origin::Node { node, .. } => Some(node),
                _ => None,
            },
        };
        let places = step.inputs.iter().chain(&step.outputs);
        let slots = places.filter_map(|&view| match self.views[view as usize].place {
            Location::Slot(slot) => Some(slot),
            _ => None,
        });
        called_by(program, node.map(|node| program.nodes[node].scope), slots)
    }
}
