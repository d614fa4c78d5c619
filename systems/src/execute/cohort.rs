//! Who runs the same program: cohorts of a population's models, and their plans.
//!
//! Models of one blueprint with equal [`Mode`]s, gradients and optimizers form a cohort. Cohorts are
//! regrouped when the population changed or somebody wrote to those components, which costs a few
//! comparisons to ask; a plan is cached for each kind of program and each input type.

use std::collections::HashMap;
use std::sync::Arc;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::module::mode::{Bits, HasGradient, Mode};
use neurarch_components::optimizer::DynParamGroups;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::program::Program;

use crate::compile::script::Kinds;
use crate::compile::trace;
use crate::compile::trace::Scheme;
use crate::errors::StepError;
use crate::execute::hooks::{Memory, OwnHooks};
use crate::execute::keys::Keys;
use crate::execute::ready::Ready;
use crate::execute::route::Route;
use crate::execute::updates::Updates;
use crate::storage::bind::{Binder, Located};
use crate::storage::members::{Members, listed};
use crate::storage::write_detector::WriteDetector;
use crate::structure::optimizers::Optimizers;
use crate::structure::population::{Models, population};
use crate::structure::sign;

/// For each model's root, the cohort in which it made the pass kept for `backward`, and whether that left a record.
pub(crate) type Passed = HashMap<Entity, (u32, bool)>;

/// The cohorts of a population.
#[derive(Default)]
pub(crate) struct Cohorts {
    /// In the order of groups, then of their first members. Inactive models are in none.
    pub(crate) list: Vec<Cohort>,
    /// The population's version and the optimizers' generation at the last regrouping.
    made_at: Option<(u64, u64)>,
    /// Counts the regroupings.
    pub(crate) regrouped: u64,
    /// Counts the times that optimizers were looked at.
    pub(crate) rated: u64,
    /// Whether models with equal hooks may be in several cohorts: while a forward pass is kept for `backward`, its models
    /// stay apart from all others.
    pub(crate) is_apart: bool,
    /// For each group, its modes and gradients.
    modes: Vec<WriteDetector>,
    /// For each group, its optimizers.
    rates: Vec<WriteDetector>,
}

/// Models that run the same programs.
pub(crate) struct Cohort {
    /// What they have in common.
    pub(crate) scheme: Scheme,
    /// Their blueprint.
    pub(crate) blueprint: BlueprintId,
    /// The positions whose mode decides what is run: those of others may be in any.
    asking: Bits,
    /// Who they are, and where their rows are.
    pub(crate) at: Located,
    /// Where the parameters are that the backward pass reads.
    pub(crate) reads: Binder,
    /// Each member's place in the group.
    pub(crate) places: Vec<u32>,
    /// Whether a forward pass is to keep what `backward` will need, unless gradients are off.
    pub(crate) keeps_tape: bool,
    /// Whether it has modules that become others when they are first called.
    pub(crate) is_lazy: bool,
    /// What its updates read, once it trained eagerly.
    pub(crate) updates: Option<Arc<Updates>>,
    /// The memory of the last record of its members, for the next one.
    pub(crate) spare: Option<Box<(Program, Eager)>>,
    /// Whether somebody watches it, or asks for what no plan gives: it runs apart from the others.
    pub(crate) is_watched: bool,
    /// Whether it is of one member that is apart from others like it, since its numbers were read in the middle of a pass.
    pub(crate) is_alone: bool,
    /// The hooks of their own that its members have, if they have any.
    pub(crate) own: Option<OwnHooks>,
    /// Which cohort its members were in, if they stay apart for it: see [`Cohorts::refresh`].
    pass: Option<u32>,
    /// The hooks with which an observed pass would be made for nothing, since one of them changes what it sees, or
    /// what they would see cannot be planned. None after an error.
    pub(crate) changes: Option<Vec<Kinds>>,
    /// The memory of its last observed pass.
    pub(crate) observed: Memory,
    /// The positions where a model may have an optimizer, and what those of the cohort have.
    owned: Vec<(usize, Option<Arc<dyn DynParamGroups>>)>,
    /// Their random states.
    pub(crate) keys: Keys,
    /// The plans that they ran so far, but for those that were evicted since.
    pub(crate) ready: Vec<Ready>,
    /// The number of the call that runs, or was run last.
    pub(crate) call: u64,
}

impl Cohorts {
    /// Makes the list of one.
    pub(crate) fn of_one(cohort: Cohort) -> Self {
        Cohorts { list: vec![cohort], ..Cohorts::default() }
    }

    /// Regroups the models of `population` if something changed. `passed` gives for each model's root the cohort of the
    /// forward pass kept for `backward`, and whether that left a record: models of different cohorts stay apart if they
    /// have a record, or hooks.
    pub(crate) fn refresh(
        &mut self,
        world: &mut World,
        of: Entity,
        passed: impl FnOnce() -> Passed,
    ) -> Result<Models, StepError> {
        sign::refresh(world, of)?;
        let generation = Optimizers::generation(world);
        let found = population(world, of)?;
        let (now, models) = ((found.version(), generation), Models::of(found));
        if self.made_at == Some(now) && !are_stale(&self.modes, world, found.groups()) {
            if !are_stale(&self.rates, world, found.groups()) {
                return Ok(models);
            }
            if self.own_alike(world, found.groups()) {
                self.rates.iter_mut().for_each(|watch| watch.look(world));
                self.rated += 1;
                return Ok(models);
            }
        }
        if !self.follow(world, of, now)? {
            self.regroup(world, of, &passed())?;
        }
        self.made_at = Some(now);
        Ok(models)
    }

    /// Returns the population's version and the number of regroupings, as of the last refresh.
    pub(crate) fn now(&self) -> Option<(u64, u64)> {
        self.made_at.map(|(version, _)| (version, self.regrouped))
    }

    /// Follows the models that came, went, moved, became active or inactive or were written to since the last time, if all
    /// active models are one cohort and still are; says whether they are. Looks at those models, and at a tick of each of
    /// the others.
    fn follow(
        &mut self,
        world: &mut World,
        of: Entity,
        (_, generation): (u64, u64),
    ) -> Result<bool, StepError> {
        let Some((version, known)) = self.made_at.take() else { return Ok(false) };
        let found = population(world, of)?;
        let ([cohort], [group]) = (self.list.as_mut_slice(), found.groups()) else {
            return Ok(false);
        };
        let Some(turnover) = found.turnover(version).filter(|_| generation == known) else {
            return Ok(false);
        };
        // Places in the only group are indices.
        let is_one = !cohort.is_alone && !cohort.scheme.mode.hooked;
        if !is_one || group.members.len() != found.len() || found.is_empty() {
            return Ok(false);
        }
        let mut places: Vec<_> = turnover.collect();
        for watch in self.modes.iter_mut().chain(&mut self.rates) {
            watch.follow(world, group)?;
            if !watch.written(world, &mut places) {
                return Ok(false);
            }
        }
        places.sort_unstable();
        places.dedup();
        places.truncate(places.partition_point(|&place| (place as usize) < found.len()));
        let optimizers = world.resource::<Optimizers>();
        let is_inactive = |place: u32| {
            let mode = world.get::<Mode>(group.modules[0][place as usize]);
            mode.is_some_and(|mode| mode.inactive)
        };
        let (resting, running): (Vec<_>, Vec<_>) =
            places.iter().partition(|&&place| is_inactive(place));
        if !running.iter().all(|&place| cohort.fits(world, optimizers, group, place as usize)) {
            return Ok(false);
        }
        if cohort.take_over(world, group, &running, &resting)? {
            self.regrouped += 1;
        }
        if cohort.places.is_empty() {
            return Ok(false);
        }
        cohort.ready.iter_mut().for_each(|ready| ready.look_again(world));
        self.modes.iter_mut().chain(&mut self.rates).for_each(|watch| watch.look(world));
        self.rated += 1;
        Ok(true)
    }

    /// Returns whether every member still has optimizers like its cohort's.
    fn own_alike(&self, world: &World, groups: &[Group]) -> bool {
        let optimizers = world.resource::<Optimizers>();
        self.list.iter().all(|cohort| {
            let group = &groups[cohort.at.group];
            let mut places = cohort.places.iter();
            places.all(|&place| cohort.owns_like(world, optimizers, group, place as usize))
        })
    }

    /// Takes the mark off models whose last hook was removed; says whether there were any.
    pub(crate) fn forget_hooks_that_are_gone(
        &self,
        world: &mut World,
        of: Entity,
    ) -> Result<bool, StepError> {
        let mut gone = Vec::new();
        for cohort in &self.list {
            let Some(own) = &cohort.own else { continue };
            let group = &population(world, of)?.groups()[cohort.at.group];
            let places = cohort.places.iter().map(|&place| place as usize);
            let of_cohort = places.filter(|&place| !own.is_there(world, group, place));
            gone.extend(of_cohort.map(|place| group.modules[0][place]));
        }
        for &root in &gone {
            if let Some(mut mode) = world.get_mut::<Mode>(root) {
                mode.hooked = false;
            }
        }
        Ok(!gone.is_empty())
    }

    /// Forgets which models stay apart: the next refresh regroups all.
    pub(crate) fn bring_together(&mut self) {
        self.made_at = None;
        self.is_apart = false;
    }

    /// Leaves some members, by their places, in a cohort, if any, and adds cohorts of the others. If it `lasts`, they stay
    /// apart until something else has models regrouped.
    pub(crate) fn part(&mut self, place: usize, kept: &[usize], ones: Vec<Cohort>, lasts: bool) {
        if !kept.is_empty() {
            self.list[place].select(kept);
        }
        self.list.extend(ones);
        self.regrouped += 1;
        self.is_apart |= !lasts;
    }

    /// Lets go of plans that were evicted.
    pub(crate) fn forget_evicted(&mut self) {
        for cohort in &mut self.list {
            cohort.ready.retain(|ready| !ready.planned.is_evicted());
        }
    }

    /// Takes what was written so far as known: after writes to modes and gradients that the cohorts
    /// follow already.
    pub(crate) fn look(&mut self, world: &mut World) {
        self.modes.iter_mut().for_each(|watch| watch.look(world));
    }

    fn regroup(&mut self, world: &mut World, of: Entity, passed: &Passed) -> Result<(), StepError> {
        let toggled =
            [world.register_component::<Mode>(), world.register_component::<HasGradient>()];
        let (mut modes, mut rates) = (Vec::new(), Vec::new());
        self.made_at = None;
        self.list.clear();
        self.regrouped += 1;
        self.rated += 1;
        self.is_apart = !passed.is_empty();
        let found = population(world, of)?;
        let optimizers = world.resource::<Optimizers>();
        for (number, group) in found.groups().iter().enumerate() {
            let columns = optimizers.columns(world, group);
            modes.push(WriteDetector::of(world, group, toggled.map(|column| (0, column))));
            rates.push(WriteDetector::of(world, group, columns.iter().copied()));
            let Some(blueprint) = world.resource::<Blueprints>().get(group.blueprint) else {
                continue;
            };
            let first = self.list.len();
            let default = (Mode::default(), HasGradient::default());
            for (place, (&index, &root)) in group.members.iter().zip(&group.modules[0]).enumerate()
            {
                let mode = world.get::<Mode>(root).unwrap_or(&default.0);
                let gradients = world.get::<HasGradient>(root).unwrap_or(&default.1);
                if mode.inactive {
                    continue;
                }
                let own = mode.hooked.then(|| OwnHooks::of(world, group, place));
                let pass = passed.get(&root).filter(|(_, recorded)| own.is_some() || *recorded);
                let pass = pass.map(|&(pass, _)| pass);
                let known = self.list[first..].iter_mut().rev().find(|cohort| {
                    cohort.pass == pass
                        && cohort.own == own
                        && cohort.scheme.mode.runs_like(mode, &cohort.asking)
                        && cohort.scheme.has_gradient == gradients.0
                        && cohort.owns_like(world, optimizers, group, place)
                });
                if let Some(cohort) = known {
                    cohort.at.members.push(index);
                    cohort.places.push(place as u32);
                    continue;
                }
                let owned = owned(world, optimizers, &columns, group, place);
                let (mut mode, asking) = (mode.clone(), blueprint.asking_in(mode));
                mode.evaluating.intersect(&asking);
                let scheme = Scheme {
                    blueprint: blueprint.clone(),
                    mode,
                    has_gradient: gradients.0.clone(),
                    optimizers: trace::nearest(blueprint, &owned),
                    autocast: None,
                    entry: None,
                };
                self.list.push(Cohort {
                    scheme,
                    blueprint: group.blueprint,
                    asking,
                    at: Located::new(of, number, Members::first(found.len(), index)),
                    reads: Binder::default(),
                    places: vec![place as u32],
                    keeps_tape: false,
                    is_lazy: blueprint.positions.iter().any(|at| at.module.is_lazy()),
                    updates: None,
                    spare: None,
                    is_watched: false,
                    is_alone: false,
                    own,
                    pass,
                    changes: None,
                    observed: Memory::default(),
                    owned,
                    keys: Keys::default(),
                    ready: Vec::new(),
                    call: 0,
                });
            }
        }
        self.list.iter_mut().for_each(Cohort::settle);
        modes.iter_mut().chain(&mut rates).for_each(|watch| watch.look(world));
        (self.modes, self.rates) = (modes, rates);
        Ok(())
    }
}

/// Returns whether somebody wrote to what is watched in these groups, or moved their entities. Cheap if nobody did.
fn are_stale(watches: &[WriteDetector], world: &World, groups: &[Group]) -> bool {
    watches.len() != groups.len()
        || watches.iter().zip(groups).any(|(watch, group)| watch.is_stale(world, group))
}

/// Lists what a model has at the positions where somebody has an optimizer.
fn owned(
    world: &World,
    optimizers: &Optimizers,
    columns: &[(usize, ComponentId)],
    group: &Group,
    place: usize,
) -> Vec<(usize, Option<Arc<dyn DynParamGroups>>)> {
    let mut positions: Vec<_> = columns.iter().map(|&(position, _)| position).collect();
    positions.dedup();
    let own = |position: usize| {
        let own = optimizers.on(world, group.modules[position][place]);
        (position, own.map(|own| Arc::from(own.structural())))
    };
    positions.into_iter().map(own).collect()
}

/// Adds places to a list that increases, and takes others and those from `count` on out of it.
fn changed(before: &[u32], added: &[u32], removed: &[u32], count: usize) -> Vec<u32> {
    let is_kept = |place: &&u32| {
        (**place as usize) < count
            && removed.binary_search(place).is_err()
            && added.binary_search(place).is_err()
    };
    let mut places = Vec::with_capacity(before.len() + added.len());
    let mut added = added.iter().copied().peekable();
    for &place in before.iter().filter(is_kept) {
        while let Some(next) = added.next_if(|&next| next < place) {
            places.push(next);
        }
        places.push(place);
    }
    places.extend(added);
    places
}

impl Cohort {
    /// Returns whether a model has optimizers like the cohort's, where it has them.
    fn owns_like(
        &self,
        world: &World,
        optimizers: &Optimizers,
        group: &Group,
        place: usize,
    ) -> bool {
        self.owned.iter().all(|(position, known)| {
            match (optimizers.on(world, group.modules[*position][place]), known) {
                (None, None) => true,
                (Some(own), Some(known)) => own.is_like(&**known),
                _ => false,
            }
        })
    }

    /// Returns whether a model that nobody looked at runs what the cohort runs.
    fn fits(&self, world: &World, optimizers: &Optimizers, group: &Group, place: usize) -> bool {
        let root = group.modules[0][place];
        let is_owned = |position: usize| self.owned.iter().any(|(owned, _)| *owned == position);
        let mut others = (0..group.modules.len()).filter(|&position| !is_owned(position));
        let is_like = |mode: &Mode| self.scheme.mode.runs_like(mode, &self.asking);
        world.get::<Mode>(root).is_some_and(is_like)
            && world.get::<HasGradient>(root).is_some_and(|of| of.0 == self.scheme.has_gradient)
            && self.owns_like(world, optimizers, group, place)
            && others.all(|at| optimizers.id_on(world, group.modules[at][place]).is_none())
    }

    /// Takes the models at some places of the group for members, and those at others for none; all others are as they
    /// were; says whether other ones than before are members, but for models that came to or went from a cohort of all. Of a
    /// cohort of all active models of the only group.
    fn take_over(
        &mut self,
        world: &World,
        group: &Group,
        running: &[u32],
        resting: &[u32],
    ) -> Result<bool, StepError> {
        let (count, were_all) = (group.members.len(), self.at.members.is_all());
        let before = std::mem::take(&mut self.places);
        self.places = changed(&before, running, resting, count);
        if self.at.members.population() != count || self.places != before {
            self.at.members = match self.places.len() == count {
                true => Members::all(count),
                false => listed(count, &self.places),
            };
        }
        self.keys = Keys::default();
        self.changes = None;
        let Cohort { ready, scheme, places, .. } = self;
        let lists = [before.as_slice(), places.as_slice()];
        let are_others = before != *places && !(were_all && self.at.members.is_all());
        let mut all = ready.iter_mut();
        all.try_for_each(|ready| ready.take_over(world, scheme, group, lists, running))?;
        Ok(are_others)
    }

    /// Returns whether its members have hooks of their own.
    pub(crate) fn has_own_hooks(&self) -> bool {
        self.own.is_some()
    }

    /// Returns the place of the model whose own hooks are called, if the cohort is of one that has some.
    pub(crate) fn hooked(&self) -> Option<usize> {
        self.own.as_ref().map(|_| self.places[0] as usize)
    }

    /// Counts the turns in which hooks are told of a pass: one for each member if they have hooks of their own.
    pub(crate) fn turns(&self) -> usize {
        if self.has_own_hooks() { self.places.len() } else { 1 }
    }

    /// Makes a cohort of one of its members.
    pub(crate) fn alone(&self, member: usize) -> Cohort {
        Cohort {
            scheme: self.scheme.clone(),
            blueprint: self.blueprint,
            asking: self.asking.clone(),
            at: Located::new(self.at.population, self.at.group, self.at.members.part(&[member])),
            reads: Binder::default(),
            places: vec![self.places[member]],
            keeps_tape: self.keeps_tape,
            is_lazy: self.is_lazy,
            updates: self.updates.clone(),
            spare: None,
            is_watched: self.is_watched,
            is_alone: self.is_alone,
            own: self.own.clone(),
            pass: self.pass,
            changes: self.changes.clone(),
            observed: Memory::default(),
            owned: self.owned.clone(),
            keys: Keys::default(),
            ready: Vec::new(),
            call: self.call,
        }
    }

    /// Keeps some of the members, by their places.
    pub(crate) fn select(&mut self, members: &[usize]) {
        let Located { population, group, .. } = self.at;
        self.at = Located::new(population, group, self.at.members.part(members));
        self.reads = Binder::default();
        self.places = members.iter().map(|&member| self.places[member]).collect();
        self.keys.select(members);
        self.ready.iter_mut().for_each(|ready| ready.select(members));
    }

    /// Returns whether it draws random numbers by a plan that nobody watches.
    pub(crate) fn draws(&self, routes: &[Route]) -> bool {
        let mut ready = routes.iter().filter_map(|route| route.planned(&self.ready));
        ready.any(|ready| ready.planned.is_random)
    }

    /// Reads the random states again if somebody wrote to them.
    pub(crate) fn refresh_keys(&mut self, world: &mut World) -> Result<(), StepError> {
        self.keys.refresh(world, &self.at, &self.places)
    }

    /// Counts `steps` programs that drew numbers.
    pub(crate) fn advance_keys(&mut self, world: &mut World, steps: usize) {
        self.keys.advance(world, &self.at, &self.places, steps);
    }

    /// Counts a program of some members that drew numbers.
    pub(crate) fn advance_keys_of(&mut self, world: &mut World, members: &[u32]) {
        self.keys.advance_of(world, &self.at, &self.places, members);
    }

    fn settle(&mut self) {
        self.at.members.settle();
        self.keeps_tape = self.scheme.has_trainable();
    }

    /// Checks that some parameter has an optimizer.
    pub(crate) fn check_optimizer(&self) -> Result<(), StepError> {
        if self.scheme.has_optimizer() {
            return Ok(());
        }
        let model = self.at.members.indices().next().unwrap_or(0);
        Err(StepError::NoOptimizer { model })
    }
}
