//! Recordings that only go on from what is on them, and repeating on one what was recorded on another.

use super::{Trace, Var};
use crate::ir::program::Origin;

/// What a closed recording says to slots and scalars.
pub(super) const CLOSED: &str = "a hook can only compute with what it is given";

impl Trace {
    /// Refuses, while `run` runs, slots and scalars: only what the recording holds can be computed with, and
    /// arrays and numbers that come with it.
    pub fn closed<R>(&self, run: impl FnOnce() -> R) -> R {
        self.0.borrow_mut().is_closed = true;
        let result = run();
        self.0.borrow_mut().is_closed = false;
        result
    }

    /// Records here what `wanted`, values of another recording, were made of there. Each pair of `known` is a
    /// value of that recording, and what stands for it here.
    ///
    /// The other recording has to be a computed one that was [closed](Trace::closed): what it was not given stands
    /// for nothing here.
    pub fn repeat(&self, known: &[(Var, Var)], wanted: &[Var]) -> Vec<Var> {
        let Some(there) = wanted.first().map(|var| var.trace.clone()) else { return Vec::new() };
        let place = |var: &Var| var.id.filter(|_| there.owns(var));
        let program = there.program();
        let mut here: Vec<Option<Var>> = vec![None; program.values.len()];
        for (of, var) in known {
            if let Some(id) = place(of) {
                here[id] = Some(var.clone());
            }
        }
        let mut is_needed = vec![false; program.values.len()];
        wanted.iter().filter_map(place).for_each(|id| is_needed[id] = true);
        for node in program.nodes.iter().rev() {
            if node.outputs.iter().any(|&id| is_needed[id] && here[id].is_none()) {
                node.inputs.iter().for_each(|&id| is_needed[id] = true);
            }
        }
        for (id, value) in program.values.iter().enumerate() {
            if !is_needed[id] || here[id].is_some() {
                continue;
            }
            match value.origin {
                Origin::Input(_) => here[id] = there.var(id).copied_to(self),
                Origin::Constant(_) => {
                    let number = self.0.borrow_mut().number(self, value.ty.clone(), value.origin);
                    here[id] = Some(number);
                }
                Origin::Node { node, .. } => {
                    let node = &program.nodes[node];
                    let inputs = node.inputs.iter().filter_map(|&id| here[id].as_ref());
                    let inputs: Vec<_> = inputs.collect();
                    if inputs.len() < node.inputs.len() {
                        continue;
                    }
                    let made = self.record(node.op.clone(), &inputs, node.outputs.len());
                    for (&output, var) in node.outputs.iter().zip(made) {
                        here[output].get_or_insert(var);
                    }
                }
                Origin::Slot(_) | Origin::Scalar(_) => {}
            }
        }
        let found = |var: &Var| here[place(var)?].clone();
        wanted.iter().map(|var| found(var).unwrap_or_else(|| self.poison())).collect()
    }
}

impl Var {
    /// Makes an input of another recording of the numbers of this value.
    fn copied_to(&self, trace: &Trace) -> Option<Var> {
        let values = self.trace.values()?;
        let (ty, bytes) = values.read_bytes(self.id?).ok()?;
        let row = ty.size_bytes();
        let rows = (0..values.models()).map(|model| &bytes[model * row..][..row]);
        Some(trace.input_of_rows(ty.clone(), rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::dtype::Dtype;
    use crate::ir::eager::Eager;
    use crate::ir::program::{Role, Slot};
    use crate::ir::shape::Type;

    #[test]
    fn what_one_recording_made_of_a_value_another_makes_of_its_own() {
        let [there, here] = [2, 2].map(|models| Trace::eager(Eager::new(models, Vec::new())));
        let x = there.input_of::<f32>([2], &[1.0, 2.0, 3.0, 4.0]);
        let own = there.input_of::<f32>([2], &[10.0, 20.0, 30.0, 40.0]);
        let ignored = x.square();
        let y = &(&x * 3.0) + &own;
        let z = &y - &x;
        let other = here.input_of::<f32>([2], &[0.0, 1.0, 0.0, 1.0]);
        let before = here.program().nodes.len();
        let made = here.repeat(&[(x, other)], &[z, y]);
        assert_eq!(made[0].read::<f32>().unwrap(), [10.0, 22.0, 30.0, 42.0]);
        assert_eq!(made[1].read::<f32>().unwrap(), [10.0, 23.0, 30.0, 43.0]);
        assert!(ignored.id().is_some());
        assert_eq!(here.program().nodes.len(), before + 3, "what nobody wants is not repeated");
    }

    #[test]
    fn a_closed_recording_refuses_what_it_does_not_hold() {
        let trace = Trace::eager(Eager::new(1, Vec::new()));
        let ty = Type::new(Dtype::F32, [2]);
        let slot = Slot { name: "weight".into(), role: Role::Parameter, position: 0, index: 0, ty };
        let held = trace.slot(slot.clone());
        assert!(trace.closed(|| trace.slot(slot.clone())).id() == held.id());
        assert!(trace.closed(|| trace.slot(Slot { index: 1, ..slot.clone() })).id().is_none());
        assert_eq!(trace.error().unwrap().message, CLOSED);
    }
}
