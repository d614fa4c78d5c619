//! [`Placement`]: where the entities of one position lie, found anew only where something moved.
#![expect(unsafe_code, reason = "ticks of rows are read from bevy's tables")]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::{Table, TableId};
use neurarch_kernels::cpu::tile::RowList;

use crate::errors::BindError;
use crate::storage::equal::are_equal;

/// Where the entities of one position lie.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pub(crate) segments: Vec<TableId>,
    /// The row of each member of the group.
    pub(super) rows: RowList,
    /// The same for the members that are bound, if they are a part of the group.
    pub(super) part: RowList,
    pub(super) is_part_right: bool,
    /// Whether this was checked in the present binding.
    pub(super) is_checked: bool,
    /// Whether these rows are known to be apart, and from those of all other placements of which that is known.
    pub(super) is_apart: bool,
    /// The comparison of the rows of several cohorts that these were last in; 0 if they were in none.
    pub(super) compared: AtomicU64,
}

impl Placement {
    /// Makes sure that this says where `modules` lie; cheap if nothing moved.
    pub(super) fn follow(&mut self, world: &World, modules: &[Entity]) -> Result<(), BindError> {
        if !self.is_checked {
            self.update(world, modules)?;
        }
        self.is_checked = true;
        Ok(())
    }

    /// Makes this say where `modules` lie now.
    pub(crate) fn update(&mut self, world: &World, modules: &[Entity]) -> Result<(), BindError> {
        match self.is_right(world, modules) || self.stretch(world, modules) {
            true => Ok(()),
            false => self.find(world, modules),
        }
    }

    /// Takes more or fewer rows, if the rows are one run of a table and `modules` lie there one behind the other: models
    /// come at the end of both lists, and go from both alike. Says whether they do.
    fn stretch(&mut self, world: &World, modules: &[Entity]) -> bool {
        let mut runs = self.rows.runs();
        let (Some((_, (0, first))), None, &[table]) = (runs.next(), runs.next(), &*self.segments)
        else {
            return false;
        };
        drop(runs);
        let table = world.storages().tables.get(table);
        let there = table
            .and_then(|table| table.entities().get(first as usize..first as usize + modules.len()));
        if modules.is_empty() || !there.is_some_and(|there| are_equal(there, modules)) {
            return false;
        }
        self.rows.clear();
        self.part.clear();
        (self.is_part_right, self.is_apart) = (false, false);
        *self.compared.get_mut() = 0;
        self.rows.extend((first..).take(modules.len()).map(|row| (0, row)));
        true
    }

    /// Adds the members' places whose rows in a column were written to after `last`; says whether the column is there.
    pub(crate) fn written(
        &self,
        world: &World,
        column: ComponentId,
        since: (Tick, Tick),
        places: &mut Vec<u32>,
    ) -> bool {
        self.written_where(world, column, since, places) == self.rows.as_slice().len()
    }

    /// [`written`](Placement::written), of the members whose table has the column; gives their number.
    pub(crate) fn written_where(
        &self,
        world: &World,
        column: ComponentId,
        (last, now): (Tick, Tick),
        places: &mut Vec<u32>,
    ) -> usize {
        let mut there = 0;
        for (members, (segment, row)) in self.rows.runs() {
            let table = world.storages().tables.get(self.segments[segment as usize]);
            let ticks = table.and_then(|table| table.get_changed_ticks_slice_for(column));
            let rows = row as usize..row as usize + members.len();
            let Some(ticks) = ticks.and_then(|ticks| ticks.get(rows)) else { continue };
            let is_newer = |tick: &UnsafeCell<Tick>| {
                // SAFETY: who writes ticks borrows the world exclusively, and it is borrowed here.
                unsafe { *tick.get() }.is_newer_than(last, now)
            };
            there += members.len();
            for (part, ticks) in ticks.chunks(PART).enumerate() {
                // Without a branch, so that the compiler compares many at once.
                if ticks.iter().fold(false, |any, tick| any | is_newer(tick)) {
                    let places_of = members.start + part * PART..members.end;
                    let written = ticks.iter().zip(places_of).filter(|(tick, _)| is_newer(tick));
                    places.extend(written.map(|(_, place)| place as u32));
                }
            }
        }
        there
    }

    /// Lists the tables, and which members lie in each, run by run.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (Range<usize>, TableId)> {
        self.rows.runs().map(|(members, (segment, _))| (members, self.segments[segment as usize]))
    }

    /// Returns whether this says where `modules` lie.
    pub(crate) fn is_right(&self, world: &World, modules: &[Entity]) -> bool {
        let tables = &world.storages().tables;
        let entities = |segment: usize| {
            let table = self.segments.get(segment).and_then(|&table| tables.get(table));
            table.map(Table::entities).unwrap_or_default()
        };
        let is_there = |(members, (segment, row)): (Range<usize>, (u32, u32))| {
            let there = entities(segment as usize).get(row as usize..row as usize + members.len());
            there.is_some_and(|there| are_equal(there, &modules[members]))
        };
        self.rows.as_slice().len() == modules.len() && self.rows.runs().all(is_there)
    }

    /// Finds out where `modules` lie.
    pub(crate) fn find(&mut self, world: &World, modules: &[Entity]) -> Result<(), BindError> {
        self.segments.clear();
        self.rows.clear();
        self.part.clear();
        (self.is_part_right, self.is_apart) = (false, false);
        *self.compared.get_mut() = 0;
        locate(world, modules.iter().copied(), &mut self.segments, &mut self.rows)
    }

    /// Makes sure that this says where the members at `places` lie, and looks at no others: a model that runs
    /// apart from its population costs what it costs alone.
    pub(super) fn follow_few(
        &mut self,
        world: &World,
        modules: &[Entity],
        places: &[u32],
    ) -> Result<(), BindError> {
        let members = || places.iter().map(|&place| modules[place as usize]);
        if !(self.is_checked || self.is_part_right && self.is_part_at(world, members())) {
            // The rows of the others are not known any more.
            self.rows.clear();
            self.segments.clear();
            self.part.clear();
            self.is_apart = false;
            *self.compared.get_mut() = 0;
            locate(world, members(), &mut self.segments, &mut self.part)?;
            self.is_part_right = true;
        }
        self.is_checked = true;
        Ok(())
    }

    /// Returns whether the listed part says where these entities lie.
    fn is_part_at(&self, world: &World, members: impl Iterator<Item = Entity>) -> bool {
        let tables = &world.storages().tables;
        let entity = |&(segment, row): &(u32, u32)| {
            let table = tables.get(*self.segments.get(segment as usize)?)?;
            table.entities().get(row as usize).copied()
        };
        self.part.as_slice().iter().map(entity).eq(members.map(Some))
    }

    /// Lists the rows of the members at `places`, unless they are listed already.
    pub(super) fn follow_part(&mut self, places: &[u32]) {
        if self.is_part_right {
            return;
        }
        self.part.clear();
        *self.compared.get_mut() = 0;
        let rows = self.rows.as_slice();
        self.part.extend(places.iter().map(|&place| rows[place as usize]));
        self.is_part_right = true;
    }
}

/// Ticks that are compared at once.
const PART: usize = 64;

/// Finds out where entities lie: adds their tables to `segments`, and a pair (segment, row) each to `rows`.
fn locate(
    world: &World,
    entities: impl Iterator<Item = Entity>,
    segments: &mut Vec<TableId>,
    rows: &mut RowList,
) -> Result<(), BindError> {
    for entity in entities {
        let location = world.entities().get_spawned(entity);
        let location = location.map_err(|_| BindError::Despawned(entity))?;
        let known = segments.iter().rposition(|&table| table == location.table_id);
        let segment = known.unwrap_or_else(|| {
            segments.push(location.table_id);
            segments.len() - 1
        });
        rows.push((segment as u32, location.table_row.index_u32()));
    }
    Ok(())
}

/// Members that are fewer than one in this many of their group are looked up one by one: each costs more than
/// a comparison of lists, which all of the group would take.
pub(crate) const FEW: usize = 8;

/// Finds a row that is listed twice.
pub(super) fn overlap<'a>(
    placements: impl Iterator<Item = &'a Placement>,
) -> Option<(TableId, u32)> {
    listed_twice(placements.map(|at| {
        let is_few = at.rows.as_slice().is_empty() && at.is_part_right;
        (at, if is_few { &at.part } else { &at.rows })
    }))
}

/// Finds a row that is in two of the lists, or twice in one.
pub(super) fn listed_twice<'a>(
    lists: impl Iterator<Item = (&'a Placement, &'a RowList)>,
) -> Option<(TableId, u32)> {
    let runs = lists.flat_map(|(at, list)| {
        list.runs().map(|(members, (segment, row))| {
            (at.segments[segment as usize], row, members.len() as u32)
        })
    });
    let mut runs: Vec<_> = runs.collect();
    runs.sort_unstable_by_key(|&(table, row, _)| (table.as_u32(), row));
    let is_twice =
        |pair: &&[(TableId, u32, u32)]| pair[0].0 == pair[1].0 && pair[0].1 + pair[0].2 > pair[1].1;
    runs.windows(2).find(is_twice).map(|pair| (pair[1].0, pair[1].1))
}

/// Returns the entity in a row of a table.
pub(super) fn entity_at(world: &World, (table, row): (TableId, u32)) -> Entity {
    let table = world.storages().tables.get(table);
    let entity = table.and_then(|table| table.entities().get(row as usize).copied());
    entity.unwrap_or(Entity::PLACEHOLDER)
}
