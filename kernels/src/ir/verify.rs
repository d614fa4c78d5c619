//! The grammar of programs, checked after every pass in tests and before every plan.

use crate::ir::error::OpError;
use crate::ir::op::claims::Claims;
use crate::ir::program::{Node, Origin, Program, SlotId, ValueId};
use crate::ir::shape::Type;

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
    /// What an op says of its operands cannot be, or a value is too large.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A store names a slot that does not exist.
    #[error("store to slot {slot}, which does not exist")]
    NoSlot {
        /// Its index.
        slot: SlotId,
    },
    /// Two slots are one row.
    #[error("{slot} is a slot twice")]
    SlotTwice {
        /// The slot's name.
        slot: String,
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
    /// shape rule says and can be counted in bytes, every op's claims about memory can be true, every store fits its
    /// slot, and every slot is another row.
    ///
    /// # Errors
    ///
    /// The first breach.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.check_slots()?;
        self.inputs.iter().try_for_each(|ty| ty.checked_size_bytes().map(drop))?;
        let mut there: Vec<bool> = Vec::with_capacity(self.values.len());
        for (value, at) in self.values.iter().enumerate() {
            at.ty.checked_size_bytes()?;
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
        for (index, node) in self.nodes.iter().enumerate() {
            all_there(&there, node.op.name(), &node.inputs)?;
            for (output, &value) in node.outputs.iter().enumerate() {
                let origin = self.values.get(value).map(|value| value.origin);
                if origin != Some(Origin::Node { node: index, output }) {
                    return Err(VerifyError::Origin { value });
                }
                there[value] = true;
            }
            self.check_op(node)?;
        }
        all_there(&there, "return", &self.outputs)?;
        for &(slot, value) in &self.stores {
            all_there(&there, "store", &[value])?;
            self.check_store(slot, value)?;
        }
        Ok(())
    }

    /// Checks that slots have sizes, and are rows of their own.
    fn check_slots(&self) -> Result<(), VerifyError> {
        let mut keys: Vec<_> = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            slot.ty.checked_size_bytes()?;
            keys.push((slot.role, slot.position, slot.index, &slot.name));
        }
        keys.sort_unstable();
        match keys
            .windows(2)
            .find(|pair| (pair[0].0, pair[0].1, pair[0].2) == (pair[1].0, pair[1].1, pair[1].2))
        {
            Some(pair) => Err(VerifyError::SlotTwice { slot: pair[1].3.clone() }),
            None => Ok(()),
        }
    }

    /// Checks that a value, which is there, fits the slot that it is stored to.
    pub(super) fn check_store(&self, slot: SlotId, value: ValueId) -> Result<(), VerifyError> {
        let slot = self.slots.get(slot).ok_or(VerifyError::NoSlot { slot })?;
        if slot.ty == *self.ty(value) {
            return Ok(());
        }
        let (expected, found) = (slot.ty.to_string(), self.ty(value).to_string());
        Err(VerifyError::Store { slot: slot.name.clone(), expected, found })
    }

    fn check_op(&self, node: &Node) -> Result<(), VerifyError> {
        let types = |ids: &[ValueId]| ids.iter().map(|&id| self.ty(id).clone()).collect::<Vec<_>>();
        let (given, found) = (types(&node.inputs), types(&node.outputs));
        let expected = node.op.outputs(&given);
        if expected.as_ref() == Ok(&found) {
            Claims::of(&*node.op, &given, &found)?;
            return Ok(());
        }
        let list =
            |types: Vec<Type>| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
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
