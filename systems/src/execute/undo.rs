//! [`Undo`]: what a plan is about to write, kept where a hook may fail after it.

use std::sync::Arc;

use bevy_ecs::prelude::*;

use crate::compile::plans::Planned;
use crate::errors::BindError;
use crate::storage::bind::Bound;
use crate::storage::bind::Located;
use crate::storage::gather::gathered;

/// The rows that a plan writes, as they were: slot after slot, member after member.
pub(crate) struct Undo {
    planned: Arc<Planned>,
    rows: Vec<u8>,
    members: usize,
}

impl Undo {
    /// Copies what `planned` is about to write for the members of `at`.
    ///
    /// # Errors
    ///
    /// If a slot has no column.
    pub(crate) fn of(
        world: &mut World,
        at: &mut Located,
        planned: &Arc<Planned>,
    ) -> Result<Self, BindError> {
        let Located { population, group, members, binder, .. } = at;
        let slots = &planned.plan.program.slots;
        let bound = binder.bind(world, *population, *group, members, slots, &[])?;
        Ok(Undo::copy(&bound, planned))
    }

    /// Copies what `planned`, whose slots are bound, is about to write.
    pub(crate) fn copy(bound: &Bound<'_>, planned: &Arc<Planned>) -> Self {
        let mut rows = Vec::new();
        for (number, slot) in planned.written_slots() {
            let bytes = slot.ty.size_bytes();
            let of_members = (0..bound.members()).map(|member| bound.row(number, member, bytes));
            of_members.for_each(|row| rows.extend_from_slice(row));
        }
        Undo { planned: planned.clone(), rows, members: bound.members() }
    }

    /// Keeps the rows of some of the members, by their places, in that order.
    pub(crate) fn select(&mut self, members: &[usize]) {
        let mut rest = self.rows.as_slice();
        let mut rows = Vec::new();
        for (_, slot) in self.planned.written_slots() {
            let bytes = slot.ty.size_bytes();
            let of_slot;
            (of_slot, rest) = rest.split_at(bytes * self.members);
            rows.extend(gathered(of_slot, bytes, members));
        }
        (self.rows, self.members) = (rows, members.len());
    }

    /// Puts everything back, for the same members.
    ///
    /// # Errors
    ///
    /// As [`exchange`](Undo::exchange).
    pub(crate) fn restore(mut self, world: &mut World, at: &mut Located) -> Result<(), BindError> {
        self.exchange(world, at)
    }

    /// Puts everything back, for the same members, and keeps what was there instead.
    ///
    /// # Errors
    ///
    /// If a slot has no column any more. Nothing is put back then.
    pub(crate) fn exchange(
        &mut self,
        world: &mut World,
        at: &mut Located,
    ) -> Result<(), BindError> {
        let Located { population, group, members, binder, .. } = at;
        let Undo { planned, rows, .. } = self;
        let slots = &planned.plan.program.slots;
        let mut bound =
            binder.bind(world, *population, *group, members, slots, &planned.written)?;
        let mut rows = rows.as_mut_slice();
        for (number, slot) in planned.written_slots() {
            for member in 0..members.len() {
                let row;
                (row, rows) = rows.split_at_mut(slot.ty.size_bytes());
                bound.row_mut(number, member, row.len()).swap_with_slice(row);
            }
        }
        Ok(())
    }
}
