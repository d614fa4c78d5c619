//! Parameters, buffers, gradients and optimizer state as table components whose layout is known at run
//! time: the numbers lie inline in bevy's column, row after row, each row on a cache line.
//!
//! A component id is registered once for each (role, index in its module, row size class), never for a name,
//! shape or dtype, because bevy frees no id: those the blueprint knows.
#![expect(unsafe_code, reason = "components without a Rust type are written and read as bytes")]

use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;

use bevy_ecs::component::{ComponentCloneBehavior, ComponentDescriptor, ComponentId, StorageType};
use bevy_ecs::entity::{ComponentCloneCtx, SourceComponent};
use bevy_ecs::prelude::*;
use bevy_ecs::ptr::OwningPtr;
use neurarch_kernels::cpu::memory::{ALIGN_BYTES, AlignedBytes};
use neurarch_kernels::program::{Role, Slot};

/// What columns are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnKey {
    /// What the column is for.
    pub role: Role,
    /// Place of the parameter or buffer in its module.
    pub index: usize,
    /// Bytes of a row: a class of [`row_bytes`].
    pub row_bytes: usize,
}

impl ColumnKey {
    /// Gives the key of a slot's column.
    pub fn of(slot: &Slot) -> ColumnKey {
        let index = if slot.role == Role::Steps { 0 } else { slot.index };
        ColumnKey { role: slot.role, index, row_bytes: row_bytes(slot.ty.size_bytes()) }
    }
}

/// Rounds the size of a row in bytes up to its class: multiples of 64 bytes up to 1 KiB, then eight classes
/// an octave. So there are few hundred component ids, and at most an eighth of a row is padding.
pub const fn row_bytes(bytes: usize) -> usize {
    if bytes <= 1024 {
        let bytes = if bytes == 0 { 1 } else { bytes };
        return bytes.next_multiple_of(ALIGN_BYTES);
    }
    let octave = (bytes - 1).ilog2();
    bytes.next_multiple_of(1 << (octave - 3))
}

/// The component ids of columns and of position markers.
#[derive(Resource, Debug, Default)]
pub struct Columns {
    ids: HashMap<ColumnKey, ComponentId>,
    keys: HashMap<ComponentId, ColumnKey>,
    markers: Vec<ComponentId>,
}

/// How many markers spell a position's number.
pub const MARKERS: usize = 24;

impl Columns {
    /// Gives the component id of a column, registering it if it is new.
    pub fn id(world: &mut World, key: ColumnKey) -> ComponentId {
        world.init_resource::<Columns>();
        if let Some(&id) = world.resource::<Columns>().ids.get(&key) {
            return id;
        }
        let name = format!("neurarch {} {} of {} bytes", key.role, key.index, key.row_bytes);
        let id = register(world, name, key.row_bytes, ALIGN_BYTES);
        let mut columns = world.resource_mut::<Columns>();
        columns.ids.insert(key, id);
        columns.keys.insert(id, key);
        id
    }

    /// Finds the component id of a column that is registered.
    pub fn find(&self, key: ColumnKey) -> Option<ComponentId> {
        self.ids.get(&key).copied()
    }

    /// Finds what a component id is the column of.
    pub fn key(&self, id: ComponentId) -> Option<ColumnKey> {
        self.keys.get(&id).copied()
    }

    /// Counts the registered ids.
    pub fn len(&self) -> usize {
        self.ids.len() + self.markers.len()
    }

    /// Says whether none is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the zero-sized components that spell a number in binary, so that entities of different numbers
    /// lie in different tables.
    pub fn markers(world: &mut World, number: u32) -> Vec<ComponentId> {
        world.init_resource::<Columns>();
        if world.resource::<Columns>().markers.is_empty() {
            let register = |bit| register(world, format!("neurarch position bit {bit}"), 0, 1);
            let markers = (0..MARKERS).map(register).collect();
            world.resource_mut::<Columns>().markers = markers;
        }
        let markers = &world.resource::<Columns>().markers;
        markers
            .iter()
            .enumerate()
            .filter(|(bit, _)| number >> bit & 1 == 1)
            .map(|(_, &id)| id)
            .collect()
    }

    /// Gives all markers.
    pub fn all_markers(&self) -> &[ComponentId] {
        &self.markers
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

/// Adds columns (and markers) to an entity at once, their rows zero.
///
/// `keys` are the columns, `markers` zero-sized components of [`Columns::markers`].
pub fn insert_zeroed(
    entity: &mut EntityWorldMut<'_>,
    columns: &[(ComponentId, ColumnKey)],
    markers: &[ComponentId],
    zeros: &mut Zeros,
) {
    let largest = columns.iter().map(|(_, key)| key.row_bytes).max().unwrap_or(0);
    zeros.0.reserve(largest.max(ALIGN_BYTES));
    let mut ids: Vec<_> =
        columns.iter().map(|&(id, _)| id).chain(markers.iter().copied()).collect();
    ids.sort_unstable();
    let start = NonNull::new(zeros.0.as_mut_ptr()).expect("reserved above");
    // SAFETY: every id is of a column or marker of this world; a column's row is at most `largest` bytes,
    // which are there, zeroed and aligned, and are copied; plain bytes may be copied any number of times.
    unsafe {
        let rows = ids.iter().map(|_| OwningPtr::new(start));
        entity.insert_by_ids(&ids, rows);
    }
}

/// Zeroed memory that new rows are copied from.
#[derive(Default)]
pub struct Zeros(AlignedBytes);

/// Views the row of a column of an entity; `None` if it has no such column. `bytes` of it are given, at most
/// the size of its class.
pub fn row<'w>(entity: EntityRef<'w>, id: ComponentId, key: ColumnKey) -> Option<&'w [u8]> {
    let pointer = entity.get_by_id(id).ok()?;
    // SAFETY: a row of this column has `row_bytes` initialised bytes, and the entity is borrowed.
    Some(unsafe { std::slice::from_raw_parts(pointer.as_ptr(), key.row_bytes) })
}

/// Views the row of a column of an entity, to write to, and marks it changed.
pub fn row_mut<'a>(
    entity: &'a mut EntityWorldMut<'_>,
    id: ComponentId,
    key: ColumnKey,
) -> Option<&'a mut [u8]> {
    let mut row = entity.get_mut_by_id(id).ok()?;
    let pointer = row.as_mut().as_ptr();
    // SAFETY: a row of this column has `row_bytes` initialised bytes, and the entity is borrowed
    // exclusively for as long as the slice lives.
    Some(unsafe { std::slice::from_raw_parts_mut(pointer, key.row_bytes) })
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
            padded >= bytes && padded % 64 == 0 && padded <= bytes + bytes / 8 + 64
        }));
    }
}
