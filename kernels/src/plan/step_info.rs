//! [`StepInfo`]: what a step of a plan does, and for which module.

use crate::ir::op::Op;
use crate::ir::program::{Origin, Role, Scope, Slot, ValueId};
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
        let scopes = &self.program.scopes;
        let scope = match step.made_of {
            MadeOf::Node(node) => scopes.get(self.program.nodes[node].scope),
            MadeOf::Copy(id) => match self.program.values[id].origin {
                Origin::Node { node, .. } => scopes.get(self.program.nodes[node].scope),
                _ => None,
            },
        };
        if let Some(Scope { path, module, .. }) = scope.filter(|scope| !scope.module.is_empty()) {
            return (path.to_string(), module);
        }
        // An update, or a copy of a parameter.
        let mut places = step.inputs.iter().chain(&step.outputs);
        let parameter = places.find_map(|&view| match self.views[view as usize].place {
            Location::Slot(slot) => {
                Some(&self.program.slots[slot]).filter(|slot| slot.role == Role::Parameter)
            }
            _ => None,
        });
        let Some(Slot { name, .. }) = parameter else { return Default::default() };
        let path = name.rsplit_once('.').map_or("", |(path, _)| path);
        let of_path = scopes.iter().find(|scope| *scope.path == *path && !scope.module.is_empty());
        (path.to_owned(), of_path.map_or("", |scope| scope.module))
    }
}
