//! [`Undo`]: what a plan is about to write, kept where a hook may fail after it.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use rayon::prelude::*;

use crate::compile::plans::Planned;
use crate::errors::BindError;
use crate::storage::bind::Bound;
use crate::storage::bind::Located;
use crate::storage::gather::gathered;

/// Bytes that are worth a thread's while.
const LEAST_PART: usize = 1 << 16;

/// The rows that a plan writes, as they were: member after member, slot after slot.
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
        Ok(Undo::copy(&bound, planned, Vec::new()))
    }

    /// Copies what `planned`, whose slots are bound, is about to write, into memory that is there.
    pub(crate) fn copy(bound: &Bound<'_>, planned: &Arc<Planned>, mut rows: Vec<u8>) -> Self {
        let members = bound.members();
        let slots: Vec<_> =
            planned.written_slots().map(|(number, slot)| (number, slot.ty.size_bytes())).collect();
        let row_bytes: usize = slots.iter().map(|(_, bytes)| bytes).sum();
        rows.resize(row_bytes * members, 0);
        let copy = |member: usize, mut row: &mut [u8]| {
            for &(slot, bytes) in &slots {
                let to;
                (to, row) = row.split_at_mut(bytes);
                to.copy_from_slice(bound.row(slot, member, bytes));
            }
        };
        let least = (LEAST_PART / row_bytes.max(1)).max(1);
        let copy_all = |start: usize, rows: &mut [u8]| {
            let rows = rows.chunks_exact_mut(row_bytes.max(1));
            (start..).zip(rows).for_each(|(member, row)| copy(member, row));
        };
        match members <= least {
            true => copy_all(0, &mut rows),
            false => {
                let parts = rows.par_chunks_mut((least * row_bytes).max(1)).enumerate();
                parts.for_each(|(part, rows)| copy_all(part * least, rows));
            }
        }
        Undo { planned: planned.clone(), rows, members }
    }

    /// Copies the rows of some of the members, by their places, in that order.
    pub(crate) fn part(&self, members: &[usize]) -> Undo {
        let rows = gathered(&self.rows, self.rows.len() / self.members.max(1), members);
        Undo { planned: self.planned.clone(), rows, members: members.len() }
    }

    /// Leaves its memory.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.rows
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
        for member in 0..members.len() {
            for (number, slot) in planned.written_slots() {
                let row;
                (row, rows) = rows.split_at_mut(slot.ty.size_bytes());
                bound.row_mut(number, member, row.len()).swap_with_slice(row);
            }
        }
        Ok(())
    }
}
