//! The grammar of programs, checked after every pass in tests and before every plan.

use super::{Origin, Program, ValueId};

/// How a program breaks the grammar: always a bug of a pass or of an op, never of a user's numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A node, an output or a store names a value that does not exist or is made later.
    #[error("{what} uses %{value}, which is not there yet")]
    NotThereYet {
        /// Who uses it.
        what: String,
        /// The value.
        value: ValueId,
    },
    /// A value says that it comes from somewhere that does not know it.
    #[error("%{value} has no such origin")]
    Origin {
        /// The value.
        value: ValueId,
    },
    /// An op's shape rule disagrees with the types in the program.
    #[error("{op}: expected {expected}, found {found}")]
    Types {
        /// The op's name.
        op: &'static str,
        /// What its shape rule says.
        expected: String,
        /// What the program says.
        found: String,
    },
    /// A store's value does not fit its slot.
    #[error("store to {slot}: expected {expected}, found {found}")]
    Store {
        /// The slot's name.
        slot: String,
        /// The slot's type.
        expected: String,
        /// The value's type.
        found: String,
    },
}

impl Program {
    /// Checks the grammar: every value is made once and before it is used, every type is what the op's
    /// shape rule says, every store fits its slot.
    ///
    /// # Errors
    ///
    /// The first breach.
    pub fn verify(&self) -> Result<(), VerifyError> {
        let mut there: Vec<bool> = Vec::with_capacity(self.values.len());
        for (value, at) in self.values.iter().enumerate() {
            there.push(!matches!(at.origin, Origin::Node { .. }));
            let known = match at.origin {
                Origin::Input(input) => self.inputs.get(input) == Some(&at.ty),
                Origin::Slot(slot) => self.slots.get(slot).is_some_and(|slot| slot.ty == at.ty),
                Origin::Scalar(scalar) => scalar < self.scalars.len() && at.ty.shape.rank() == 0,
                Origin::Constant(_) => true,
                Origin::Node { node, output } => {
                    self.nodes.get(node).and_then(|node| node.outputs.get(output)) == Some(&value)
                }
            };
            if !known {
                return Err(VerifyError::Origin { value });
            }
        }
        for node in &self.nodes {
            all_there(&there, node.op.name(), &node.inputs)?;
            self.check_types(node)?;
            for &output in &node.outputs {
                there[output] = true;
            }
        }
        all_there(&there, "return", &self.outputs)?;
        for &(slot, value) in &self.stores {
            all_there(&there, "store", &[value])?;
            let slot = &self.slots[slot];
            if slot.ty != *self.ty(value) {
                let (expected, found) = (slot.ty.to_string(), self.ty(value).to_string());
                return Err(VerifyError::Store { slot: slot.name.clone(), expected, found });
            }
        }
        Ok(())
    }

    fn check_types(&self, node: &super::Node) -> Result<(), VerifyError> {
        let types = |ids: &[ValueId]| ids.iter().map(|&id| self.ty(id).clone()).collect::<Vec<_>>();
        let found = types(&node.outputs);
        let expected = node.op.outputs(&types(&node.inputs));
        if expected.as_ref() == Ok(&found) {
            return Ok(());
        }
        let list = |types: Vec<crate::shape::Type>| {
            types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let expected = expected.map_or_else(|error| error.to_string(), list);
        Err(VerifyError::Types { op: node.op.name(), expected, found: list(found) })
    }
}

fn all_there(there: &[bool], what: &str, values: &[ValueId]) -> Result<(), VerifyError> {
    match values.iter().find(|&&value| there.get(value) != Some(&true)) {
        None => Ok(()),
        Some(&value) => Err(VerifyError::NotThereYet { what: what.to_owned(), value }),
    }
}
