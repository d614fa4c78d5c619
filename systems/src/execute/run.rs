//! [`Run`]: what a population keeps from one call to the next: cohorts, the tape, memory to use again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::compile::entrance::Entrance;
use crate::compile::plans::Plans;
use crate::compile::results::Results;
use crate::errors::StepError;
use crate::execute::cohort::{Cohort, Cohorts, Passed};
use crate::execute::hooks::OuterHooks;
use crate::execute::loss_arrays::LossArrays;
use crate::execute::record::Record;
use crate::execute::route::Route;
use crate::execute::shared;
use crate::execute::shared::{Chunks, SharedOptimizers};
use crate::execute::tape::{InputGradients, Start, Tape};
use crate::storage::launch::Buffers;
use crate::structure::population::{Models, population};
use crate::structure::{columns, mode};

/// What a population keeps from one call to the next; a component of its entity. None while a call has it.
#[derive(Component)]
pub(crate) struct KeptRun(Option<Box<Run>>);

/// See [`KeptRun`].
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) cohorts: Cohorts,
    pub(crate) buffers: Buffers,
    pub(crate) tape: Tape,
    pub(crate) loss: LossArrays,
    /// The routes of this call, cohort after cohort.
    pub(crate) chosen: Vec<Route>,
    /// For each cohort whose forward pass was watched, what going back takes.
    pub(crate) recorded: Vec<Option<Record>>,
    /// Whether a pass has begun since the last backward pass: models are grouped for a new one, and their earlier cohorts
    /// keep none of them apart.
    has_begun: bool,
    /// The population's models. This and what follows is read when a call begins, and stays so while it runs.
    pub(crate) models: Models,
    /// Whether forward passes keep what going back takes.
    pub(crate) keeps_gradients: bool,
    /// The hooks of all models, if there are any.
    pub(crate) shared: Option<OuterHooks>,
    /// The models in the order in which gradients of shared parameters are summed.
    pub(crate) chunks: Chunks,
    /// Who updates shared parameters.
    pub(crate) shared_optimizers: SharedOptimizers,
    /// How often plans were evicted when cohorts last let go of such.
    evictions: u64,
    /// Whether optimizers were called since [`forget_steps`].
    has_stepped: bool,
}

/// Returns whether the optimizers of a population were called since [`forget_steps`].
pub(crate) fn has_stepped(world: &World, population: Entity) -> bool {
    let kept = world.get::<KeptRun>(population);
    kept.and_then(|kept| kept.0.as_ref()).is_some_and(|run| run.has_stepped)
}

/// Marks the optimizers of a population as not called yet.
pub(crate) fn forget_steps(world: &mut World, population: Entity) {
    if let Some(mut kept) = world.get_mut::<KeptRun>(population)
        && let Some(run) = &mut kept.0
    {
        run.has_stepped = false;
    }
}

/// Takes the run out of the world, so that both can be used, regroups its cohorts if need be, and puts
/// it back: also if what users wrote panics.
///
/// # Errors
///
/// [`StepError::Busy`] if a call has it already, and what `work` gives.
pub(crate) fn with_run<R>(
    world: &mut World,
    population: Entity,
    work: impl FnOnce(&mut World, &mut Run) -> Result<R, StepError>,
) -> Result<R, StepError> {
    let mut run = take(world, population)?;
    let made = AssertUnwindSafe(|| {
        run.refresh(world, population)?;
        work(world, &mut run)
    });
    let made = catch_unwind(made);
    put_back(world, population, run);
    made.unwrap_or_else(|panic| resume_unwind(panic))
}

/// [`with_run`] for several populations at once.
///
/// # Errors
///
/// As [`with_run`]: [`StepError::Busy`] of a population that is listed twice.
pub(crate) fn with_runs<R>(
    world: &mut World,
    populations: &[Entity],
    work: impl FnOnce(&mut World, &mut [Box<Run>]) -> Result<R, StepError>,
) -> Result<R, StepError> {
    let mut runs = Vec::with_capacity(populations.len());
    let made = AssertUnwindSafe(|| {
        for &population in populations {
            runs.push(take(world, population)?);
            runs.last_mut().map_or(Ok(()), |run: &mut Box<Run>| run.refresh(world, population))?;
        }
        work(world, &mut runs)
    });
    let made = catch_unwind(made);
    for (&population, run) in populations.iter().zip(runs) {
        put_back(world, population, run);
    }
    made.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Takes what a population keeps out of the world.
fn take(world: &mut World, of: Entity) -> Result<Box<Run>, StepError> {
    if let Some(mut kept) = world.get_mut::<KeptRun>(of) {
        return kept.0.take().ok_or(StepError::Busy(of));
    }
    population(world, of)?;
    world.entity_mut(of).insert(KeptRun(None));
    Ok(Box::default())
}

fn put_back(world: &mut World, population: Entity, run: Box<Run>) {
    if let Some(mut kept) = world.get_mut::<KeptRun>(population) {
        kept.0 = Some(run);
    }
}

/// Lets all populations but the running one go of plans that were evicted; that one does so when its next call begins.
fn forget_evicted(world: &mut World) {
    let mut all = world.query::<&mut KeptRun>();
    for mut kept in all.iter_mut(world) {
        if let Some(run) = &mut kept.0 {
            run.cohorts.forget_evicted();
        }
    }
}

/// Returns whether there was a loss since the last forward pass, and no backward pass since.
pub(crate) fn has_loss(world: &World, population: Entity) -> bool {
    let run = world.get::<KeptRun>(population).and_then(|kept| kept.0.as_ref());
    run.is_some_and(|run| run.tape.start == Start::Loss)
}

/// Returns the bytes that a population keeps of its last forward pass.
pub(crate) fn tape_bytes(world: &World, population: Entity) -> usize {
    let run = world.get::<KeptRun>(population).and_then(|kept| kept.0.as_ref());
    run.map_or(0, |run| run.tape.bytes())
}

/// Returns the gradients of what the last forward pass was called with, as far as a backward pass found them:
/// their types, and a row for each model.
///
/// # Errors
///
/// If a model was spawned since the forward pass.
pub(crate) fn input_gradients(
    world: &World,
    population: Entity,
) -> Result<InputGradients, StepError> {
    let found = self::population(world, population)?;
    let run = world.get::<KeptRun>(population).and_then(|kept| kept.0.as_ref());
    run.map_or(Ok(Vec::new()), |run| run.tape.input_gradients(world, found))
}

impl Run {
    /// Regroups the cohorts if need be, and finds out which of them run eagerly.
    pub(crate) fn refresh(
        &mut self,
        world: &mut World,
        population: Entity,
    ) -> Result<(), StepError> {
        let Run { cohorts, tape, recorded, has_begun, .. } = self;
        self.models = cohorts.refresh(world, population, || {
            let keeps_apart = !*has_begun && recorded.iter().any(Option::is_some);
            if keeps_apart { tape.passes(recorded) } else { Passed::new() }
        })?;
        let (call, evictions) = Plans::begin_call(world, forget_evicted);
        if self.evictions != evictions {
            self.cohorts.forget_evicted();
            self.evictions = evictions;
        }
        self.keeps_gradients = mode::is_grad_enabled(world);
        self.shared = OuterHooks::of(world, population);
        let autocast = mode::autocast_mode(world);
        for cohort in &mut self.cohorts.list {
            cohort.is_watched = self.shared.is_some() || cohort.scheme.mode.hooked;
            cohort.scheme.autocast = autocast;
            cohort.scheme.entry = None;
            cohort.call = call;
        }
        Ok(())
    }

    /// Makes a run of a cohort alone, with the same hooks; what this one keeps stays as it is.
    pub(crate) fn apart(&self, cohort: Cohort) -> Run {
        Run {
            cohorts: Cohorts::of_one(cohort),
            models: self.models,
            keeps_gradients: self.keeps_gradients,
            shared: self.shared.clone(),
            ..Run::default()
        }
    }

    /// Has the models entered at a module below their roots, until the next refresh.
    pub(crate) fn enter(&mut self, entry: Option<&Arc<Entrance>>) {
        let below = |cohort: &Cohort| {
            let blueprint = &cohort.scheme.blueprint;
            Some(blueprint.dtype_below(entry?.position(blueprint)?, self.models.dtype))
        };
        let mut types = self.cohorts.list.iter().map(below);
        if let Some(Some(first)) = types.next()
            && types.all(|dtype| dtype == Some(first))
        {
            self.models.dtype = first;
        }
        self.cohorts.list.iter_mut().for_each(|cohort| cohort.scheme.entry = entry.cloned());
    }

    /// Makes the tape follow the population: see [`Tape::follow`]. Models that were grouped anew since the pass are
    /// grouped by what they ran in.
    ///
    /// # Errors
    ///
    /// As [`Tape::follow`].
    pub(crate) fn follow(&mut self, world: &mut World, of: Entity) -> Result<(), StepError> {
        let keeps_some = self.recorded.iter().any(Option::is_some);
        if keeps_some && self.has_begun && !self.tape.has_seen(&self.cohorts) {
            self.has_begun = false;
            self.cohorts.bring_together();
            self.refresh(world, of)?;
        }
        self.tape.follow(world, population(world, of)?, &self.cohorts, &mut self.recorded)
    }

    /// Groups the models for a new pass, and takes the mark off those whose last hook is gone. Only a new pass does so: a
    /// pass that a hook saw before it removed itself may still have its `backward` to come.
    pub(crate) fn begin_pass(
        &mut self,
        world: &mut World,
        population: Entity,
    ) -> Result<(), StepError> {
        self.has_begun = true;
        let are_some_gone = self.cohorts.forget_hooks_that_are_gone(world, population)?;
        if are_some_gone || self.cohorts.is_apart {
            self.cohorts.bring_together();
            self.refresh(world, population)?;
        }
        Ok(())
    }

    /// Sets cohorts apart that have to run eagerly, and gives every model of theirs a cohort of its own if it has hooks of
    /// its own or reads numbers; `chosen` has so many places a cohort.
    pub(crate) fn part_eager(&mut self, n_chosen: usize) {
        for place in 0..self.cohorts.list.len() {
            let cohort = &mut self.cohorts.list[place];
            let chosen = &self.chosen[place * n_chosen..][..n_chosen];
            if !chosen.iter().any(|route| route.is_eager()) {
                // Who is alone for nothing goes back to the others when the next pass begins.
                self.cohorts.is_apart |= cohort.is_alone;
                continue;
            }
            cohort.is_watched = true;
            let are_alone = chosen.contains(&Route::Alone);
            let n_apart = if are_alone { cohort.places.len() } else { cohort.turns() };
            if n_apart == 1 {
                continue;
            }
            cohort.is_alone = are_alone;
            let ones: Vec<_> = (1..n_apart).map(|member| cohort.alone(member)).collect();
            let record = self.recorded.get_mut(place).and_then(Option::take);
            let part = |member: usize| record.as_ref().and_then(|record| record.part(&[member]));
            if record.is_some() {
                self.recorded[place] = part(0);
                self.recorded.resize_with(self.cohorts.list.len(), || None);
                self.recorded.extend((1..=ones.len()).map(part));
            }
            let route = if are_alone { Route::Alone } else { Route::Eager };
            self.chosen[place * n_chosen..][..n_chosen].fill(route);
            self.cohorts.part(place, &[0], ones, are_alone);
            self.chosen.resize(self.cohorts.list.len() * n_chosen, route);
        }
    }

    /// Gives members of a cohort, by their places, which increase, cohorts of their own, which run eagerly; returns their places
    /// in the list. `chosen` has so many places a cohort.
    pub(crate) fn part_changed(
        &mut self,
        place: usize,
        members: &[usize],
        mut ones: Vec<Cohort>,
        n_chosen: usize,
    ) -> Vec<usize> {
        let first = self.cohorts.list.len();
        let all = self.cohorts.list[place].places.len();
        let kept: Vec<_> =
            (0..all).filter(|member| members.binary_search(member).is_err()).collect();
        let mut places = Vec::with_capacity(members.len());
        if kept.is_empty() {
            self.cohorts.list[place] = ones.remove(0);
            self.chosen[place * n_chosen..][..n_chosen].fill(Route::Eager);
            places.push(place);
        }
        places.extend(first..first + ones.len());
        self.cohorts.part(place, &kept, ones, true);
        self.chosen.resize(self.cohorts.list.len() * n_chosen, Route::Eager);
        places
    }

    /// Begins a step of the optimizers: checks that every model has one, and those that share a parameter the same one for
    /// it.
    pub(crate) fn begin_step(
        &mut self,
        world: &World,
        population: Entity,
    ) -> Result<(), StepError> {
        self.has_stepped = true;
        let missing = self.cohorts.list.iter().try_for_each(Cohort::check_optimizer).err();
        if let Some(missing) = missing.filter(|_| !shared::has_optimizer(world, population)) {
            return Err(missing);
        }
        self.shared_optimizers.refresh(world, population, &self.cohorts)
    }

    /// Returns whether some models have modules that become others when they are first called.
    pub(crate) fn has_lazy(&self) -> bool {
        self.cohorts.list.iter().any(|cohort| cohort.is_lazy)
    }

    /// Returns the results of the chosen plans, one a cohort; `None` if none is planned.
    pub(crate) fn planned_results(&self) -> Option<&Results> {
        let mut planned = self.cohorts.list.iter().zip(&self.chosen);
        planned.find_map(|(cohort, route)| route.ready(&cohort.ready)?.planned.results.as_ref())
    }

    /// Adds the columns that the chosen plans need and that are not there yet, such as those of an
    /// optimizer that came; says whether there were any. Plans have to be chosen anew then.
    ///
    /// `of` gives the cohort that a place in [`chosen`](Run::chosen) is for.
    pub(crate) fn add_columns(
        &mut self,
        world: &mut World,
        population: Entity,
        of: impl Fn(usize) -> usize,
    ) -> Result<bool, StepError> {
        let mut added = false;
        for (number, route) in self.chosen.iter().enumerate() {
            let cohort = &mut self.cohorts.list[of(number)];
            let group = cohort.at.group;
            let ready = route.plan().and_then(|place| cohort.ready.get_mut(place));
            let Some(ready) = ready else { continue };
            if !ready.has_columns {
                let slots = ready.planned.plan.program.slots.iter();
                let is_own = |slot: &&Slot| matches!(slot.role, Role::Parameter | Role::Buffer);
                let companions: Vec<_> = slots.filter(|slot| !is_own(slot)).cloned().collect();
                added |= columns::add_columns(world, population, group, &companions);
                ready.has_columns = true;
            }
        }
        if added {
            self.refresh(world, population)?;
        }
        Ok(added)
    }

    /// Checks that the results of the chosen plans, one a cohort, fit one array.
    pub(crate) fn check_results(&self) -> Result<(), StepError> {
        let Some(first) = self.planned_results() else { return Ok(()) };
        let planned = self.cohorts.list.iter().zip(&self.chosen);
        let mut planned = planned.filter_map(|(cohort, route)| route.ready(&cohort.ready));
        planned.try_for_each(|ready| match &ready.planned.results {
            Some(own) => first.check(own),
            None => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use neurarch_components::layers::Linear;
    use neurarch_kernels::ir::dtype::Dtype;

    use super::*;
    use crate::compile::plans::Plans;
    use crate::execute::step::forward;
    use crate::structure::spawn::spawn_population;

    /// Counts the plans that the cohorts of a population keep.
    fn kept(world: &World, population: Entity) -> usize {
        let run = world.get::<KeptRun>(population).and_then(|kept| kept.0.as_ref());
        run.map_or(0, |run| run.cohorts.list.iter().map(|cohort| cohort.ready.len()).sum())
    }

    #[test]
    fn all_populations_let_go_of_evicted_plans() {
        let mut world = World::new();
        let populations = [1, 2].map(|seed| {
            spawn_population(&mut world, &Linear::new(2, 2), 2, 2, seed, Dtype::F32).unwrap()
        });
        let call = |world: &mut World, which: usize, size: usize| {
            forward(world, populations[which], &Array3::<f32>::ones((2, size, 2))).unwrap();
            [kept(world, populations[0]), kept(world, populations[1])]
        };
        assert_eq!(call(&mut world, 0, 1), [1, 0]);
        assert_eq!(call(&mut world, 0, 2), [2, 0]);
        world.resource_mut::<Plans>().max_bytes = 0;
        assert_eq!(call(&mut world, 1, 3), [0, 1], "one rests, the other's is in use");
        let plans = |world: &World| world.resource::<Plans>().plans().count();
        assert_eq!(plans(&world), 2, "a forward pass and the way back");
        assert_eq!(call(&mut world, 1, 4), [0, 2], "nothing moves while a call runs");
        assert_eq!(call(&mut world, 1, 4), [0, 1]);
        assert_eq!(plans(&world), 2);
    }
}
