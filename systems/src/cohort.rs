//! Who runs the same program: cohorts of a population's models, and their plans.
//!
//! Models with equal [`Mode`]s, gradients and optimizers form a cohort. Cohorts are regrouped when the
//! population changed or somebody wrote to those components, which costs a few comparisons to ask;
//! a plan is cached for each kind of program and each input type.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;
use neurarch_components::mode::{Draws, HasGradient, Mode};
use neurarch_components::optimizer::DynOptimizer;
use neurarch_kernels::cpu::tile::Key;
use neurarch_kernels::program::{Scalar, ScalarOf};

use crate::bind::Lists;
use crate::launch::Members;
use crate::optim::Optimizers;
use crate::plans::{Planned, Plans, Request};
use crate::population::Population;
use crate::sign;
use crate::step::StepError;
use crate::trace::{Group, Scheme};
use crate::watch::Watch;

/// The cohorts of a population.
#[derive(Default)]
pub(crate) struct Cohorts {
    /// In the order of their first members. Inactive models are in none.
    pub(crate) list: Vec<Cohort>,
    version: Option<u64>,
    watch: Watch,
}

/// Models that run the same programs.
pub(crate) struct Cohort {
    /// What they have in common.
    pub(crate) scheme: Scheme,
    /// Who they are.
    pub(crate) members: Members,
    /// Where their rows are, for each position.
    pub(crate) lists: Lists,
    /// Their random states, once a program drew numbers.
    pub(crate) keys: Vec<Key>,
    draws: Watch,
    /// The plans that they ran so far.
    pub(crate) ready: Vec<Ready>,
}

/// A plan with the numbers of a cohort's members.
pub(crate) struct Ready {
    pub(crate) planned: Arc<Planned>,
    /// The loss as it was last seen.
    loss: Option<Box<dyn DynLoss>>,
    /// The value of scalar `s` for member `m` at `s · members + m`.
    pub(crate) scalars: Vec<f64>,
    watch: Watch,
}

impl Cohorts {
    /// Regroups the models of `population` if something changed.
    pub(crate) fn refresh(
        &mut self,
        world: &mut World,
        population: Entity,
    ) -> Result<(), StepError> {
        sign::refresh(world, population)?;
        let version = Population::get(world, population)?.version();
        if self.version != Some(version) || self.watch.is_stale(world) {
            self.regroup(world, population)?;
            self.version = Some(version);
        }
        Ok(())
    }

    /// Takes what was written so far as known: after writes to watched components that the cohorts
    /// follow already.
    pub(crate) fn look(&mut self, world: &mut World) {
        self.watch.look(world);
    }

    fn regroup(&mut self, world: &mut World, population: Entity) -> Result<(), StepError> {
        let modes = [world.register_component::<Mode>(), world.register_component::<HasGradient>()];
        let optimizers = Optimizers::of(world).clone();
        let state = Population::get(world, population)?;
        let blueprint = state.blueprint().clone();
        let owners = optimizers.owners(world, state);

        let mut drafts: Vec<Draft> = Vec::new();
        for (index, &root) in state.models().iter().enumerate() {
            let root = world.entity(root);
            let default = (Mode::default(), HasGradient::default());
            let mode = root.get::<Mode>().unwrap_or(&default.0);
            let gradients = root.get::<HasGradient>().unwrap_or(&default.1);
            if mode.inactive {
                continue;
            }
            let owned = |&owner: &usize| optimizers.on(world, state.entity(owner, index));
            let fits = |draft: &&mut Draft| {
                draft.scheme.mode == *mode
                    && draft.scheme.has_gradient == gradients.0
                    && owners.iter().zip(&draft.owned).all(|(owner, known)| {
                        match (owned(owner), known) {
                            (None, None) => true,
                            (Some(own), Some(known)) => own.is_like(&**known),
                            _ => false,
                        }
                    })
            };
            if let Some(draft) = drafts.iter_mut().rev().find(fits) {
                draft.indices.push(index as u32);
                continue;
            }
            let owned: Vec<_> = owners
                .iter()
                .map(|owner| owned(owner).map(|own| Arc::from(own.structural())))
                .collect();
            let groups = groups(&blueprint.positions, &owners, &owned);
            let scheme = Scheme {
                blueprint: blueprint.clone(),
                mode: mode.clone(),
                has_gradient: gradients.0.clone(),
                groups,
            };
            drafts.push(Draft { scheme, owned, indices: vec![index as u32] });
        }
        let n_models = state.models().len();
        let list = drafts.into_iter().map(|draft| {
            let members = Members::new(n_models, draft.indices);
            Cohort {
                scheme: draft.scheme,
                lists: Lists::new(state, &members),
                members,
                keys: Vec::new(),
                draws: Watch::default(),
                ready: Vec::new(),
            }
        });
        self.list = list.collect();
        let roots = state.tables(0).flat_map(|table| modes.map(|mode| (table, mode)));
        let rates = optimizers.columns(world, state, &owners);
        let columns: Vec<_> = roots.chain(rates).collect();
        self.watch.reset(world, columns);
        Ok(())
    }
}

/// A cohort in the making.
struct Draft {
    scheme: Scheme,
    /// The optimizers at the positions that may have one, structural fields only.
    owned: Vec<Option<Arc<dyn DynOptimizer>>>,
    indices: Vec<u32>,
}

/// Gives each position the optimizer that is nearest to it.
fn groups(
    positions: &[neurarch_components::blueprint::Position],
    owners: &[usize],
    owned: &[Option<Arc<dyn DynOptimizer>>],
) -> Vec<Option<Group>> {
    let mut groups: Vec<Option<Group>> = Vec::with_capacity(positions.len());
    for (position, at) in positions.iter().enumerate() {
        let own = owners.iter().position(|&owner| owner == position);
        let own = own.and_then(|own| owned[own].clone());
        let above = at.parent.and_then(|parent| groups[parent].clone());
        groups.push(own.map(|optimizer| Group { owner: position, optimizer }).or(above));
    }
    groups
}

impl Cohort {
    /// Gives the place in [`ready`](Cohort::ready) of the plan for `request`, made at first use, its
    /// scalars up to date.
    pub(crate) fn prepare(
        &mut self,
        world: &mut World,
        population: Entity,
        request: &Request<'_>,
    ) -> Result<usize, StepError> {
        let known = self.ready.iter().position(|ready| ready.answers(request));
        let index = match known {
            Some(index) => index,
            None => {
                let planned = Plans::of(world, population, &self.scheme, request)?;
                self.ready.push(Ready {
                    planned,
                    loss: request.loss.map(DynLoss::clone_box),
                    scalars: Vec::new(),
                    watch: Watch::default(),
                });
                self.ready.len() - 1
            }
        };
        self.ready[index].refresh(world, population, &self.members, request.loss)?;
        Ok(index)
    }

    /// Brings the random states up to date.
    pub(crate) fn refresh_keys(
        &mut self,
        world: &mut World,
        population: Entity,
    ) -> Result<(), StepError> {
        if !self.draws.is_stale(world) && self.keys.len() == self.members.len() {
            return Ok(());
        }
        let id = world.register_component::<Draws>();
        let state = Population::get(world, population)?;
        self.keys.clear();
        self.keys.extend(self.members.indices().map(|index| Key {
            seed: state.seed(),
            number: state.numbers()[index],
            step: world.get::<Draws>(state.models()[index]).map_or(0, |draws| draws.0),
        }));
        let columns: Vec<_> = state.tables(0).map(|table| (table, id)).collect();
        self.draws.reset(world, columns);
        Ok(())
    }

    /// Says that the members ran `steps` programs that drew numbers.
    pub(crate) fn advance_keys(&mut self, world: &mut World, population: Entity, steps: usize) {
        for key in &mut self.keys {
            key.step += steps as u64;
        }
        for (i, index) in self.members.indices().enumerate() {
            let root = Population::get(world, population).map(|state| state.models()[index]);
            if let Some(mut draws) = root.ok().and_then(|root| world.get_mut::<Draws>(root)) {
                draws.0 = self.keys[i].step;
            }
        }
        self.draws.look(world);
    }
}

impl Ready {
    fn answers(&self, request: &Request<'_>) -> bool {
        self.planned.answers(request)
            && match (&self.loss, request.loss) {
                (None, None) => true,
                (Some(own), Some(other)) => own.equals(other) || own.is_like(other),
                _ => false,
            }
    }

    /// Reads the scalars again if somebody wrote to their components.
    fn refresh(
        &mut self,
        world: &mut World,
        population: Entity,
        members: &Members,
        loss: Option<&dyn DynLoss>,
    ) -> Result<(), StepError> {
        let slots = &self.planned.plan.program.scalars;
        let is_new_loss = match (&self.loss, loss) {
            (Some(known), Some(loss)) => !known.equals(loss),
            _ => false,
        };
        let is_complete = self.scalars.len() == slots.len() * members.len();
        if is_complete && !is_new_loss && !self.watch.is_stale(world) {
            return Ok(());
        }
        if is_new_loss {
            self.loss = loss.map(DynLoss::clone_box);
        }
        let state = Population::get(world, population)?;
        let optimizers = Optimizers::of(world);
        let mut scalars = Vec::with_capacity(slots.len() * members.len());
        let mut columns = Vec::new();
        for slot in slots {
            let missing = || StepError::Scalar {
                path: state.blueprint().positions[slot.position].path.clone(),
                name: slot.name,
            };
            if slot.of == ScalarOf::Loss {
                let number = loss.and_then(|loss| loss.scalar(slot.name)).ok_or_else(missing)?;
                scalars.extend(std::iter::repeat_n(number, members.len()));
                continue;
            }
            columns.extend(columns_of(world, state, slot, optimizers));
            for index in members.indices() {
                let entity = state.entity(slot.position, index);
                let number = match slot.of {
                    ScalarOf::Module => {
                        sign::module(world, entity).and_then(|module| module.scalar(slot.name))
                    }
                    _ => optimizers.on(world, entity).and_then(|rule| rule.scalar(slot.name)),
                };
                scalars.push(number.ok_or_else(missing)?);
            }
        }
        self.scalars = scalars;
        self.watch.reset(world, columns);
        Ok(())
    }
}
