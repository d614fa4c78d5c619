//! Programs as text, one value a line: `%3 = linear %0 %1 %2 : f32[32, 16]  # fc1: Linear`.

use core::fmt;

use crate::ir::program::{Node, Origin, Program, Role, ScalarOf, ValueId};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in 0..self.values.len() {
            self.print_source(f, id)?;
        }
        for node in &self.nodes {
            self.print_node(f, node)?;
        }
        let outputs: Vec<_> = self.outputs.iter().map(|id| format!(" %{id}")).collect();
        writeln!(f, "return{}", outputs.concat())?;
        for (slot, value) in &self.stores {
            let slot = &self.slots[*slot];
            writeln!(f, "store {} {} <- %{value}", slot.role, slot.name)?;
        }
        Ok(())
    }
}

impl Program {
    fn print_source(&self, f: &mut fmt::Formatter<'_>, id: ValueId) -> fmt::Result {
        let value = &self.values[id];
        match value.origin {
            Origin::Node { .. } => return Ok(()),
            Origin::Input(input) => write!(f, "%{id} = input {input}")?,
            Origin::Constant(number) => write!(f, "%{id} = constant {number}")?,
            Origin::Slot(slot) => {
                let slot = &self.slots[slot];
                write!(f, "%{id} = {} {}", slot.role, slot.name)?;
            }
            Origin::Scalar(scalar) => {
                let scalar = &self.scalars[scalar];
                write!(f, "%{id} = scalar ")?;
                match scalar.of {
                    ScalarOf::Module => write!(f, "module")?,
                    ScalarOf::Optimizer { group: 0 } => write!(f, "optimizer")?,
                    ScalarOf::Optimizer { group } => write!(f, "optimizer group {group}")?,
                    ScalarOf::Loss => write!(f, "loss")?,
                }
                write!(f, " {} {}", scalar.position, scalar.name)?;
            }
        }
        writeln!(f, " : {}", value.ty)
    }

    fn print_node(&self, f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
        let list =
            |ids: &[ValueId]| ids.iter().map(|id| format!("%{id}")).collect::<Vec<_>>().join(" ");
        let types: Vec<_> = node.outputs.iter().map(|&id| self.ty(id).to_string()).collect();
        let attributes = node.op.attributes();
        let space = if attributes.is_empty() { "" } else { " " };
        let name = node.op.name();
        let (outputs, inputs) = (list(&node.outputs), list(&node.inputs));
        write!(f, "{outputs} = {name}{space}{attributes} {inputs} : {}", types.join(", "))?;
        match self.scopes.get(node.scope) {
            Some(scope) if !scope.module.is_empty() => {
                let call =
                    if scope.call > 0 { format!(" call {}", scope.call) } else { String::new() };
                let colon = if scope.path.is_empty() { "" } else { ": " };
                writeln!(f, "  # {}{colon}{}{call}", scope.path, scope.module)
            }
            _ => writeln!(f),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Parameter => f.write_str("parameter"),
            Role::Buffer => f.write_str("buffer"),
            Role::Gradient => f.write_str("gradient"),
            Role::State(state) => write!(f, "state {state}"),
            Role::Steps => f.write_str("steps"),
        }
    }
}
