//! Rows come out of a checkpoint, into columns that are there.

use bevy_ecs::prelude::*;
use neurarch_components::column::RowBundle;
use neurarch_components::column::shared::SharedRow;
use neurarch_components::population::Population;
use neurarch_kernels::ir::program::Slot;

use super::error::CheckpointError;
use super::index::{GroupEntry, PopulationEntry, role_of};
use super::open::Checkpoint;
use crate::errors::SignError;
use crate::storage::binders::Binders;
use crate::storage::members::listed;
use crate::storage::visit::visit;

impl Checkpoint {
    /// Writes the rows of the models of a group, whose indices these are now: all that the file has, or, with `which`, of
    /// some of its members alone.
    pub(super) fn write_rows(
        &self,
        world: &mut World,
        (population, number): (Entity, usize),
        group: &GroupEntry,
        slots: &[Slot],
        indices: &[u32],
    ) -> Result<(), CheckpointError> {
        let models = world.get::<Population>(population).map_or(0, Population::len);
        let modules = group.modules.of(&self.index().modules).iter();
        let columns = modules.flat_map(|module| module.columns.of(&self.index().columns));
        let rows = columns.map(|column| self.section(column.rows));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let members = listed(models, indices);
        let written = vec![true; slots.len()];
        let mut binder = Binders::take(world, population, number);
        let bound = binder.bind(world, population, number, &members, slots, &written);
        let bound = bound.map_err(SignError::from)?;
        let bytes: Vec<_> = (0..slots.len()).map(|slot| bound.row_bytes(slot)).collect();
        let mut places: Vec<usize> = (0..indices.len()).collect();
        visit(bound, &mut places, |member, &mut place| {
            for ((slot, &bytes), rows) in bytes.iter().enumerate().zip(&rows) {
                member.row_mut(slot, bytes).copy_from_slice(&rows[place * bytes..][..bytes]);
            }
        });
        Binders::put(world, population, number, binder);
        Ok(())
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
