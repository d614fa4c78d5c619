//! Parameters, buffers, gradients and optimizer state as table components whose layout is known at run
//! time: the numbers lie inline in bevy's column, row after row, each row on a cache line.
//!
//! A component id is registered once for each (role, index in its module, row size class), never for a name,
//! shape or dtype, because bevy frees no id: those the blueprint knows.
#![expect(unsafe_code, reason = "components without a Rust type are written and read as bytes")]

pub mod keeper;
pub(crate) mod numbers;
pub mod shared;

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;

use bevy_ecs::component::{ComponentCloneBehavior, ComponentDescriptor, ComponentId, StorageType};
use bevy_ecs::entity::{ComponentCloneCtx, SourceComponent};
use bevy_ecs::prelude::*;
use bevy_ecs::ptr::OwningPtr;
use bevy_ecs::world::WorldId;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::{ALIGN_BYTES, AlignedBytes};

/// What columns are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnKey {
    role: Role,
    index: usize,
    /// Whether the one row is a population's: never the memory of a module's, whichever entity has it.
    is_shared: bool,
    /// A class of [`row_bytes`].
    row_bytes: usize,
}

impl ColumnKey {
    /// Returns the key of the column for values of type `ty`; `index` is the place of the parameter or
    /// buffer in its module.
    pub fn new(role: Role, index: usize, ty: &Type) -> ColumnKey {
        let index = if role == Role::Steps { 0 } else { index };
        ColumnKey { role, index, is_shared: false, row_bytes: row_bytes(ty.size_bytes()) }
    }

    /// Returns the key of a column of a module whose rows are of a class that [`row_bytes`] gives.
    pub(crate) fn with_rows_of(role: Role, index: usize, row_bytes: usize) -> ColumnKey {
        ColumnKey { role, index, is_shared: false, row_bytes }
    }

    /// Returns the key of the column for the one row that a population shares: its counts of steps, too, are
    /// told apart by `index`.
    pub(crate) fn shared(role: Role, index: usize, ty: &Type) -> ColumnKey {
        ColumnKey { role, index, is_shared: true, row_bytes: row_bytes(ty.size_bytes()) }
    }

    /// Returns the key of the column beside it that has the companions of that role.
    #[must_use]
    pub fn companion(self, role: Role) -> ColumnKey {
        ColumnKey { role, ..self }
    }

    /// Returns the bytes of a row, padding included.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

/// Rounds the size of a row in bytes up to its class: multiples of 64 bytes up to 1 KiB, then eight classes
/// an octave. So there are few hundred component ids, and at most an eighth of a row is padding.
///
/// What no memory could hold has the largest class that can be written down, which nothing is ever inserted of.
pub const fn row_bytes(bytes: usize) -> usize {
    if bytes <= 1024 {
        let bytes = if bytes == 0 { 1 } else { bytes };
        return bytes.next_multiple_of(ALIGN_BYTES);
    }
    let octave = (bytes - 1).ilog2();
    match bytes.checked_next_multiple_of(1 << (octave - 3)) {
        Some(bytes) if bytes <= LARGEST_ROW => bytes,
        _ => LARGEST_ROW,
    }
}

/// A component is no larger than the address space.
const LARGEST_ROW: usize = (isize::MAX as usize + 1) - ALIGN_BYTES;

/// The component ids of columns and of position markers of one world. In another it counts as missing, and gives way
/// to one of that world.
#[derive(Resource, Debug)]
pub struct Columns {
    /// The world that the ids are of.
    world: WorldId,
    ids: HashMap<ColumnKey, ComponentId>,
    /// The markers, then the columns in the order in which they were registered.
    all: Vec<ComponentId>,
}

impl FromWorld for Columns {
    fn from_world(world: &mut World) -> Self {
        let register = |bit| register(world, format!("neurarch position bit {bit}"), 0, 1);
        let all: Vec<_> = (0..MARKERS).map(register).collect();
        // As a bundle before any other: see `RowBundle::widen`.
        world.register_dynamic_bundle(&all);
        Columns { world: world.id(), ids: HashMap::new(), all }
    }
}

/// How many markers spell a position's number.
pub(crate) const MARKERS: usize = 24;

impl Columns {
    /// Returns the component id of a column, registering it if it is new.
    pub fn id(world: &mut World, key: ColumnKey) -> ComponentId {
        if let Some(id) = Columns::find(world, key) {
            return id;
        }
        let ColumnKey { role, index, is_shared, row_bytes } = key;
        let shared = if is_shared { "shared " } else { "" };
        let name = format!("neurarch {shared}{role} {index} of {row_bytes} bytes");
        let id = register(world, name, row_bytes, ALIGN_BYTES);
        let mut columns = Columns::own(world);
        columns.ids.insert(key, id);
        columns.all.push(id);
        id
    }

    /// Makes those of the world, unless they are there.
    pub fn init(world: &mut World) {
        Columns::own(world);
    }

    /// Returns what tells these from others: an id that they alone have.
    pub fn identity(&self) -> ComponentId {
        self.all[0]
    }

    /// Returns those of the world, in place of any that belong to another.
    fn own(world: &mut World) -> Mut<'_, Columns> {
        let id = world.id();
        if world.get_resource::<Columns>().is_none_or(|columns| columns.world != id) {
            let columns = Columns::from_world(world);
            world.insert_resource(columns);
        }
        world.resource_mut::<Columns>()
    }

    /// Returns those of the world, if it has any.
    pub fn of(world: &World) -> Option<&Columns> {
        world.get_resource::<Columns>().filter(|columns| columns.world == world.id())
    }

    /// Finds the component id of a column that is registered in `world`.
    pub fn find(world: &World, key: ColumnKey) -> Option<ComponentId> {
        Columns::of(world)?.ids.get(&key).copied()
    }

    /// Lists all columns and the markers of all positions' numbers: what an entity may lose that gets another
    /// position, whether it has them or not. bevy gives an archetype an array as long as the largest id of a
    /// bundle that was taken off it, and each list is a bundle: one for all entities is much the better one.
    pub fn all(world: &World) -> &[ComponentId] {
        Columns::of(world).map_or(&[], |columns| &columns.all)
    }

    /// Lists the markers of all positions' numbers, as [`Columns::all`] does.
    pub fn all_markers(world: &World) -> &[ComponentId] {
        let all = Columns::all(world);
        &all[..MARKERS.min(all.len())]
    }

    /// Lists the columns of an entity that are one row for all models of a population.
    pub fn shared_of(world: &World, entity: Entity) -> Vec<ColumnKey> {
        let Some((columns, entity)) = Columns::of(world).zip(world.get_entity(entity).ok()) else {
            return Vec::new();
        };
        let known = columns.ids.iter().filter(|(key, _)| key.is_shared);
        let own = known.filter(|&(_, &id)| entity.contains_id(id));
        let mut keys: Vec<_> = own.map(|(&key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// Counts the registered ids.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns whether none is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the zero-sized components that spell a number in binary, so that entities of different numbers
    /// lie in different tables.
    fn markers(world: &mut World, number: u32) -> Vec<ComponentId> {
        let columns = Columns::own(world);
        let bits = columns.all[..MARKERS].iter().enumerate();
        bits.filter(|(bit, _)| number >> bit & 1 == 1).map(|(_, &id)| id).collect()
    }
}

fn register(world: &mut World, name: String, bytes: usize, align: usize) -> ComponentId {
    let layout = Layout::from_size_align(bytes, align).expect("a row fits the address space");
    // SAFETY: plain bytes are Send and Sync, need no drop, and are cloned by copying `bytes` of them, the
    // size that the layout has; the size is a multiple of the alignment by `row_bytes`.
    let descriptor = unsafe {
        ComponentDescriptor::new_with_layout(
            name,
            StorageType::Table,
            layout,
            None,
            true,
            true,
            ComponentCloneBehavior::Custom(clone_bytes),
            None,
        )
    };
    world.register_component_with_descriptor(descriptor)
}

fn clone_bytes(source: &SourceComponent<'_>, target: &mut ComponentCloneCtx<'_, '_>) {
    // SAFETY: source and target are the same component type, plain bytes with the padded size behind the
    // pointer, since it points into a row of its column.
    unsafe { target.write_target_component_ptr(source.ptr()) };
}

/// Columns and markers that an entity gets at once, in one move.
pub struct RowBundle {
    world: WorldId,
    /// A component that is inserted with them, whose id is the first then.
    component: Option<ComponentId>,
    ids: Vec<ComponentId>,
    keys: Vec<Option<ColumnKey>>,
    /// Where the row of each id starts in `bytes`.
    starts: Vec<usize>,
    /// The rows: one of zeros for all until `is_filled`.
    bytes: AlignedBytes,
    is_filled: bool,
}

impl RowBundle {
    /// Prepares the columns of `keys`, their rows zero, and the markers that spell `number`, if given.
    pub fn new(
        world: &mut World,
        keys: impl IntoIterator<Item = ColumnKey>,
        number: Option<u32>,
    ) -> Self {
        let columns = keys.into_iter().map(|key| (Columns::id(world, key), Some(key)));
        let mut entries: Vec<_> = columns.collect();
        if let Some(number) = number {
            entries.extend(Columns::markers(world, number).into_iter().map(|id| (id, None)));
        }
        entries.sort_unstable_by_key(|&(id, _)| id);
        entries.dedup_by_key(|&mut (id, _)| id);
        let (ids, keys): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let largest = keys.iter().flatten().map(|key: &ColumnKey| key.row_bytes).max();
        let bytes = AlignedBytes::new(largest.unwrap_or(0).max(ALIGN_BYTES));
        let starts = vec![0; ids.len()];
        RowBundle { world: world.id(), component: None, ids, keys, starts, bytes, is_filled: false }
    }

    /// Returns whether there is nothing to insert.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the row of a column, to write what is inserted from now on; `None` if there is no such
    /// column.
    pub fn row_mut(&mut self, key: ColumnKey) -> Option<&mut [u8]> {
        let at = self.keys.iter().position(|&known| known == Some(key))?;
        if !self.is_filled {
            self.is_filled = true;
            let mut end = 0;
            for (start, key) in self.starts.iter_mut().zip(&self.keys) {
                *start = end;
                end += key.map_or(0, |key| key.row_bytes);
            }
            self.bytes = AlignedBytes::new(end.max(ALIGN_BYTES));
        }
        let start = self.starts[at];
        Some(&mut self.bytes.bytes_mut()[start..start + key.row_bytes])
    }

    /// Inserts the columns and markers, in place of rows that the entity has already. Does nothing to one that was
    /// despawned.
    ///
    /// # Panics
    ///
    /// If the entity is of another world than the bundle.
    pub fn insert(&mut self, entity: &mut EntityWorldMut<'_>) {
        if entity.is_despawned() {
            return;
        }
        self.beside(None);
        self.insert_rows(entity, None);
    }

    /// Inserts the columns and markers beside the columns that the entity has, whose markers are the same.
    ///
    /// These are taken off before. bevy gives an archetype an array as long as the number of the largest bundle that was
    /// inserted into it, each entry longer than a cache line: of archetypes without markers there are few, of those with
    /// them some for each structure. The bundle of all markers has a small number.
    ///
    /// # Panics
    ///
    /// If the entity is of another world than the bundle.
    pub fn widen(&mut self, entity: &mut EntityWorldMut<'_>) {
        if entity.is_despawned() {
            return;
        }
        let markers = Columns::all_markers(entity.world()).to_vec();
        entity.remove_by_ids(&markers);
        self.insert(entity);
    }

    /// Inserts a component, and columns and markers with it in the same move, as [`insert`](RowBundle::insert) does.
    ///
    /// # Panics
    ///
    /// If the entity is of another world than the bundle.
    pub fn insert_with<C: Component>(&mut self, entity: &mut EntityWorldMut<'_>, component: C) {
        if entity.is_despawned() {
            return;
        }
        self.beside(Some(registered::<C>(entity)));
        OwningPtr::make(component, |pointer| self.insert_rows(entity, Some(pointer)));
    }

    /// Has the first of the ids be that of a component which is no column, or of none.
    fn beside(&mut self, component: Option<ComponentId>) {
        if self.component == component {
            return;
        }
        if self.component.is_some() {
            self.ids.remove(0);
            self.keys.remove(0);
            self.starts.remove(0);
        }
        if let Some(id) = component {
            self.ids.insert(0, id);
            self.keys.insert(0, None);
            self.starts.insert(0, 0);
        }
        self.component = component;
    }

    /// Inserts all, `component` among it if there is one: it belongs to the first of the ids, of type and world.
    fn insert_rows(&self, entity: &mut EntityWorldMut<'_>, component: Option<OwningPtr<'_>>) {
        if self.is_empty() {
            return;
        }
        assert_eq!(entity.world().id(), self.world, "a bundle belongs to one world");
        let RowBundle { ids, starts, bytes, .. } = self;
        let first = bytes.as_ptr().cast_mut();
        let starts = &starts[usize::from(component.is_some())..];
        let rows = starts.iter().map(|&start| {
            let row = NonNull::new(first.wrapping_add(start)).expect("memory is not at address 0");
            // SAFETY: the pointer is aligned for a row (the bytes start on a cache line and rows are
            // multiples of one) and `row_bytes` initialized bytes lie behind it: `bytes` is as long as
            // the longest row while rows share it, and as all rows together once one was filled. They
            // are plain bytes, which may be copied any number of times.
            unsafe { OwningPtr::new(row) }
        });
        // SAFETY: the ids are columns and markers of this world by the assertion above, and each pointer is
        // to a row of its column's layout, or to the nothing that a marker holds; the component's goes with its id.
        unsafe { entity.insert_by_ids(ids, component.into_iter().chain(rows)) };
    }
}

/// Returns the id of a component type in the world of an entity.
fn registered<C: Component>(entity: &mut EntityWorldMut<'_>) -> ComponentId {
    let known = entity.world().component_id::<C>();
    known.unwrap_or_else(|| entity.world_scope(World::register_component::<C>))
}

/// Inserts a component as [`EntityWorldMut::insert`] does, by its id: that leaves less to be compiled for each of many
/// types. Does nothing to an entity that was despawned.
pub(crate) fn insert<C: Component>(entity: &mut EntityWorldMut<'_>, component: C) {
    if entity.is_despawned() {
        return;
    }
    let id = registered::<C>(entity);
    OwningPtr::make(component, |pointer| {
        // SAFETY: the entity's world has `C` under this id.
        unsafe { entity.insert_by_id(id, pointer) };
    });
}

/// Views the row of a column of an entity; `None` if it has no such column.
pub fn row(world: &World, entity: Entity, key: ColumnKey) -> Option<&[u8]> {
    let id = Columns::find(world, key)?;
    let pointer = world.get_entity(entity).ok()?.get_by_id(id).ok()?;
    // SAFETY: this world registered `id` for rows of `row_bytes` bytes, initialized when they were
    // inserted, and is borrowed for as long as the slice lives.
    Some(unsafe { std::slice::from_raw_parts(pointer.as_ptr(), key.row_bytes) })
}

/// Views the row of a column of an entity, to write to, and marks it changed, and its column; `None` if it has no such
/// column.
pub fn row_mut(world: &mut World, entity: Entity, key: ColumnKey) -> Option<&mut [u8]> {
    let id = Columns::find(world, key)?;
    // bevy does so for components with a type, not for those that are known by their id.
    let table = world.get_entity(entity).ok()?.location().table_id;
    let table = world.storages().tables.get(table);
    if let Some(tick) = table.and_then(|table| table.get_summary_tick(id)) {
        tick.set(world.read_change_tick());
    }
    let row = world.get_mut_by_id(entity, id)?.into_inner();
    // SAFETY: this world registered `id` for rows of `row_bytes` bytes, initialized when they were
    // inserted, and is borrowed exclusively for as long as the slice lives.
    Some(unsafe { std::slice::from_raw_parts_mut(row.as_ptr(), key.row_bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_to_few_classes() {
        assert_eq!(row_bytes(0), 64);
        assert_eq!(row_bytes(64), 64);
        assert_eq!(row_bytes(65), 128);
        assert_eq!(row_bytes(1024), 1024);
        assert_eq!(row_bytes(1025), 1024 + 128);
        assert_eq!(row_bytes(2048), 2048);
        assert_eq!(row_bytes(2049), 2048 + 256);
        assert!((1025..100_000).all(|bytes| {
            let padded = row_bytes(bytes);
            padded >= bytes && padded.is_multiple_of(64) && padded <= bytes + bytes / 8 + 64
        }));
    }
}
