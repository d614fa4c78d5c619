//! [`Own`]: what the snapshots have of the population's own entity.

use bevy_ecs::prelude::*;
use neurarch_components::column::{ColumnKey, Columns, row, row_mut};
use neurarch_components::saved::CopiedType;

use super::lanes::ValueLane;
use super::marks::{Marks, NONE, Turn};
use super::store::Since;

/// What the snapshots have of the population's own entity: the rows that all models share, and its components.
#[derive(Default)]
pub(super) struct Own {
    rows: Vec<SharedLane>,
    values: Vec<ValueLane>,
}

/// Copies of one row that all models share.
struct SharedLane {
    key: ColumnKey,
    marks: Marks,
    copies: Vec<Vec<u8>>,
}

impl Own {
    /// Finds out which components were changed since `since`.
    pub(super) fn look(
        &mut self,
        world: &World,
        population: Entity,
        (types, depth): (&[CopiedType], usize),
        (since, last): (Since, Option<usize>),
    ) {
        let Ok(entity) = world.get_entity(population) else { return };
        for ty in types.iter().filter(|ty| entity.contains_id(ty.id)) {
            if self.values.iter().all(|lane| lane.ty.id != ty.id) {
                self.values.push(ValueLane::new(0, *ty, false, depth));
            }
        }
        for lane in &mut self.values {
            lane.dirty.clear();
            let ticks = entity.get_change_ticks_by_id(lane.ty.id);
            let is_changed = ticks
                .is_some_and(|ticks| since.is_none_or(|(last, now)| ticks.is_changed(last, now)));
            if is_changed || lane.had(last, 0) != ticks.is_some() {
                lane.dirty.push(0);
            }
        }
    }

    /// Copies the rows, and the components that were changed.
    pub(super) fn save(&mut self, world: &World, population: Entity, turn: Turn, depth: usize) {
        let keys = Columns::shared_of(world, population);
        for key in &keys {
            if self.rows.iter().all(|lane| lane.key != *key) {
                let (marks, copies) = (Marks::new(depth), vec![Vec::new(); depth]);
                self.rows.push(SharedLane { key: *key, marks, copies });
            }
        }
        for lane in &mut self.rows {
            match row(world, population, lane.key) {
                None => lane.marks.forget(turn.to),
                Some(row) => lane.save(turn, row),
            }
        }
        for lane in &mut self.values {
            lane.marks.carry(turn);
            if !lane.dirty.is_empty() {
                lane.save(world, turn, 1, (&[0], &[population]));
            }
        }
    }

    /// Makes the entity what it was at a snapshot; `last` is the last one, since which [`look`](Own::look) said what changed.
    pub(super) fn restore(
        &mut self,
        world: &mut World,
        population: Entity,
        (then, last): (usize, Option<usize>),
        mapper: &mut dyn EntityMapper,
    ) {
        for key in Columns::shared_of(world, population) {
            let lane = self.rows.iter().find(|lane| lane.key == key);
            let known = lane.and_then(|lane| lane.row(then));
            let is_same = known.is_some_and(|known| row(world, population, key) == Some(known));
            if is_same {
                continue;
            }
            if let Some(row) = row_mut(world, population, key) {
                match known {
                    Some(known) => row.copy_from_slice(known),
                    None => row.fill(0),
                }
            }
        }
        for lane in &self.values {
            let marks = |snapshot| lane.marks.at(snapshot, 0);
            let is_other = last.is_none_or(|last| marks(last) != marks(then));
            if let Ok(mut entity) = world.get_entity_mut(population)
                && (is_other || !lane.dirty.is_empty())
            {
                lane.put(then, 0, &mut entity, mapper);
            }
        }
    }

    /// Forgets a snapshot.
    pub(super) fn forget(&mut self, snapshot: usize) {
        self.rows.iter_mut().for_each(|lane| lane.marks.forget(snapshot));
        self.values.iter_mut().for_each(|lane| lane.marks.forget(snapshot));
    }
}

impl SharedLane {
    fn save(&mut self, turn: Turn, row: &[u8]) {
        self.marks.carry(turn);
        let mark = self.marks.at(turn.to, 0);
        if self.copies.get(mark as usize).is_some_and(|known| known == row) {
            return;
        }
        let mut list = self.marks.take(turn.to, 1);
        let before = turn.before.map_or(NONE, |before| self.marks.at(before, 0));
        let mark = self.marks.next(list[0], before, turn.before.is_some());
        let copy = &mut self.copies[mark as usize];
        copy.clear();
        copy.extend_from_slice(row);
        list[0] = mark;
        self.marks.put_back(turn.to, list);
    }

    fn row(&self, snapshot: usize) -> Option<&[u8]> {
        let mark = self.marks.at(snapshot, 0);
        self.copies.get(mark as usize).map(Vec::as_slice)
    }
}
