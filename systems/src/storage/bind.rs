//! Binding: where the rows of a group's columns lie right now, for the kernels.
//!
//! Nothing is assumed about where bevy keeps an entity's row: each binding compares the tables' lists of
//! entities with the group's, and where a tag, a despawn or an edit moved something, lists the rows anew. Nothing is
//! assumed about the lists either: whatever was done to them, threads get rows that no two members share.
#![expect(unsafe_code, reason = "addresses of columns are taken from bevy's tables")]

use std::cell::UnsafeCell;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::{TableId, TableRow};
use bevy_ecs::world::WorldId;
use neurarch_components::column::keeper::Keeper;
use neurarch_components::column::shared::SharedRow;
use neurarch_components::column::{ColumnKey, Columns};
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::population::Population;
use neurarch_components::population::group::Group;
use neurarch_components::population::versions::Versions;
use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::queue::Direction;
use neurarch_kernels::ir::program::{Role, Slot};
use nonmax::NonMaxU32;

use crate::storage::members::Members;
use crate::storage::pages::{HUGE_PAGE_BYTES, prefer_huge};

mod apart;
mod count;
mod placement;

pub use crate::errors::BindError;
pub(crate) use apart::Together;
use count::count_write;
pub(crate) use placement::{FEW, Placement};
use placement::{entity_at, overlap};

// SAFETY: signing, spawning and cloning put each entity that they find in a tree at its one place, all lists of a
// group at once, after it got the columns of the group's contents. What a host does to the trees in between is
// noticed by signing, and in any case here: a binding checks that its rows are apart.
/// The crate's permission to change what is kept about models.
pub(crate) const KEEPER: Keeper = unsafe { Keeper::new() };

/// What is remembered from one binding of some members of a group to the next: where rows were, never an
/// address.
#[derive(Debug, Default)]
pub(crate) struct Binder {
    positions: Vec<Placement>,
    /// Of which group, as of which version of the population, `places` speaks.
    of: Option<(Entity, usize, u64)>,
    members: Members,
    /// The members' places in the group's list, if they are not all of it.
    places: Vec<u32>,
    is_part: bool,
    segments: Vec<*mut u8>,
    bound: Vec<BoundSlot>,
    /// For each slot, whose memory it was last, in which world, as of when no two that are written were the same.
    homes: Vec<Home>,
    world: Option<WorldId>,
    /// Where long columns were when they were to lie in huge pages.
    advised: Vec<usize>,
}

// SAFETY: the addresses in a binder are scratch: they are written and read within one call of `bind` and
// the life of its result, which borrows the world.
unsafe impl Send for Binder {}
// SAFETY: as above.
unsafe impl Sync for Binder {}

/// Whose memory a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    key: ColumnKey,
    of: Whose,
    is_written: bool,
    /// What the key names: in a world, that never changes.
    column: ComponentId,
}

/// See [`Home`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Of the entities of a position.
    Position(usize),
    /// Of one entity, for all members.
    Entity(Entity),
}

const FIRST_ROW: TableRow = TableRow::new(NonMaxU32::ZERO);

/// A bound slot, before its addresses are put together.
#[derive(Clone, Copy, Debug)]
struct BoundSlot {
    column: ComponentId,
    /// Where its segments start in [`Binder::segments`], and how many there are.
    segments: (usize, usize),
    /// Bytes of a row.
    row_bytes: usize,
    /// `None` if all members share one row: the first segment is its address.
    position: Option<usize>,
}

/// The rows of some slots. It borrows the world, so nothing moves while it lives.
pub(crate) struct Bound<'a> {
    binder: &'a Binder,
}

impl Bound<'_> {
    /// Counts the slots.
    pub(crate) fn len(&self) -> usize {
        self.binder.bound.len()
    }

    /// Views the first `bytes` of a member's row.
    ///
    /// # Panics
    ///
    /// If there is no such slot or member, or a row is shorter.
    pub(crate) fn row(&self, slot: usize, member: usize, bytes: usize) -> &[u8] {
        let row = self.row_address(slot, member, bytes);
        // SAFETY: `row_address` gives a member's row of at least `bytes` bytes, all of them initialized when
        // the column was; the world is borrowed exclusively while `self` lives, so nobody writes them.
        unsafe { std::slice::from_raw_parts(row, bytes) }
    }

    /// Views the rows of a member and those behind it, as far as they lie one behind the other, `most` at most.
    ///
    /// # Panics
    ///
    /// If there is no such slot or member.
    pub(crate) fn run(&self, slot: usize, member: usize, most: usize) -> &[u8] {
        let (rows, bytes) = (self.rows(slot), self.row_bytes(slot));
        let first = self.row_address(slot, member, bytes);
        let most = most.min(self.members() - member).max(1);
        let count = match rows {
            Rows::Strided { stride, .. } if stride == bytes => most,
            _ => {
                let is_next = |&i: &usize| rows.at(member + i) == first.wrapping_add(i * bytes);
                1 + (1..most).take_while(is_next).count()
            }
        };
        // SAFETY: these are the rows of `count` members, by address one behind the other in one column; for the rest as in
        // `row`.
        unsafe { std::slice::from_raw_parts(first, count * bytes) }
    }

    /// Views the first `bytes` of a member's row, to write to. The slot must be one that is marked as written.
    ///
    /// # Panics
    ///
    /// As [`row`](Bound::row).
    pub(crate) fn row_mut(&mut self, slot: usize, member: usize, bytes: usize) -> &mut [u8] {
        let row = self.row_address(slot, member, bytes);
        // SAFETY: as in `row`; `self` is borrowed exclusively, so there is no other view of any row.
        unsafe { std::slice::from_raw_parts_mut(row, bytes) }
    }

    fn row_address(&self, slot: usize, member: usize, bytes: usize) -> *mut u8 {
        assert!(member < self.members() && bytes <= self.row_bytes(slot), "a row of a member");
        self.rows(slot).at(member)
    }

    /// Counts the members.
    pub(crate) fn members(&self) -> usize {
        self.binder.members.len()
    }

    /// Returns whether all members share the row of slot `slot`.
    pub(crate) fn is_shared(&self, slot: usize) -> bool {
        self.binder.bound[slot].position.is_none()
    }

    /// Returns the bytes of a row of slot `slot`, padding included.
    pub(crate) fn row_bytes(&self, slot: usize) -> usize {
        self.binder.bound[slot].row_bytes
    }

    /// Returns the rows of slot `slot`, by member.
    pub(crate) fn rows(&self, slot: usize) -> Rows<'_> {
        let BoundSlot { segments: (first, count), row_bytes: stride, position, .. } =
            self.binder.bound[slot];
        let segments = &self.binder.segments[first..first + count];
        let Some(position) = position else {
            return Rows::Strided { base: segments[0], stride: 0 };
        };
        let placement = &self.binder.positions[position];
        let list = if self.binder.is_part { &placement.part } else { &placement.rows };
        list.of(segments, stride)
    }
}

impl Binder {
    /// Binds `slots` for the members of a group. Those that `written` marks are marked as changed.
    ///
    /// `members` are indices in the population, all of them indices of members of the group. A binding
    /// like the one before allocates nothing, and compares the entities of each position once.
    ///
    /// # Errors
    ///
    /// [`BindError`]. Nothing is marked as changed then.
    pub(crate) fn bind<'a>(
        &'a mut self,
        world: &'a mut World,
        population: Entity,
        group: usize,
        members: &Members,
        slots: &[Slot],
        written: &[bool],
    ) -> Result<Bound<'a>, BindError> {
        let (bound, of) = self.take(world, population, group, members, slots, written)?;
        bound.binder.count_write(world, (population, of), slots, written);
        Ok(bound)
    }

    /// Counts a call that writes to parameters or buffers: of all models of a structure at once, of some by a mark on each
    /// of their rows, so that it is no write to the others.
    fn count_write(
        &self,
        world: &mut World,
        (population, of): (Entity, BlueprintId),
        slots: &[Slot],
        written: &[bool],
    ) {
        let is_own = |slot: &Slot| matches!(slot.role, Role::Parameter | Role::Buffer);
        let all = slots.iter().zip(written).zip(&self.bound);
        let all = all.filter(|((slot, written), _)| **written && is_own(slot));
        let versions = world.get::<Versions>(population);
        if versions.is_some_and(Versions::marks_rows) {
            let written = written.iter().zip(&self.bound).filter(|(written, _)| **written);
            self.mark_rows(world, written.map(|(_, bound)| bound));
        } else if self.is_part {
            self.mark_rows(world, all.clone().map(|(_, bound)| bound));
        }
        if !self.is_part {
            count_write(world, population, of, all.map(|((slot, _), _)| slot));
            return;
        }
        let shared = all.filter(|(_, bound)| bound.position.is_none());
        count_write(world, population, of, shared.map(|((slot, _), _)| slot));
    }

    /// Marks the members' rows of some slots as changed.
    fn mark_rows<'b>(&self, world: &mut World, slots: impl Iterator<Item = &'b BoundSlot>) {
        let now = world.change_tick();
        for bound in slots {
            let Some(placement) = bound.position.map(|position| &self.positions[position]) else {
                continue;
            };
            let rows = if self.is_part { &placement.part } else { &placement.rows };
            for (members, (segment, row)) in rows.runs() {
                let table = placement.segments.get(segment as usize);
                let table = table.and_then(|&table| world.storages().tables.get(table));
                let ticks = table.and_then(|table| table.get_changed_ticks_slice_for(bound.column));
                let rows = row as usize..row as usize + members.len();
                for tick in ticks.and_then(|ticks| ticks.get(rows)).unwrap_or_default() {
                    // SAFETY: the world is borrowed exclusively, so nobody else has a view of the tick.
                    unsafe { *tick.get() = now };
                }
            }
        }
    }

    /// Lists the slots whose columns somebody wrote to after `last`, be it to the rows of others. A row that models
    /// share is always listed. Columns' summary ticks do not tell: bevy leaves them as they are where a row is written to by
    /// a component's id.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub(crate) fn written_since(
        &mut self,
        world: &World,
        at: (Entity, usize, &Members),
        slots: &[Slot],
        last: Tick,
    ) -> Result<Vec<usize>, BindError> {
        let (population, group, members) = at;
        self.take(world, population, group, members, slots, &[])?;
        let (now, tables) = (world.read_change_tick(), &world.storages().tables);
        let is_written = |slot: &usize| {
            let BoundSlot { column, position, .. } = self.bound[*slot];
            let segments = position.map(|position| &self.positions[position].segments);
            let is_newer = |&table: &TableId| {
                let ticks =
                    tables.get(table).and_then(|table| table.get_changed_ticks_slice_for(column));
                // SAFETY: who writes ticks borrows the world exclusively, and it is borrowed here.
                let is_newer =
                    |tick: &UnsafeCell<Tick>| unsafe { *tick.get() }.is_newer_than(last, now);
                ticks.is_none_or(|ticks| ticks.iter().any(is_newer))
            };
            segments.is_none_or(|segments| segments.iter().any(is_newer))
        };
        Ok((0..slots.len()).filter(is_written).collect())
    }

    /// [`bind`](Binder::bind), for a caller who borrows the world exclusively while the result lives; gives the group's
    /// structure, too.
    fn take<'a>(
        &'a mut self,
        world: &World,
        population: Entity,
        group: usize,
        members: &Members,
        slots: &[Slot],
        written: &[bool],
    ) -> Result<(Bound<'a>, BlueprintId), BindError> {
        let no_group = || BindError::NoSuchGroup(population);
        let found = world.get::<Population>(population);
        let found = found.filter(|found| found.is_of(world.id(), population));
        let found = found.ok_or_else(no_group)?;
        let of = (population, group, found.version());
        let group = found.groups().get(group).ok_or_else(no_group)?;
        self.place(of, group, members)?;
        self.positions.resize_with(group.modules.len(), Placement::default);
        self.positions.iter_mut().for_each(|placement| placement.is_checked = false);
        self.bound.clear();
        self.segments.clear();
        if self.world != Some(world.id()) {
            self.homes.clear();
            self.positions.iter_mut().for_each(|placement| placement.is_apart = false);
            self.world = Some(world.id());
        }
        let is_written = |number: usize| written.get(number).copied().unwrap_or(false);
        for (number, slot) in slots.iter().enumerate() {
            let at = group.contents.get(slot.position).zip(group.modules.get(slot.position));
            let (contents, modules) = at.ok_or_else(no_group)?;
            if let Some(shared) = contents.shared(slot.role, slot.index) {
                if members.len() > 1 && is_written(number) {
                    return Err(BindError::SharedWritten { slot: slot.name.clone() });
                }
                self.take_shared(world, slot, shared, is_written(number))?;
                continue;
            }
            if modules.len() != group.members.len() {
                return Err(no_group());
            }
            let placement = &mut self.positions[slot.position];
            if self.is_part && self.places.len() * FEW < modules.len() {
                placement.follow_few(world, modules, &self.places)?;
            } else {
                placement.follow(world, modules)?;
                if self.is_part {
                    placement.follow_part(&self.places);
                }
            }
            let key = contents.key(slot.role, slot.index);
            self.take_addresses(world, slot, key, is_written(number))?;
        }
        self.check_apart(world)?;
        for (number, _) in written.iter().enumerate().filter(|(_, written)| **written) {
            self.mark_changed(world, number);
        }
        Ok((Bound { binder: self }, group.blueprint))
    }

    /// Finds the members' places in the group.
    fn place(
        &mut self,
        of: (Entity, usize, u64),
        group: &Group,
        members: &Members,
    ) -> Result<(), BindError> {
        if self.of == Some(of) && self.members == *members {
            return Ok(());
        }
        // Members are listed in ascending order.
        let last = members.len().checked_sub(1).map(|last| last as u32);
        let are_all = members.is_all() && group.members.last().copied() == last;
        if are_all && !self.is_part && self.of.is_some_and(|(p, g, _)| (p, g) == (of.0, of.1)) {
            // Who came or went changes rows, and those are looked at in any case.
            self.members.clone_from(members);
            self.of = Some(of);
            return Ok(());
        }
        let is_known = self.is_part && self.of.is_some_and(|(p, g, _)| (p, g) == (of.0, of.1));
        self.of = None;
        let before = std::mem::take(&mut self.places);
        self.places.reserve(members.len());
        // A group of all models has each at its index.
        let is_whole = group.members.last().copied()
            == group.members.len().checked_sub(1).map(|last| last as u32);
        for index in members.indices() {
            let place = match is_whole && index < group.members.len() {
                true => index,
                false => {
                    let place = group.members.binary_search(&(index as u32));
                    place.map_err(|_| BindError::NotAMember { index })?
                }
            };
            self.places.push(place as u32);
        }
        self.members.clone_from(members);
        self.is_part = self.places.len() != group.members.len();
        // Where rows are others, their lists are no longer right by themselves.
        if !(is_known && self.is_part && self.places == before) {
            self.positions.iter_mut().for_each(|placement| placement.is_part_right = false);
        }
        self.of = Some(of);
        Ok(())
    }

    /// Finds the column of the slot that is bound next, and checks that it is not the memory of one before it, if either
    /// is written.
    #[inline]
    fn column(
        &mut self,
        world: &World,
        slot: &Slot,
        (key, of, is_written): (ColumnKey, Whose, bool),
    ) -> Result<ComponentId, BindError> {
        match self.homes.get(self.bound.len()) {
            Some(home) if (home.key, home.of, home.is_written) == (key, of, is_written) => {
                Ok(home.column)
            }
            _ => self.find_column(world, slot, (key, of, is_written)),
        }
    }

    #[cold]
    fn find_column(
        &mut self,
        world: &World,
        slot: &Slot,
        (key, of, is_written): (ColumnKey, Whose, bool),
    ) -> Result<ComponentId, BindError> {
        let no_column = || BindError::NoColumn { slot: slot.name.clone(), role: slot.role };
        let column = Columns::find(world, key).ok_or_else(no_column)?;
        self.homes.truncate(self.bound.len());
        let is_same = |known: &Home| {
            known.column == column && known.of == of && (known.is_written || is_written)
        };
        if self.homes.iter().any(is_same) {
            return Err(BindError::Twice { slot: slot.name.clone() });
        }
        self.homes.push(Home { key, of, is_written, column });
        Ok(column)
    }

    fn take_addresses(
        &mut self,
        world: &World,
        slot: &Slot,
        key: ColumnKey,
        is_written: bool,
    ) -> Result<(), BindError> {
        let no_column = || BindError::NoColumn { slot: slot.name.clone(), role: slot.role };
        if key.row_bytes() < slot.ty.size_bytes() {
            return Err(no_column());
        }
        let id = self.column(world, slot, (key, Whose::Position(slot.position), is_written))?;
        let tables = &self.positions[slot.position].segments;
        let first = self.segments.len();
        for &table in tables {
            let table = world.storages().tables.get(table).ok_or_else(no_column)?;
            let column = table.get_column(id).ok_or_else(no_column)?;
            // SAFETY: the segment's table has at least one row, for a member lies in it. The address is
            // of plain bytes; the world is borrowed exclusively while the result of `bind` lives, and
            // `column` and `check_apart` tell the rows apart, so whoever writes there is alone.
            let row = unsafe { column.get_data_unchecked(FIRST_ROW) };
            self.segments.push(row.as_ptr().cast_mut());
            let bytes = table.entity_count() as usize * key.row_bytes();
            if bytes >= HUGE_PAGE_BYTES && !self.advised.contains(&row.as_ptr().addr()) {
                self.advised.push(row.as_ptr().addr());
                // SAFETY: the rows of a column lie one behind the other in one allocation.
                unsafe { prefer_huge(row.as_ptr(), bytes) };
            }
        }
        self.bound.push(BoundSlot {
            column: id,
            segments: (first, tables.len()),
            row_bytes: key.row_bytes(),
            position: Some(slot.position),
        });
        Ok(())
    }

    fn take_shared(
        &mut self,
        world: &World,
        slot: &Slot,
        shared: SharedRow,
        is_written: bool,
    ) -> Result<(), BindError> {
        let key = shared.key(slot.role, &slot.ty);
        let no_column = || BindError::NoColumn { slot: slot.name.clone(), role: slot.role };
        let id = self.column(world, slot, (key, Whose::Entity(shared.owner), is_written))?;
        let owner = world.get_entity(shared.owner).map_err(|_| no_column())?;
        let row = owner.get_by_id(id).map_err(|_| no_column())?;
        self.segments.push(row.as_ptr().cast_mut());
        self.bound.push(BoundSlot {
            column: id,
            segments: (self.segments.len() - 1, 1),
            row_bytes: key.row_bytes(),
            position: None,
        });
        Ok(())
    }

    fn mark_changed(&self, world: &World, slot: usize) {
        let BoundSlot { column, position: Some(position), .. } = self.bound[slot] else { return };
        for &table in &self.positions[position].segments {
            let table = world.storages().tables.get(table);
            if let Some(tick) = table.and_then(|table| table.get_summary_tick(column)) {
                tick.set(world.read_change_tick());
            }
        }
    }
}

/// Whose rows a launch is about, and where they are.
pub(crate) struct Located {
    /// The population's entity.
    pub(crate) population: Entity,
    /// The group's place in it.
    pub(crate) group: usize,
    /// Which models of the group.
    pub(crate) members: Members,
    /// Where their rows were.
    pub(crate) binder: Binder,
    /// Which way the next launch goes: not the way of the last one.
    pub(crate) direction: Direction,
}

impl Located {
    /// Says whose rows they are; where they are is found out at the first launch.
    pub(crate) fn new(population: Entity, group: usize, members: Members) -> Self {
        let (binder, direction) = (Binder::default(), Direction::default());
        Located { population, group, members, binder, direction }
    }
}

/// Binds slots of the same members of two populations: the first to write, the second to read.
///
/// # Errors
///
/// As [`Binder::bind`].
///
/// # Panics
///
/// If it is one population.
pub(crate) fn bind_pair<'a>(
    world: &'a mut World,
    [to, from]: [(&'a mut Located, &[Slot]); 2],
) -> Result<[Bound<'a>; 2], BindError> {
    let ((to, to_slots), (from, from_slots)) = (to, from);
    assert_ne!(to.population, from.population, "rows of two populations are apart");
    let written = vec![true; to_slots.len()];
    let Located { population, group, members, binder, .. } = from;
    let (from, _) = binder.take(world, *population, *group, members, from_slots, &[])?;
    let Located { population, group, members, binder, .. } = to;
    let (to, of) = binder.take(world, *population, *group, members, to_slots, &written)?;
    let both = [&to, &from].map(|bound| bound.binder.positions.iter().filter(|at| at.is_checked));
    if let Some(at) = overlap(both.into_iter().flatten()) {
        return Err(BindError::NotApart(entity_at(world, at)));
    }
    let shared =
        |bound: &Bound<'a>, slot: usize| bound.is_shared(slot).then(|| bound.rows(slot).at(0));
    let read: Vec<_> = (0..from.len()).filter_map(|slot| shared(&from, slot)).collect();
    let is_read = |&slot: &usize| shared(&to, slot).is_some_and(|row| read.contains(&row));
    match (0..to.len()).find(is_read) {
        Some(slot) => Err(BindError::Twice { slot: to_slots[slot].name.clone() }),
        None => {
            to.binder.count_write(world, (*population, of), to_slots, &written);
            Ok([to, from])
        }
    }
}

/// Returns the entities of a table whose component `id` was changed after `last`; `None` if the table has no
/// such column. `now` is the present tick.
pub(crate) fn changed_since<'w>(
    world: &'w World,
    table: TableId,
    id: ComponentId,
    last: Tick,
    now: Tick,
) -> Option<impl Iterator<Item = Entity> + use<'w>> {
    let table = world.storages().tables.get(table)?;
    let ticks = table.get_changed_ticks_slice_for(id)?;
    let changed = table.entities().iter().zip(ticks).filter(move |(_, tick)| {
        // SAFETY: the world is borrowed, so nobody writes the ticks of rows.
        let tick = unsafe { *tick.get() };
        tick.is_newer_than(last, now)
    });
    Some(changed.map(|(&entity, _)| entity))
}

#[cfg(test)]
impl Bound<'_> {
    /// Copies the first `numel` numbers of a member's row.
    pub(crate) fn numbers(&self, slot: usize, member: usize, numel: usize) -> Vec<f32> {
        bytemuck::pod_collect_to_vec(self.row(slot, member, numel * size_of::<f32>()))
    }
}

#[cfg(test)]
mod tests {
    use neurarch_components::layers::{Linear, Sequential};
    use neurarch_kernels::ir::dtype::Dtype;
    use neurarch_kernels::ir::program::Role;
    use neurarch_kernels::ir::shape::Type;

    use super::*;
    use crate::structure::spawn;

    #[test]
    fn no_row_is_bound_for_two_members_or_at_two_positions() {
        let mut world = World::new();
        let same = || Sequential::new().push(Linear::new(4, 4)).push(Linear::new(4, 4));
        let population =
            spawn::spawn_population(&mut world, &same(), 20, 20, 1, Dtype::F32).unwrap();
        let group = world.get::<Population>(population).unwrap().groups()[0].clone();
        let ty = group.contents[1].parameters[0].ty.clone();
        let slot = |position, ty: &Type| {
            let (name, ty) = (format!("{position}"), ty.clone());
            Slot { name, role: Role::Parameter, position, index: 0, ty }
        };
        let [one, two] = [1, 2].map(|position| slot(position, &ty));
        let members = |indices: &[u32]| {
            let mut members = Members::first(20, indices[0]);
            indices[1..].iter().for_each(|&index| members.push(index));
            members.settle();
            members
        };
        let (all, few) = (members(&(0..20).collect::<Vec<_>>()), members(&[3, 5]));
        let mut binder = Binder::default();
        let mut bind = |world: &mut World, members: &Members, slots: &[Slot], written: &[bool]| {
            binder.bind(world, population, 0, members, slots, written).err()
        };
        let edit = |world: &mut World, position: usize, place: usize, entity: Entity| {
            let mut found = world.get_mut::<Population>(population).unwrap();
            found.groups_mut(KEEPER)[0].modules[position][place] = entity;
        };
        let modules = &group.modules;
        let (a, b) = ([one.clone()], [two.clone()]);
        for members in [&all, &few] {
            assert_eq!(bind(&mut world, members, &a, &[true]), None);
            assert_eq!(bind(&mut world, members, &b, &[true]), None);
            // Two models of one module.
            edit(&mut world, 1, 5, modules[1][3]);
            let twice = Some(BindError::NotApart(modules[1][3]));
            assert_eq!(bind(&mut world, members, &a, &[true]), twice);
            assert_eq!(bind(&mut world, members, &[one.clone(), two.clone()], &[]), twice);
            edit(&mut world, 1, 5, modules[1][5]);
            // One module at two positions, seen only once both are bound.
            edit(&mut world, 2, 5, modules[1][3]);
            assert_eq!(bind(&mut world, members, &a, &[true]), None);
            let both = bind(&mut world, members, &[one.clone(), two.clone()], &[true, false]);
            assert!(both.is_some(), "both have column and row in common");
            edit(&mut world, 2, 5, modules[2][5]);
            assert_eq!(bind(&mut world, members, &[one.clone(), two.clone()], &[true, true]), None);
        }
        // Memory of one slot under two types.
        let other = slot(1, &Type::new(Dtype::F64, [8]));
        let twice = Some(BindError::Twice { slot: "1".into() });
        assert_eq!(bind(&mut world, &all, &[one.clone(), other.clone()], &[true, false]), twice);
        assert_eq!(bind(&mut world, &all, &[one.clone(), other.clone()], &[false, true]), twice);
        assert_eq!(bind(&mut world, &all, &[one, other], &[]), None);
        // A slot of no position of the group.
        let none = Some(BindError::NoSuchGroup(population));
        assert_eq!(bind(&mut world, &all, &[slot(9, &ty)], &[]), none);
    }
}
