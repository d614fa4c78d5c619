//! Counts the calls that write to columns of a population's models.

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::population::versions::Versions;
use neurarch_kernels::ir::program::Slot;

/// Counts a call that writes to these parameters or buffers of all models of a structure, if there are any.
pub(super) fn count_write<'s>(
    world: &mut World,
    population: Entity,
    of: BlueprintId,
    slots: impl Iterator<Item = &'s Slot>,
) {
    let mut slots = slots.peekable();
    if slots.peek().is_none() {
        return;
    }
    if let Some(mut versions) = world.get_mut::<Versions>(population) {
        versions.write(of, slots);
    }
}
