//! Rows come out of a checkpoint, into columns that are there.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::SharedRow;
use neurarch_components::column::{ColumnKey, RowBundle};
use neurarch_components::population::Population;
use neurarch_kernels::ir::program::Slot;

use super::error::CheckpointError;
use super::index::{ColumnEntry, PopulationEntry, Section, role_of};
use super::open::Checkpoint;
use super::part::Chosen;
use crate::errors::SignError;
use crate::storage::bind::Binder;
use crate::storage::binders::Binders;
use crate::storage::members::listed;
use crate::storage::visit::visit;

impl Checkpoint {
    /// Writes the rows of some models, whose structure is a group of a population now, into its columns: those of `slots`,
    /// which are the file's.
    pub(super) fn write_rows(
        &self,
        world: &mut World,
        (population, number): (Entity, usize),
        chosen: &Chosen<'_>,
        slots: &[Slot],
    ) -> Result<(), CheckpointError> {
        let models = world.get::<Population>(population).map_or(0, Population::len);
        let modules = chosen.entries().iter();
        let columns = modules.flat_map(|module| module.columns.of(&self.index().columns));
        let rows = columns.map(|column| {
            self.check_rows(column, &chosen.members)?;
            Ok(self.unchecked(column.rows))
        });
        let rows = rows.collect::<Result<Vec<_>, CheckpointError>>()?;
        let members = listed(models, &chosen.indices);
        let written = vec![true; slots.len()];
        let mut binder = Binders::take(world, population, number);
        let bound = binder.bind(world, population, number, &members, slots, &written);
        let bound = bound.map_err(SignError::from)?;
        let row_bytes = |slot: &Slot| ColumnKey::new(slot.role, slot.index, &slot.ty).row_bytes();
        let bytes: Vec<_> = slots.iter().map(row_bytes).collect();
        let mut places = chosen.members.clone();
        visit(bound, &mut places, |member, &mut place| {
            for ((slot, &bytes), rows) in bytes.iter().enumerate().zip(&rows) {
                let row = &rows[place as usize * bytes..][..bytes];
                member.row_mut(slot, bytes).copy_from_slice(row);
            }
        });
        Binders::put(world, population, number, binder);
        Ok(())
    }

    /// Writes zeros to the rows of some models in columns of their group.
    pub(super) fn clear_rows(
        &self,
        world: &mut World,
        (population, number): (Entity, usize),
        indices: &[u32],
        slots: &[Slot],
    ) -> Result<(), CheckpointError> {
        let models = world.get::<Population>(population).map_or(0, Population::len);
        let written = vec![true; slots.len()];
        let mut binder = Binder::default();
        let members = listed(models, indices);
        let bound = binder.bind(world, population, number, &members, slots, &written);
        let bound = bound.map_err(SignError::from)?;
        let bytes: Vec<_> = (0..slots.len()).map(|slot| bound.row_bytes(slot)).collect();
        visit(bound, &mut vec![(); indices.len()], |member, ()| {
            bytes.iter().enumerate().for_each(|(slot, &bytes)| member.row_mut(slot, bytes).fill(0));
        });
        Ok(())
    }

    /// Checks the rows of some members in a column.
    pub(super) fn check_rows(
        &self,
        column: &ColumnEntry,
        members: &[u32],
    ) -> Result<(), CheckpointError> {
        let bytes = column.row_bytes;
        if members.len() as u64 * bytes == column.rows.bytes {
            return self.section(column.rows).map(drop);
        }
        members.iter().try_for_each(|&member| {
            let at = column.rows.at + u64::from(member) * bytes;
            self.section(Section { at, bytes }).map(drop)
        })
    }

    /// Gives a population's entity the rows of what its models share.
    pub(super) fn write_shared(
        &self,
        world: &mut World,
        entry: &PopulationEntry,
        population: Entity,
    ) -> Result<(), CheckpointError> {
        for column in entry.columns.of(&self.index().columns) {
            let of = role_of(column.role).zip(column.ty());
            let (role, ty) = of.ok_or_else(|| CheckpointError::index("a column is none"))?;
            let index = column.index as usize;
            let key = SharedRow { owner: population, index }.key(role, &ty);
            let rows = self.section(column.rows)?;
            let mut bundle = RowBundle::new(world, [key], None);
            if let Some(row) = bundle.row_mut(key) {
                row.copy_from_slice(rows);
            }
            if let Ok(mut entity) = world.get_entity_mut(population) {
                bundle.insert(&mut entity);
            }
        }
        Ok(())
    }
}
