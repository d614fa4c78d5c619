//! [`RowLane`] and [`ValueLane`]: what the snapshots have of one column, and of one type of components.

use bevy_ecs::prelude::*;
use neurarch_components::column::ColumnKey;
use neurarch_components::saved::{CopiedType, Copies};
use neurarch_kernels::ir::program::Slot;

use super::marks::{Marks, NONE, Turn};
use crate::storage::bind::Bound;

/// Copies of the rows of one column.
#[derive(Debug)]
pub(super) struct RowLane {
    pub(super) slot: Slot,
    pub(super) key: ColumnKey,
    pub(super) marks: Marks,
    /// The rows of each copy, by seat.
    copies: Vec<Vec<u8>>,
    /// The places of members that were written to since the last snapshot, in order.
    pub(super) dirty: Vec<u32>,
    /// Whether the models have the column now.
    pub(super) is_there: bool,
}

impl RowLane {
    pub(super) fn new(slot: Slot, key: ColumnKey, depth: usize) -> Self {
        let copies = vec![Vec::new(); depth];
        let (marks, dirty) = (Marks::new(depth), Vec::new());
        RowLane { slot, key, marks, copies, dirty, is_there: true }
    }

    /// Copies the rows of the members at the places that are dirty: runs as runs. `seats` are by place.
    pub(super) fn save(
        &mut self,
        turn: Turn,
        seats: &[u32],
        n_seats: usize,
        (bound, slot): (&Bound<'_>, usize),
    ) {
        let width = bound.row_bytes(slot);
        let mut list = self.marks.take(turn.to, n_seats);
        let before = turn.before.map_or(&[][..], |before| self.marks.list(before));
        let next = |list: &[u8], seat: usize| {
            let before_then = before.get(seat).copied().unwrap_or(NONE);
            self.marks.next(list[seat], before_then, turn.before.is_some())
        };
        let mut rest = self.dirty.as_slice();
        while let Some(&first) = rest.first() {
            let seat = seats[first as usize] as usize;
            let mark = next(&list, seat);
            let is_next = |n: &usize| {
                rest[*n] as usize == first as usize + n
                    && seats[rest[*n] as usize] as usize == seat + n
                    && next(&list, seat + n) == mark
            };
            let most = 1 + (1..rest.len()).take_while(is_next).count();
            let rows = bound.run(slot, first as usize, most);
            let count = rows.len() / width.max(1);
            let copy = &mut self.copies[mark as usize];
            if copy.len() < n_seats * width {
                copy.resize(n_seats * width, 0);
            }
            copy[seat * width..][..rows.len()].copy_from_slice(rows);
            list[seat..seat + count].fill(mark);
            rest = &rest[count..];
        }
        self.marks.put_back(turn.to, list);
    }

    /// Returns the row that a seat had at a snapshot; `None` if it had none.
    pub(super) fn row(&self, snapshot: usize, seat: usize) -> Option<&[u8]> {
        let mark = self.marks.at(snapshot, seat);
        let width = self.key.row_bytes();
        self.copies.get(mark as usize)?.get(seat * width..(seat + 1) * width)
    }
}

/// Copies of the components of one type.
pub(super) struct ValueLane {
    /// The position of the entities.
    pub(super) position: usize,
    pub(super) ty: CopiedType,
    /// Whether the type is in tables.
    pub(super) is_in_tables: bool,
    pub(super) marks: Marks,
    copies: Vec<Box<dyn Copies>>,
    /// The places of members whose components were changed, came or went since the last snapshot, in order.
    pub(super) dirty: Vec<u32>,
}

impl ValueLane {
    pub(super) fn new(position: usize, ty: CopiedType, is_in_tables: bool, depth: usize) -> Self {
        let copies = (0..depth).map(|_| (ty.make)()).collect();
        let (marks, dirty) = (Marks::new(depth), Vec::new());
        ValueLane { position, ty, is_in_tables, marks, copies, dirty }
    }

    /// Returns whether a seat had the component at a snapshot.
    pub(super) fn had(&self, snapshot: Option<usize>, seat: usize) -> bool {
        let mark = snapshot.map_or(NONE, |snapshot| self.marks.at(snapshot, seat));
        self.copies.get(mark as usize).is_some_and(|copies| copies.has(seat))
    }

    /// Copies the components of the entities at the places that are dirty.
    pub(super) fn save(
        &mut self,
        world: &World,
        turn: Turn,
        n_seats: usize,
        (seats, entities): (&[u32], &[Entity]),
    ) {
        let mut list = self.marks.take(turn.to, n_seats);
        for &place in &self.dirty {
            let seat = seats[place as usize] as usize;
            let before = turn.before.map_or(NONE, |before| self.marks.at(before, seat));
            let mark = self.marks.next(list[seat], before, turn.before.is_some());
            let Ok(entity) = world.get_entity(entities[place as usize]) else { continue };
            let copies = &mut self.copies[mark as usize];
            copies.make_room(n_seats);
            copies.copy(seat, entity);
            list[seat] = mark;
        }
        self.marks.put_back(turn.to, list);
    }

    /// Makes the component of an entity what its seat had at a snapshot.
    pub(super) fn put(
        &self,
        snapshot: usize,
        seat: usize,
        entity: &mut EntityWorldMut<'_>,
        mapper: &mut dyn EntityMapper,
    ) {
        match self.copies.get(self.marks.at(snapshot, seat) as usize) {
            Some(copies) => copies.put(seat, entity, mapper),
            None => drop(entity.remove_by_id(self.ty.id)),
        }
    }
}
