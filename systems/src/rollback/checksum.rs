//! [`checksum`]: whether two worlds have the same population.

use bevy_ecs::prelude::*;
use crc_fast::{CrcAlgorithm, Digest};
use neurarch_components::column::{Columns, row};
use neurarch_components::module::mode::{Draws, HasGradient, Mode};
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::program::{Role, Slot};

use super::error::RollbackError;
use crate::errors::SignError;
use crate::storage::binders::Binders;
use crate::storage::members::listed;
use crate::structure::sign;

/// Computes a checksum of what a population's models are: all rows, their numbers, random states and modes, in the order of
/// their indices within each structure. Gradients and optimizer state that are zero count as none. Peers of a lockstep game compare it to find out whether they are in step.
///
/// Hyperparameters and other components are not in it: where they differ, rows soon do.
///
/// # Errors
///
/// If there is no such population, or a model's tree is no model.
///
/// Source: CRC-64/NVME of the bytes; `SaveWorldSystems::Checksum` of `bevy_ggrs`.
pub fn checksum(world: &mut World, population: Entity) -> Result<u64, RollbackError> {
    sign::refresh(world, population)?;
    let found = world.get::<Population>(population);
    let found = found.ok_or(SignError::NotAPopulation(population))?;
    let (models, groups) = (found.len(), found.groups().to_vec());
    let mut sum = Digest::new(CrcAlgorithm::Crc64Nvme);
    sum.update(&found.seed.to_le_bytes());
    sum.update(&found.next_number().to_le_bytes());
    for key in Columns::shared_of(world, population) {
        sum.update(row(world, population, key).unwrap_or_default());
    }
    for (number, group) in groups.iter().enumerate() {
        for (&index, &root) in group.members.iter().zip(&group.modules[0]) {
            sum.update(&index.to_le_bytes());
            let model = world.get::<Model>(root).map_or(0, |model| model.number);
            sum.update(&model.to_le_bytes());
            sum.update(&world.get::<Draws>(root).map_or(0, |draws| draws.0).to_le_bytes());
            let mode = world.get::<Mode>(root).cloned().unwrap_or_default();
            sum.update(&[u8::from(mode.inactive)]);
            let gradients = world.get::<HasGradient>(root).cloned().unwrap_or_default();
            for bits in [mode.evaluating, mode.frozen, gradients.0] {
                Vec::<u64>::from(bits).iter().for_each(|word| sum.update(&word.to_le_bytes()));
            }
        }
        let slots: Vec<Slot> = group.contents.iter().flat_map(|of| of.slots()).collect();
        let members = listed(models, &group.members);
        let mut binder = Binders::take(world, population, number);
        let bound = binder.bind(world, population, number, &members, &slots, &[]);
        if let Ok(bound) = &bound {
            for (number, slot) in slots.iter().enumerate() {
                let is_own = matches!(slot.role, Role::Parameter | Role::Buffer);
                for member in 0..bound.members() {
                    let row = bound.row(number, member, slot.ty.size_bytes());
                    if is_own || row.iter().any(|&byte| byte != 0) {
                        let of = [slot.position, slot.index, member].map(|at| at as u32);
                        sum.update(bytemuck::cast_slice(&of));
                        sum.update(row);
                    }
                }
            }
        }
        bound?;
        Binders::put(world, population, number, binder);
    }
    Ok(sum.finalize())
}
