//! [`Undo`]: what plans are about to write, kept where a hook of a shared parameter may fail after them.

use bevy_ecs::prelude::*;
use neurarch_components::column::{ColumnKey, row, row_mut};
use neurarch_components::mode::Draws;

use crate::cohort::population;
use crate::hooks::Runner;
use crate::run::Run;
use crate::step::StepError;

/// Rows and counts of draws as they were. Hooks of a shared parameter are told of a sum that the plans make while they
/// write the models' own gradients or parameters.
pub(crate) struct Undo {
    rows: Vec<(Entity, ColumnKey, Vec<u8>)>,
    draws: Vec<(Entity, u64)>,
}

impl Undo {
    /// Copies what the plans of a pass write, `chosen` by the cohort's number; `None` if nobody watches what is shared,
    /// so that nothing can fail after them.
    ///
    /// # Errors
    ///
    /// If the entity is no population.
    pub(crate) fn of(
        world: &World,
        run: &Run,
        of: Entity,
        chosen: impl Fn(usize) -> usize,
    ) -> Result<Option<Self>, StepError> {
        if !is_watched(world, run, of)? {
            return Ok(None);
        }
        let mut undo = Undo { rows: Vec::new(), draws: Vec::new() };
        for (number, cohort) in run.cohorts.list.iter().enumerate() {
            let Some(ready) = cohort.ready.get(chosen(number)) else { continue };
            let group = &population(world, of)?.groups()[cohort.at.group];
            let planned = &ready.planned;
            let slots = planned.plan.program.slots.iter().zip(&planned.written);
            for (slot, _) in slots.filter(|(_, is_written)| **is_written) {
                let key = ColumnKey::of(slot);
                let modules = &group.modules[slot.position];
                let members = cohort.places.iter().map(|&place| modules[place as usize]);
                let rows = members.filter_map(|at| Some((at, key, row(world, at, key)?.to_vec())));
                undo.rows.extend(rows);
            }
            let roots = cohort.places.iter().map(|&place| group.modules[0][place as usize]);
            let draws = roots.filter_map(|root| Some((root, world.get::<Draws>(root)?.0)));
            undo.draws.extend(draws.filter(|_| planned.is_random));
        }
        Ok(Some(undo))
    }

    /// Puts everything back.
    pub(crate) fn restore(self, world: &mut World) {
        for (at, key, before) in self.rows {
            if let Some(row) = row_mut(world, at, key) {
                row.copy_from_slice(&before);
            }
        }
        for (root, before) in self.draws {
            if let Some(mut draws) = world.get_mut::<Draws>(root) {
                draws.0 = before;
            }
        }
    }
}

/// Says whether a hook is told of gradients of what a population shares.
fn is_watched(world: &World, run: &Run, of: Entity) -> Result<bool, StepError> {
    for cohort in run.cohorts.list.iter().filter(|cohort| cohort.is_eager) {
        let shared = cohort.scheme.shared_trainable();
        if shared.is_empty() {
            continue;
        }
        let group = &population(world, of)?.groups()[cohort.at.group];
        let own = cohort.scheme.mode.hooked.then(|| cohort.places[0] as usize);
        let runner =
            Runner::new(world, &cohort.scheme.blueprint, run.shared.clone(), group, own, 1);
        if shared.iter().any(|(_, parameter)| runner.watches_gradients(parameter.slot.position)) {
            return Ok(true);
        }
    }
    Ok(false)
}
