//! Binding: where the rows of a group's columns lie right now, for the kernels.
//!
//! Nothing is assumed about where bevy keeps an entity's row: each binding compares the tables' lists of
//! entities with the group's, and where a tag, a despawn or an edit moved something, lists the rows anew.
#![expect(unsafe_code, reason = "addresses of columns are taken from bevy's tables")]

use bevy_ecs::prelude::*;
use bevy_ecs::storage::{TableId, TableRow};
use neurarch_components::column::{ColumnKey, Columns};
use neurarch_components::population::{Group, Population};
use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::program::{Role, Slot};
use nonmax::NonMaxU32;

use crate::launch::Members;

/// Why rows cannot be bound: a bug of whoever asks, since `sign::refresh` keeps columns and blueprints
/// together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The entity is no population, or the group is none of its groups.
    #[error("{0} is not a population with this group")]
    NoSuchGroup(Entity),
    /// A module's entity is gone.
    #[error("module {0} was despawned")]
    Despawned(Entity),
    /// A module has no column for a slot.
    #[error("{slot}: no {role} column")]
    NoColumn {
        /// The slot's dotted name.
        slot: String,
        /// What the column would be for.
        role: Role,
    },
}

/// What is remembered from one binding of a group to the next. It holds no addresses.
#[derive(Debug, Default)]
pub struct Binder {
    positions: Vec<Placement>,
    /// For each slot: the listed rows of a part of the members. Used again at each binding.
    some_rows: Vec<Vec<(u32, u32)>>,
    segments: Vec<*mut u8>,
    bound: Vec<Row>,
}

// SAFETY: the addresses in a binder are scratch: they are written and read within one call of `bind` and
// the life of its result, which borrows the world.
unsafe impl Send for Binder {}
// SAFETY: as above.
unsafe impl Sync for Binder {}

const FIRST_ROW: TableRow = TableRow::new(NonMaxU32::ZERO);

/// Where the entities of one position lie.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pub(crate) segments: Vec<TableId>,
    /// Rows of members, by member: all in one table and in order from the first row, if `in_order`.
    rows: Vec<(u32, u32)>,
    in_order: bool,
    /// Whether this was checked in the present binding.
    followed: bool,
}

/// A bound slot, before its addresses are put together.
#[derive(Clone, Copy, Debug)]
struct Row {
    base: *mut u8,
    stride: usize,
    /// Where its segments start in [`Binder::segments`], and how many there are; none if in order.
    segments: (usize, usize),
    position: usize,
}

/// The rows of some slots. It borrows the world, so nothing moves while it lives.
pub struct Bound<'a> {
    binder: &'a Binder,
    some: bool,
}

impl Bound<'_> {
    /// Counts the slots.
    pub fn len(&self) -> usize {
        self.binder.bound.len()
    }

    /// Says whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.binder.bound.is_empty()
    }

    /// Gives the rows of slot `slot`, by member.
    pub fn rows(&self, slot: usize) -> Rows<'_> {
        let Binder { positions, some_rows, segments, bound } = self.binder;
        let Row { base, stride, segments: (first, count), position } = bound[slot];
        if !self.some && count == 0 {
            return Rows::Strided { base, stride };
        }
        let rows = if self.some { &some_rows[slot] } else { &positions[position].rows };
        Rows::Listed { segments: &segments[first..first + count], stride, rows, offset: 0 }
    }
}

impl Binder {
    /// Binds `slots` for the members of a group. Those that `written` marks are marked as changed.
    ///
    /// `members` are indices in the population, all of them indices of members of the group.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind<'a>(
        &'a mut self,
        world: &'a mut World,
        population: Entity,
        group: usize,
        members: &Members,
        slots: &[Slot],
        written: &[bool],
    ) -> Result<Bound<'a>, BindError> {
        let world: &World = world;
        let groups =
            world.get::<Population>(population).map(Population::groups).unwrap_or_default();
        let group = groups.get(group).ok_or(BindError::NoSuchGroup(population))?;
        self.positions.resize_with(group.modules.len(), Placement::default);
        let some = members.len() != group.members.len();
        self.bound.clear();
        self.segments.clear();
        self.some_rows.resize_with(slots.len(), Vec::new);
        self.positions.iter_mut().for_each(|placement| placement.followed = false);
        for (number, slot) in slots.iter().enumerate() {
            self.positions[slot.position].follow(world, &group.modules[slot.position])?;
            self.bind_slot(world, group, slot, written.get(number) == Some(&true))?;
            if some {
                self.list_some(number, group, members);
            }
        }
        Ok(Bound { binder: self, some })
    }

    fn bind_slot(
        &mut self,
        world: &World,
        group: &Group,
        slot: &Slot,
        written: bool,
    ) -> Result<(), BindError> {
        let no_column = || BindError::NoColumn { slot: slot.name.clone(), role: slot.role };
        let key = ColumnKey::of(slot);
        let id = world.get_resource::<Columns>().and_then(|columns| columns.find(key));
        let id = id.ok_or_else(no_column)?;
        let placement = &self.positions[slot.position];
        let first = self.segments.len();
        for &table in &placement.segments {
            let column = world.storages().tables.get(table).and_then(|table| table.get_column(id));
            let column = column.ok_or_else(no_column)?;
            if written && let Some(tick) = column.get_summary_tick() {
                tick.set(world.read_change_tick());
            }
            // SAFETY: the segment's table has at least one row, for a member lies in it. The address is
            // of plain bytes; the world is borrowed exclusively while the result of `bind` lives, so
            // whoever writes there is alone.
            let row = unsafe { column.get_data_unchecked(FIRST_ROW) };
            self.segments.push(row.as_ptr().cast_mut());
        }
        let stride = key.row_bytes;
        let in_order = placement.in_order || group.members.is_empty();
        let (base, segments) = if in_order {
            let start = placement.rows.first().map_or(0, |&(_, row)| row as usize);
            let base = self.segments.get(first).copied().unwrap_or(std::ptr::null_mut());
            (base.wrapping_add(start * stride), (first, 0))
        } else {
            (std::ptr::null_mut(), (first, placement.segments.len()))
        };
        self.bound.push(Row { base, stride, segments, position: slot.position });
        Ok(())
    }

    /// Lists the rows of slot `number` for some of the members.
    fn list_some(&mut self, number: usize, group: &Group, members: &Members) {
        let row = &mut self.bound[number];
        row.segments.1 = self.segments.len() - row.segments.0;
        let placement = &self.positions[row.position];
        let start = placement.rows.first().copied().unwrap_or_default();
        let list = &mut self.some_rows[number];
        list.clear();
        let mut from = 0;
        for index in members.indices() {
            // Both lists ascend.
            let at =
                from + group.members[from..].partition_point(|&member| (member as usize) < index);
            from = at;
            let row =
                if placement.in_order { (0, start.1 + at as u32) } else { placement.rows[at] };
            list.push(row);
        }
    }
}

impl Placement {
    /// Makes sure that this says where `modules` lie; cheap if nothing moved.
    fn follow(&mut self, world: &World, modules: &[Entity]) -> Result<(), BindError> {
        if !self.followed && !self.is_right(world, modules) {
            self.find(world, modules)?;
        }
        self.followed = true;
        Ok(())
    }

    /// Says whether this says where `modules` lie.
    pub(crate) fn is_right(&self, world: &World, modules: &[Entity]) -> bool {
        let tables = &world.storages().tables;
        if self.in_order {
            let (Some(&table), Some(&(_, start))) = (self.segments.first(), self.rows.first())
            else {
                return modules.is_empty();
            };
            let entities = tables.get(table).map(|table| table.entities()).unwrap_or_default();
            return entities.get(start as usize..start as usize + modules.len()) == Some(modules);
        }
        self.rows.len() == modules.len()
            && self.rows.iter().zip(modules).all(|(&(segment, row), &module)| {
                let table =
                    self.segments.get(segment as usize).and_then(|&table| tables.get(table));
                table.is_some_and(|table| table.entities().get(row as usize) == Some(&module))
            })
    }

    /// Finds out where `modules` lie.
    pub(crate) fn find(&mut self, world: &World, modules: &[Entity]) -> Result<(), BindError> {
        self.segments.clear();
        self.rows.clear();
        self.in_order = false;
        for &module in modules {
            let entity = world.get_entity(module).map_err(|_| BindError::Despawned(module))?;
            let location = entity.location();
            let known = self.segments.iter().rposition(|&table| table == location.table_id);
            let segment = known.unwrap_or_else(|| {
                self.segments.push(location.table_id);
                self.segments.len() - 1
            });
            self.rows.push((segment as u32, location.table_row.index() as u32));
        }
        self.in_order =
            self.segments.len() <= 1 && self.rows.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1);
        Ok(())
    }
}
