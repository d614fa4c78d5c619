//! Checks that the rows of a binding are apart: no two members or positions have one.

use bevy_ecs::prelude::*;
use bevy_ecs::storage::TableId;

use super::{BindError, Binder, Placement};

impl Binder {
    /// Checks that no two of the rows that are bound are one, if any of them is another than before.
    pub(super) fn check_apart(&mut self, world: &World) -> Result<(), BindError> {
        if self.positions.iter().all(|at| at.is_apart || !at.is_checked) {
            return Ok(());
        }
        // What is not bound now may have moved since it was listed.
        let is_listed = |at: &&Placement| at.is_checked || at.is_apart;
        if overlap(self.positions.iter().filter(is_listed)).is_some() {
            self.positions.iter_mut().for_each(|at| at.is_apart &= at.is_checked);
            if let Some(at) = overlap(self.positions.iter().filter(|at| at.is_checked)) {
                self.positions.iter_mut().for_each(|at| at.is_apart = false);
                return Err(BindError::NotApart(entity_at(world, at)));
            }
        }
        self.positions.iter_mut().for_each(|at| at.is_apart |= at.is_checked);
        Ok(())
    }
}

/// Finds a row that is listed twice.
pub(super) fn overlap<'a>(
    placements: impl Iterator<Item = &'a Placement>,
) -> Option<(TableId, u32)> {
    let runs = placements.flat_map(|at| {
        let is_few = at.rows.as_slice().is_empty() && at.is_part_right;
        let list = if is_few { &at.part } else { &at.rows };
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

/// Gives the entity in a row of a table.
pub(super) fn entity_at(world: &World, (table, row): (TableId, u32)) -> Entity {
    let table = world.storages().tables.get(table);
    let entity = table.and_then(|table| table.entities().get(row as usize).copied());
    entity.unwrap_or(Entity::PLACEHOLDER)
}
