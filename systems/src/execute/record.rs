//! [`Record`]: what going back through a watched pass takes.

use crate::execute::eager::Recorded;
use crate::execute::hooks::Passed;

/// What a watched forward pass leaves behind.
pub(crate) enum Record {
    /// It was made op by op.
    Eager(Box<Recorded>),
    /// It was made by a plan, and observed.
    Observed(Passed),
}

impl Record {
    /// Keeps some of the members, by their places, in that order.
    pub(crate) fn select(self, members: &[usize]) -> Self {
        match self {
            Record::Eager(recorded) => Record::Eager(Box::new(recorded.select(members))),
            Record::Observed(passed) => Record::Observed(passed.part(members)),
        }
    }

    /// Returns whether its members can go back apart from each other.
    pub(crate) fn can_part(&self) -> bool {
        matches!(self, Record::Observed(passed) if passed.is_each())
    }

    /// Copies what is of some of the members, by their places, in that order; nothing if they can only go back
    /// together.
    pub(crate) fn part(&self, members: &[usize]) -> Option<Self> {
        match self {
            Record::Observed(passed) if passed.is_each() => {
                Some(Record::Observed(passed.part(members)))
            }
            Record::Observed(_) | Record::Eager(_) => None,
        }
    }
}
