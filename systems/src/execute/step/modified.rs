//! Parameters that somebody wrote to between a forward pass and the way back from it.

use bevy_ecs::prelude::*;
use neurarch_components::column::Columns;
use neurarch_components::population::group::Group;
use neurarch_components::population::versions::Versions;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::record::Record;
use crate::execute::run::Run;
use crate::execute::tape::Written;
use crate::structure::population::population;

/// Checks that what the chosen plans read once more has the numbers that the forward pass read: of a plan its own
/// parameters and buffers; of an observed pass, which may be made again, all parameters. An eager record has copies.
///
/// # Errors
///
/// [`StepError::Modified`].
pub(super) fn check(world: &World, run: &mut Run, of: Entity) -> Result<(), StepError> {
    let Run { cohorts, recorded, chosen, tape, .. } = run;
    for (place, (cohort, route)) in cohorts.list.iter_mut().zip(&*chosen).enumerate() {
        match recorded.get(place).and_then(Option::as_ref) {
            Some(Record::Eager(_)) => {}
            Some(Record::Observed(_)) => {
                let mut slots = cohort.scheme.slots();
                slots.retain(|slot| slot.role == Role::Parameter);
                check_slots(world, cohort, of, &slots, tape.written)?;
            }
            None => {
                let Some(ready) = route.ready(&cohort.ready) else { continue };
                let planned = ready.planned.clone();
                check_slots(world, cohort, of, &planned.reads, tape.written)?;
            }
        }
    }
    Ok(())
}

fn check_slots(
    world: &World,
    cohort: &mut Cohort,
    of: Entity,
    slots: &[Slot],
    then: Written,
) -> Result<(), StepError> {
    if slots.is_empty() {
        return Ok(());
    }
    let group = &population(world, of)?.groups()[cohort.at.group];
    let modified = |slot: &Slot, model: usize| {
        let (name, ty) = (slot.name.clone(), slot.ty.clone());
        Err(StepError::Modified { name, ty, model })
    };
    let at = (of, cohort.at.group, &cohort.at.members);
    for slot in cohort.reads.written_since(world, at, slots, then.tick)? {
        let mut members = cohort.at.members.indices().zip(&cohort.places);
        let written =
            members.find(|&(_, &place)| is_written(world, group, place, &slots[slot], then));
        if let Some((model, _)) = written {
            return modified(&slots[slot], model);
        }
    }
    let Some(versions) = world.get::<Versions>(of) else { return Ok(()) };
    let is_newer = |slot: &&Slot| versions.is_written_since(then.version, group.blueprint, slot);
    match slots.iter().find(is_newer) {
        Some(slot) => modified(slot, cohort.at.members.indices().next().unwrap_or(0)),
        None => Ok(()),
    }
}

/// Returns whether somebody wrote to a member's row.
fn is_written(world: &World, group: &Group, place: u32, slot: &Slot, then: Written) -> bool {
    let (home, key) = group.home(slot, place as usize);
    let ticks = Columns::find(world, key)
        .and_then(|id| world.get_entity(home).ok()?.get_change_ticks_by_id(id));
    ticks.is_none_or(|ticks| ticks.is_changed(then.tick, world.read_change_tick()))
}
