//! [`Store`]: what the snapshots have of the models of one structure.

use std::sync::Arc;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::{ComponentId, StorageType};
use bevy_ecs::prelude::*;
use bevy_ecs::storage::{Table, TableId};
use neurarch_components::column::Columns;
use neurarch_components::population::Population;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::group::Group;
use neurarch_components::saved::CopiedType;
use neurarch_kernels::ir::program::Slot;

use super::lanes::{RowLane, ValueLane};
use super::marks::Turn;
use crate::errors::BindError;
use crate::storage::bind::{Binder, Placement};
use crate::storage::members::{Members, listed};

/// A model that snapshots have rows of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) root: Entity,
    pub(super) number: u64,
    /// Whether no snapshot has it yet, or it was just made anew.
    pub(super) is_fresh: bool,
    pub(super) is_free: bool,
}

/// What the snapshots have of the models of one structure. Each model has a seat for as long as a snapshot has it.
#[derive(Default)]
pub(super) struct Store {
    /// The structure's number, which no other ever has.
    pub(super) generation: u64,
    /// By number of the seat.
    pub(super) seats: Vec<Seat>,
    /// Seats of no model.
    pub(super) free: Vec<u32>,
    /// The seats of the group's members, by place.
    pub(super) of_place: Vec<u32>,
    /// Where the entities of each position lie.
    placements: Vec<Placement>,
    contents: Vec<Arc<Contents>>,
    members: Members,
    pub(super) rows: Vec<RowLane>,
    pub(super) values: Vec<ValueLane>,
    /// How many types there were when the values were listed.
    n_types: usize,
    binder: Binder,
    /// The slots of the columns that are there, and which of `rows` they are of.
    slots: Vec<Slot>,
    lane_of: Vec<usize>,
}

/// When something was last looked at, and the present tick; `None` if everything counts as new.
pub(super) type Since = Option<(Tick, Tick)>;

/// What of a population is looked at.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) population: Entity,
    /// The group's place in it.
    pub(super) group: usize,
    pub(super) types: &'a [CopiedType],
    pub(super) depth: usize,
}

/// Finds a group of a population.
pub(super) fn group_of<'w>(world: &'w World, of: Of<'_>) -> Result<&'w Group, BindError> {
    let found = world.get::<Population>(of.population);
    let group = found.and_then(|found| found.groups().get(of.group));
    group.ok_or(BindError::NoSuchGroup(of.population))
}

impl Store {
    /// Makes one for the models of a structure.
    pub(super) fn new(generation: u64) -> Self {
        Store { generation, ..Store::default() }
    }

    /// Gives a model a seat.
    pub(super) fn seat(&mut self, root: Entity, number: u64) -> u32 {
        let seat = Seat { root, number, is_fresh: true, is_free: false };
        match self.free.pop() {
            Some(free) => {
                self.seats[free as usize] = seat;
                free
            }
            None => {
                self.seats.push(seat);
                self.seats.len() as u32 - 1
            }
        }
    }

    /// Says which models are members of the group: their seats, by place.
    pub(super) fn sit(&mut self, group: &Group, models: usize, seats: impl Iterator<Item = u32>) {
        self.of_place.clear();
        self.of_place.extend(seats);
        let is_all = group.members.len() == models;
        self.members = if is_all { Members::all(models) } else { listed(models, &group.members) };
    }

    /// Finds out which rows and components were changed since `since`: `dirty` of each lane. `last` is the last snapshot.
    pub(super) fn look(
        &mut self,
        world: &World,
        of: Of<'_>,
        since: Since,
        last: Option<usize>,
    ) -> Result<(), BindError> {
        let group = group_of(world, of)?;
        self.follow_contents(group, of.depth);
        self.placements.resize_with(group.modules.len(), Placement::default);
        let fresh: Vec<u32> = self.fresh().collect();
        for (position, modules) in group.modules.iter().enumerate() {
            let placement = &mut self.placements[position];
            let has_moved = !placement.is_right(world, modules);
            if has_moved {
                placement.update(world, modules)?;
            }
            let at = Look { world, since, modules, placement, has_moved };
            for lane in self.rows.iter_mut().filter(|lane| lane.slot.position == position) {
                lane.dirty.clear();
                let id = Columns::find(world, lane.key).filter(|_| lane.is_there);
                if let Some(id) = id {
                    at.rows(id, &mut lane.dirty);
                    add(&mut lane.dirty, &fresh);
                }
            }
            if has_moved || self.n_types != of.types.len() {
                for ty in of.types {
                    let is_of = |lane: &ValueLane| (lane.position, lane.ty.id) == (position, ty.id);
                    if !self.values.iter().any(is_of)
                        && let Some(is_in_tables) = at.may_have(ty.id)
                    {
                        self.values.push(ValueLane::new(position, *ty, is_in_tables, of.depth));
                    }
                }
            }
            for lane in self.values.iter_mut().filter(|lane| lane.position == position) {
                let mut dirty = std::mem::take(&mut lane.dirty);
                dirty.clear();
                match lane.is_in_tables {
                    true => at.values(lane, &self.of_place, last, &mut dirty),
                    false => at.sparse(lane, &self.of_place, last, &mut dirty),
                }
                add(&mut dirty, &fresh);
                lane.dirty = dirty;
            }
        }
        self.n_types = of.types.len();
        Ok(())
    }

    /// Copies what is dirty.
    pub(super) fn save(
        &mut self,
        world: &mut World,
        of: Of<'_>,
        turn: Turn,
    ) -> Result<(), BindError> {
        let n_seats = self.seats.len();
        self.rows.iter_mut().for_each(|lane| match lane.is_there {
            true => lane.marks.carry(turn),
            false => lane.marks.forget(turn.to),
        });
        if self.rows.iter().any(|lane| !lane.dirty.is_empty()) {
            let Store { binder, members, slots, lane_of, rows, of_place, .. } = self;
            let bound = binder.bind(world, of.population, of.group, members, slots, &[])?;
            for (slot, &lane) in lane_of.iter().enumerate() {
                let lane = &mut rows[lane];
                if !lane.dirty.is_empty() {
                    lane.save(turn, of_place, n_seats, (&bound, slot));
                }
            }
        }
        let group = group_of(world, of)?;
        for lane in &mut self.values {
            lane.marks.carry(turn);
            if !lane.dirty.is_empty() {
                let entities = &group.modules[lane.position];
                lane.save(world, turn, n_seats, (&self.of_place, entities));
            }
        }
        self.settle();
        Ok(())
    }

    /// Says that what there is of the models that are there is known.
    pub(super) fn settle(&mut self) {
        for &seat in &self.of_place {
            self.seats[seat as usize].is_fresh = false;
        }
    }

    /// Lists the places of members that no snapshot has yet.
    fn fresh(&self) -> impl Iterator<Item = u32> + '_ {
        let places = self.of_place.iter().zip(0..);
        places.filter(|(seat, _)| self.seats[**seat as usize].is_fresh).map(|(_, place)| place)
    }

    /// Makes the models of the group what they were at a snapshot; `last` is the last one, since which
    /// [`look`](Store::look) said what changed.
    pub(super) fn restore(
        &mut self,
        world: &mut World,
        of: Of<'_>,
        (then, last): (usize, Option<usize>),
        mapper: &mut dyn EntityMapper,
    ) -> Result<(), BindError> {
        let seats = &self.of_place;
        for lane in &mut self.rows {
            let marks = &lane.marks;
            let is_other = |place: &u32| {
                let seat = seats[*place as usize] as usize;
                let now = last.map(|last| marks.at(last, seat));
                now != Some(marks.at(then, seat))
            };
            let others: Vec<u32> = (0..seats.len() as u32).filter(is_other).collect();
            add(&mut lane.dirty, &others);
        }
        let needed: Vec<bool> =
            self.lane_of.iter().map(|&lane| !self.rows[lane].dirty.is_empty()).collect();
        if needed.contains(&true) {
            let Store { binder, members, slots, lane_of, rows, of_place, .. } = self;
            let mut bound = binder.bind(world, of.population, of.group, members, slots, &needed)?;
            for (slot, &lane) in lane_of.iter().enumerate() {
                let lane = &rows[lane];
                let bytes = lane.key.row_bytes();
                for &place in &lane.dirty {
                    let row = bound.row_mut(slot, place as usize, bytes);
                    match lane.row(then, of_place[place as usize] as usize) {
                        Some(known) => row.copy_from_slice(known),
                        // It came later, with zeros.
                        None => row.fill(0),
                    }
                }
            }
        }
        let modules = group_of(world, of)?.modules.clone();
        for lane in &mut self.values {
            let (marks, seats) = (&lane.marks, &self.of_place);
            let is_other = |place: &u32| {
                let seat = seats[*place as usize] as usize;
                last.is_none_or(|last| marks.at(last, seat) != marks.at(then, seat))
            };
            let others: Vec<u32> = (0..seats.len() as u32).filter(is_other).collect();
            add(&mut lane.dirty, &others);
            for &place in &lane.dirty {
                let Some(&entity) = modules[lane.position].get(place as usize) else { continue };
                if let Ok(mut entity) = world.get_entity_mut(entity) {
                    lane.put(then, seats[place as usize] as usize, &mut entity, mapper);
                }
            }
        }
        self.settle();
        Ok(())
    }

    /// Lists the slots of columns that the models had at a snapshot.
    pub(super) fn slots_at(&self, snapshot: usize) -> Vec<Slot> {
        let had = self.rows.iter().filter(|lane| lane.marks.has(snapshot));
        had.map(|lane| lane.slot.clone()).collect()
    }

    /// Forgets a snapshot.
    pub(super) fn forget(&mut self, snapshot: usize) {
        self.rows.iter_mut().for_each(|lane| lane.marks.forget(snapshot));
        self.values.iter_mut().for_each(|lane| lane.marks.forget(snapshot));
    }

    /// Lists the columns anew if they are others.
    fn follow_contents(&mut self, group: &Group, depth: usize) {
        let same = self.contents.iter().zip(&group.contents).all(|(a, b)| Arc::ptr_eq(a, b));
        if same && self.contents.len() == group.contents.len() {
            return;
        }
        self.contents.clone_from(&group.contents);
        self.rows.iter_mut().for_each(|lane| lane.is_there = false);
        (self.slots, self.lane_of) = (Vec::new(), Vec::new());
        for slot in group.contents.iter().flat_map(|contents| contents.slots()) {
            let key = group.key(&slot);
            let place = |slot: &Slot| (slot.position, slot.role, slot.index);
            let is_of = |lane: &RowLane| place(&lane.slot) == place(&slot) && lane.key == key;
            let lane = self.rows.iter().position(is_of).unwrap_or_else(|| {
                self.rows.push(RowLane::new(slot.clone(), key, depth));
                self.rows.len() - 1
            });
            self.rows[lane].is_there = true;
            self.slots.push(slot);
            self.lane_of.push(lane);
        }
    }
}

/// A look at the entities of one position, to find out what changed.
struct Look<'a> {
    world: &'a World,
    since: Since,
    modules: &'a [Entity],
    placement: &'a Placement,
    /// Whether rows are elsewhere than at the last look.
    has_moved: bool,
}

impl Look<'_> {
    fn table(&self, table: TableId) -> Option<&Table> {
        self.world.storages().tables.get(table)
    }

    fn has(&self, table: TableId, id: ComponentId) -> bool {
        self.table(table).is_some_and(|table| table.has_column(id))
    }

    /// Returns whether a component or column may have been written to: of any entity.
    fn is_new(&self, id: ComponentId, (last, now): (Tick, Tick)) -> bool {
        let is_newer = |table| {
            let tick = self.table(table).and_then(|table| table.get_summary_tick(id));
            tick.is_none_or(|tick| tick.get().is_newer_than(last, now))
        };
        self.has_moved || self.placement.tables().any(|(_, table)| is_newer(table))
    }

    /// Lists all places.
    fn all(&self, dirty: &mut Vec<u32>) {
        dirty.clear();
        dirty.extend(0..self.modules.len() as u32);
    }

    /// Lists the places whose rows in a column were written to.
    fn rows(&self, id: ComponentId, dirty: &mut Vec<u32>) {
        match self.since {
            None => self.all(dirty),
            Some(since) if !self.is_new(id, since) => {}
            Some(since) => {
                if !self.placement.written(self.world, id, since, dirty) {
                    self.all(dirty);
                }
            }
        }
    }

    /// Says whether the entities may have components of a type, and whether these are in tables then.
    fn may_have(&self, id: ComponentId) -> Option<bool> {
        let storage = self.world.components().get_info(id)?.storage_type();
        let is_in_tables = storage == StorageType::Table;
        let is_there = || self.placement.tables().any(|(_, table)| self.has(table, id));
        (!is_in_tables || is_there()).then_some(is_in_tables)
    }

    /// Lists the places whose components were changed, came or went, which are in tables.
    fn values(&self, lane: &ValueLane, seats: &[u32], last: Option<usize>, dirty: &mut Vec<u32>) {
        let Some(since) = self.since else { return self.all(dirty) };
        if self.is_new(lane.ty.id, since) {
            self.placement.written_where(self.world, lane.ty.id, since, dirty);
        }
        for (members, table) in self.placement.tables().filter(|_| self.has_moved) {
            let has = self.has(table, lane.ty.id);
            let is_other = |place: &usize| lane.had(last, seats[*place] as usize) != has;
            dirty.extend(members.filter(is_other).map(|place| place as u32));
        }
    }

    /// Lists the places whose components were changed, came or went, which are in no table.
    fn sparse(&self, lane: &ValueLane, seats: &[u32], last: Option<usize>, dirty: &mut Vec<u32>) {
        let set = self.world.storages().sparse_sets.get(lane.ty.id);
        if set.is_none_or(|set| set.is_empty()) && !last.is_some_and(|last| lane.marks.has(last)) {
            return;
        }
        for (place, (&module, &seat)) in self.modules.iter().zip(seats).enumerate() {
            let Ok(entity) = self.world.get_entity(module) else { continue };
            let had = lane.had(last, seat as usize);
            let is_changed = match (entity.get_change_ticks_by_id(lane.ty.id), self.since) {
                (Some(ticks), Some((last, now))) => !had || ticks.is_changed(last, now),
                (Some(_), None) => true,
                (None, _) => had,
            };
            if is_changed {
                dirty.push(place as u32);
            }
        }
    }
}

/// Adds places to a list of places, each once and in order.
fn add(list: &mut Vec<u32>, others: &[u32]) {
    if !others.is_empty() {
        list.extend_from_slice(others);
    }
    if !list.is_sorted_by(|a, b| a < b) {
        list.sort_unstable();
        list.dedup();
    }
}
