//! [`Undo`]: what plans are about to write, kept where a hook of a shared parameter may fail after them.

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::Draws;

use crate::errors::StepError;
use crate::execute::hooks::Runner;
use crate::execute::route::Route;
use crate::execute::run::Run;
use crate::execute::undo;
use crate::structure::population::population;

/// Rows and counts of draws as they were. Hooks of a shared parameter are told of a sum that the plans make while they
/// write the models' own gradients or parameters.
pub(crate) struct Undo {
    /// Those of each cohort, by its number.
    rows: Vec<(usize, undo::Undo)>,
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
        world: &mut World,
        run: &mut Run,
        of: Entity,
        chosen: impl Fn(&Run, usize) -> Route,
    ) -> Result<Option<Self>, StepError> {
        if !is_watched(world, run, of)? {
            return Ok(None);
        }
        let mut undo = Undo { rows: Vec::new(), draws: Vec::new() };
        for number in 0..run.cohorts.list.len() {
            let route = chosen(run, number);
            let cohort = &mut run.cohorts.list[number];
            let Some(ready) = route.planned(&cohort.ready) else { continue };
            let planned = &ready.planned;
            undo.rows.push((number, undo::Undo::of(world, &mut cohort.at, planned)?));
            let group = &population(world, of)?.groups()[cohort.at.group];
            let roots = cohort.places.iter().map(|&place| group.modules[0][place as usize]);
            let draws = roots.filter_map(|root| Some((root, world.get::<Draws>(root)?.0)));
            undo.draws.extend(draws.filter(|_| planned.is_random));
        }
        Ok(Some(undo))
    }

    /// Puts everything back.
    ///
    /// # Errors
    ///
    /// If a column is gone.
    pub(crate) fn restore(self, world: &mut World, run: &mut Run) -> Result<(), StepError> {
        for (number, rows) in self.rows {
            rows.restore(world, &mut run.cohorts.list[number].at)?;
        }
        for (root, before) in self.draws {
            if let Some(mut draws) = world.get_mut::<Draws>(root) {
                draws.0 = before;
            }
        }
        Ok(())
    }
}

/// Returns whether a hook is told of gradients of what a population shares.
fn is_watched(world: &World, run: &Run, of: Entity) -> Result<bool, StepError> {
    for cohort in run.cohorts.list.iter().filter(|cohort| cohort.is_watched) {
        let shared = cohort.scheme.shared_trainable();
        if shared.is_empty() {
            continue;
        }
        let group = &population(world, of)?.groups()[cohort.at.group];
        for &place in cohort.places.iter().take(cohort.turns()) {
            let (blueprint, shared_hooks) = (&cohort.scheme.blueprint, run.shared.clone());
            let own = cohort.hooked().map(|_| place as usize);
            let runner = Runner::new(world, blueprint, shared_hooks, group, own, 1);
            let mut positions = shared.iter().map(|(_, parameter)| parameter.slot.position);
            if positions.any(|position| runner.watches_gradients(position)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
