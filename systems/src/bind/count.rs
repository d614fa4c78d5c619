//! Counts the calls that write to columns of a population's models.

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::BlueprintId;
use neurarch_components::versions::Versions;
use neurarch_kernels::program::{Role, Slot};

/// Counts a call that writes to parameters or buffers of models of a structure.
pub(super) fn count_write(
    world: &mut World,
    population: Entity,
    of: BlueprintId,
    slots: &[Slot],
    written: &[bool],
) {
    let is_own = |slot: &Slot| matches!(slot.role, Role::Parameter | Role::Buffer);
    let all = slots.iter().zip(written);
    let mut all = all.filter(|(slot, written)| **written && is_own(slot)).map(|(slot, _)| slot);
    let Some(first) = all.next() else { return };
    if let Some(mut versions) = world.get_mut::<Versions>(population) {
        versions.write(of, std::iter::once(first).chain(all));
    }
}
