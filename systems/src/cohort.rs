//! Who runs the same program: cohorts of a population's models, and their plans.
//!
//! Models of one blueprint with equal [`Mode`]s, gradients and optimizers form a cohort. Cohorts are
//! regrouped when the population changed or somebody wrote to those components, which costs a few
//! comparisons to ask; a plan is cached for each kind of program and each input type.

use std::sync::Arc;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{BlueprintId, Blueprints};
use neurarch_components::mode::{HasGradient, Mode};
use neurarch_components::optimizer::DynOptimizer;
use neurarch_components::population::{Group, Population};
use neurarch_kernels::program::Program;
use neurarch_kernels::program::eager::Eager;

use crate::bind::Binder;
use crate::eager::Updates;
use crate::hooks;
use crate::hooks::Kinds;
use crate::hooks::observe::Memory;
use crate::keys::Keys;
use crate::launch::{Located, Members};
use crate::optim::Optimizers;
use crate::ready::Ready;
use crate::sign;
use crate::step::StepError;
use crate::trace::{self, Scheme};
use crate::watch::Watch;

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
    /// For each group, its modes and gradients.
    modes: Vec<Watch>,
    /// For each group, its optimizers.
    rates: Vec<Watch>,
}

/// Models that run the same programs.
pub(crate) struct Cohort {
    /// What they have in common.
    pub(crate) scheme: Scheme,
    /// Their blueprint.
    pub(crate) blueprint: BlueprintId,
    /// Who they are, and where their rows are.
    pub(crate) at: Located,
    /// Where the parameters are that the way back reads.
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
    /// Whether somebody watches it: it runs apart from the others, eagerly if need be.
    pub(crate) is_eager: bool,
    /// The hooks with which an observed pass would be made for nothing, since one of them changes what it sees, or
    /// what they would see cannot be planned. None after an error.
    pub(crate) changes: Option<Vec<Kinds>>,
    /// The memory of its last observed pass.
    pub(crate) observed: Memory,
    /// The positions where a model may have an optimizer, and what those of the cohort have.
    owned: Vec<(usize, Option<Arc<dyn DynOptimizer>>)>,
    /// Their random states.
    pub(crate) keys: Keys,
    /// The plans that they ran so far, but for those that were evicted since.
    pub(crate) ready: Vec<Ready>,
    /// The number of the call that runs, or was run last.
    pub(crate) call: u64,
}

/// Gives the population of an entity.
pub(crate) fn population(world: &World, entity: Entity) -> Result<&Population, StepError> {
    let found = world.get::<Population>(entity);
    found.ok_or_else(|| sign::SignError::NotAPopulation(entity).into())
}

impl Cohorts {
    /// Regroups the models of `population` if something changed.
    pub(crate) fn refresh(&mut self, world: &mut World, of: Entity) -> Result<(), StepError> {
        sign::refresh(world, of)?;
        Optimizers::init(world);
        let found = population(world, of)?;
        let now = (found.version(), world.resource::<Optimizers>().generation);
        if self.made_at != Some(now) || !self.still_fits(world, of)? {
            self.regroup(world, of)?;
            self.made_at = Some(now);
        }
        Ok(())
    }

    /// Says whether every member still has what its cohort has in common. Cheap if nobody wrote there.
    fn still_fits(&mut self, world: &mut World, of: Entity) -> Result<bool, StepError> {
        let groups = population(world, of)?.groups();
        let is_stale = |watches: &[Watch]| {
            watches.len() != groups.len()
                || watches.iter().zip(groups).any(|(watch, group)| watch.is_stale(world, group))
        };
        if is_stale(&self.modes) {
            return Ok(false);
        }
        if is_stale(&self.rates) {
            let optimizers = world.resource::<Optimizers>();
            let fits = self.list.iter().all(|cohort| {
                let group = &groups[cohort.at.group];
                let mut places = cohort.places.iter();
                places.all(|&place| cohort.owns_like(world, optimizers, group, place as usize))
            });
            if !fits {
                return Ok(false);
            }
            self.rates.iter_mut().for_each(|watch| watch.look(world));
            self.rated += 1;
        }
        Ok(true)
    }

    /// Takes the mark off models whose last hook was removed; says whether there were any.
    pub(crate) fn forget_hooks_that_are_gone(
        &self,
        world: &mut World,
        of: Entity,
    ) -> Result<bool, StepError> {
        let groups = population(world, of)?.groups();
        let hooked = self.list.iter().filter(|cohort| cohort.scheme.mode.hooked);
        let gone = hooked.filter_map(|cohort| {
            let (group, place) = (&groups[cohort.at.group], cohort.places[0] as usize);
            (!hooks::has_own(world, group, place)).then_some(group.modules[0][place])
        });
        let gone: Vec<_> = gone.collect();
        for &root in &gone {
            if let Some(mut mode) = world.get_mut::<Mode>(root) {
                mode.hooked = false;
            }
        }
        Ok(!gone.is_empty())
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

    fn regroup(&mut self, world: &mut World, of: Entity) -> Result<(), StepError> {
        let toggled =
            [world.register_component::<Mode>(), world.register_component::<HasGradient>()];
        let (mut modes, mut rates) = (Vec::new(), Vec::new());
        self.made_at = None;
        self.list.clear();
        self.regrouped += 1;
        self.rated += 1;
        let found = population(world, of)?;
        let optimizers = world.resource::<Optimizers>();
        for (number, group) in found.groups().iter().enumerate() {
            let columns = optimizers.columns(world, group);
            modes.push(Watch::of(world, group, toggled.map(|column| (0, column))));
            rates.push(Watch::of(world, group, columns.iter().copied()));
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
                // A model with hooks of its own has a cohort of its own.
                let known = self.list[first..].iter_mut().rev().find(|cohort| {
                    !mode.hooked
                        && cohort.scheme.mode == *mode
                        && cohort.scheme.has_gradient == gradients.0
                        && cohort.owns_like(world, optimizers, group, place)
                });
                if let Some(cohort) = known {
                    cohort.at.members.push(index);
                    cohort.places.push(place as u32);
                    continue;
                }
                let owned = owned(world, optimizers, &columns, group, place);
                let scheme = Scheme {
                    blueprint: blueprint.clone(),
                    mode: mode.clone(),
                    has_gradient: gradients.0.clone(),
                    groups: trace::nearest(blueprint, &owned),
                    autocast: None,
                };
                self.list.push(Cohort {
                    scheme,
                    blueprint: group.blueprint,
                    at: Located::new(of, number, Members::first(found.len(), index)),
                    reads: Binder::default(),
                    places: vec![place as u32],
                    keeps_tape: false,
                    is_lazy: blueprint.positions.iter().any(|at| at.module.is_lazy()),
                    updates: None,
                    spare: None,
                    is_eager: false,
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

/// Lists what a model has at the positions where somebody has an optimizer.
fn owned(
    world: &World,
    optimizers: &Optimizers,
    columns: &[(usize, ComponentId)],
    group: &Group,
    place: usize,
) -> Vec<(usize, Option<Arc<dyn DynOptimizer>>)> {
    let mut positions: Vec<_> = columns.iter().map(|&(position, _)| position).collect();
    positions.dedup();
    let own = |position: usize| {
        let own = optimizers.on(world, group.modules[position][place]);
        (position, own.map(|own| Arc::from(own.structural())))
    };
    positions.into_iter().map(own).collect()
}

impl Cohort {
    /// Says whether a model has optimizers like the cohort's, where it has them.
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

    /// Gives the place of the model whose own hooks are called, if the cohort is of one that has some.
    pub(crate) fn hooked(&self) -> Option<usize> {
        self.scheme.mode.hooked.then(|| self.places[0] as usize)
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
