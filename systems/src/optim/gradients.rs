//! The gradients of models as rows, found once for all models that have the same ones.

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{Bits, HasGradient, Mode};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::errors::{SignError, StepError};
use crate::execute::run::with_run;
use crate::storage::bind::Located;
use crate::storage::members::{Members, listed};
use crate::storage::visit::{Member, visit};
use crate::structure::{root, sign, spot};

/// Whose gradients are meant: those of all models of a population, or of the model of one module, of this module and
/// all below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    entity: Entity,
    population: Entity,
    /// How many models these are.
    pub(crate) models: usize,
    /// The index of the first.
    pub(crate) first: usize,
}

impl Whose {
    /// Signs the population of an entity, and finds out which models are meant.
    ///
    /// # Errors
    ///
    /// If it is neither a population nor a module of one.
    pub(crate) fn of(world: &mut World, entity: Entity) -> Result<Whose, SignError> {
        let not_there = SignError::NotAPopulation(entity);
        if world.get::<Population>(entity).is_some() {
            sign::refresh(world, entity)?;
            let models = world.get::<Population>(entity).map_or(0, Population::len);
            return Ok(Whose { entity, population: entity, models, first: 0 });
        }
        let (root, population) = root::root_of(world, entity).ok_or(not_there.clone())?;
        sign::refresh(world, population)?;
        let model = world.get::<Model>(root).ok_or(not_there)?;
        Ok(Whose { entity, population, models: 1, first: model.index as usize })
    }

    /// Finds the gradients, calls `work` with the models that have the same ones, and gives what it gives.
    ///
    /// # Errors
    ///
    /// If it is no population any more, or `work` fails.
    pub(crate) fn with<R>(
        self,
        world: &mut World,
        work: impl FnOnce(&mut World, &mut [Alike<'_>]) -> Result<R, StepError>,
    ) -> Result<R, StepError> {
        let Whose { entity, population, models, first } = self;
        if entity != population {
            let found = self.of_module(world).ok_or(SignError::NotAPopulation(entity))?;
            let (mut at, slots) = found;
            return work(world, &mut [Alike { at: &mut at, slots, first }]);
        }
        with_run(world, population, |world, run| {
            let cohorts = &mut run.cohorts.list;
            let active: usize = cohorts.iter().map(|cohort| cohort.at.members.len()).sum();
            let mut inactive = match active < models {
                true => inactive(world, population),
                false => Vec::new(),
            };
            let active = cohorts.iter_mut().map(|cohort| {
                let at = &mut cohort.at;
                let group = group(world, population, at.group);
                let blueprint = &cohort.scheme.blueprint;
                let slots = group.map(|of| slots(of, blueprint, 0, &cohort.scheme.has_gradient));
                Alike { at, slots: slots.unwrap_or_default(), first }
            });
            let others = inactive.iter_mut().map(|(at, slots)| Alike {
                at,
                slots: std::mem::take(slots),
                first,
            });
            let mut all: Vec<_> = active.chain(others).collect();
            work(world, &mut all)
        })
    }

    /// Finds the model of a module, and the gradients that this and all below it have.
    fn of_module(self, world: &World) -> Option<(Located, Vec<Slot>)> {
        let (root, population) = root::root_of(world, self.entity)?;
        let (of, member, blueprint) = spot::place(world, root).ok()?;
        let position = of.modules.iter().position(|modules| modules[member] == self.entity)?;
        let has_gradient = &world.get::<HasGradient>(root)?.0;
        let found = world.get::<Population>(population)?;
        let mut groups = found.groups().iter();
        let number = groups.position(|group| group.blueprint == of.blueprint)?;
        let members = Members::first(found.len(), of.members[member]);
        let slots = slots(of, blueprint, position, has_gradient);
        Some((Located::new(population, number, members), slots))
    }
}

fn group(world: &World, population: Entity, number: usize) -> Option<&Group> {
    world.get::<Population>(population)?.groups().get(number)
}

/// Lists the inactive models of a population, those together that have the same gradients.
fn inactive(world: &World, population: Entity) -> Vec<(Located, Vec<Slot>)> {
    let Some(found) = world.get::<Population>(population) else { return Vec::new() };
    let mut all = Vec::new();
    for (number, group) in found.groups().iter().enumerate() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let Some(blueprint) = blueprint else { continue };
        let mut alike: Vec<(&Bits, Vec<u32>)> = Vec::new();
        for (&index, &root) in group.members.iter().zip(&group.modules[0]) {
            let mode = world.get::<Mode>(root);
            let Some(bits) = world.get::<HasGradient>(root) else { continue };
            if mode.is_none_or(|mode| !mode.inactive) {
                continue;
            }
            match alike.iter_mut().rev().find(|(known, _)| **known == bits.0) {
                Some((_, indices)) => indices.push(index),
                None => alike.push((&bits.0, vec![index])),
            }
        }
        all.extend(alike.into_iter().map(|(bits, indices)| {
            let at = Located::new(population, number, listed(found.len(), &indices));
            (at, slots(group, blueprint, 0, bits))
        }));
    }
    all
}

/// Lists the gradients that are there, of a module and all below it, each once: of parameters that are not shared
/// by the population.
fn slots(group: &Group, blueprint: &Blueprint, position: usize, has_gradient: &Bits) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    for (position, index) in blueprint.parameters_below(position) {
        let is_there = has_gradient.contains(blueprint.number(position, index))
            && group.contents[position].companions.contains(&(Role::Gradient, index));
        let parameter = &blueprint.positions[position].parameters[index];
        let is_known = slots.iter().any(|slot| (slot.position, slot.index) == (position, index));
        if is_there && !is_known && parameter.shared.is_none() {
            let slot = blueprint.parameter(position, &parameter.name);
            slots.extend(slot.map(|slot| Slot { role: Role::Gradient, ..slot }));
        }
    }
    slots
}

/// Models that have gradients of the same parameters.
pub(crate) struct Alike<'a> {
    at: &'a mut Located,
    slots: Vec<Slot>,
    first: usize,
}

/// What is done with gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// They are looked at.
    Read,
    /// They are changed.
    Write,
}

impl Alike<'_> {
    /// Returns whether gradients of some type are there.
    pub(crate) fn has(&self, dtype: Dtype) -> bool {
        self.slots.iter().any(|slot| slot.ty.dtype == dtype)
    }

    /// Visits each model with its element of `of`, which has one for each model that is meant.
    ///
    /// # Errors
    ///
    /// If a gradient has no column, which is a bug.
    pub(crate) fn visit<T: Send + Default>(
        &mut self,
        world: &mut World,
        touch: Touch,
        of: &mut [T],
        work: impl Fn(&mut Gradients<'_, '_>, &mut T) + Sync,
    ) -> Result<(), StepError> {
        let Alike { at, slots, first } = self;
        if slots.is_empty() {
            return Ok(());
        }
        let written = vec![touch == Touch::Write; slots.len()];
        let Located { population, group, members, binder, .. } = &mut **at;
        let bound = binder.bind(world, *population, *group, members, slots, &written)?;
        let work = |member: &mut Member<'_>, of: &mut T| work(&mut Gradients { member, slots }, of);
        if members.len() == of.len() {
            visit(bound, of, work);
            return Ok(());
        }
        let places = || members.indices().map(|index| index - *first);
        let mut own: Vec<_> = places().map(|place| std::mem::take(&mut of[place])).collect();
        visit(bound, &mut own, work);
        places().zip(own).for_each(|(place, own)| of[place] = own);
        Ok(())
    }
}

/// The gradients of one model; there is at least one.
pub(crate) struct Gradients<'a, 'b> {
    member: &'a mut Member<'b>,
    slots: &'a [Slot],
}

impl Gradients<'_, '_> {
    /// Lists them.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Dtype, &[u8])> {
        let all = self.slots.iter().enumerate();
        all.map(|(slot, of)| (of.ty.dtype, self.member.row(slot, of.ty.size_bytes())))
    }

    /// Changes each.
    pub(crate) fn change(&mut self, mut change: impl FnMut(Dtype, &mut [u8])) {
        for (slot, of) in self.slots.iter().enumerate() {
            change(of.ty.dtype, self.member.row_mut(slot, of.ty.size_bytes()));
        }
    }
}
