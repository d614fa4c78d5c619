//! Averages of weights over time: [`update_parameters`], [`get_ema_avg_fn`], [`get_swa_avg_fn`].

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::optimizer::{AverageFn, AveragedModel};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_kernels::gradients;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::errors::SignError;
use crate::storage::bind::{Located, bind_pair};
use crate::storage::binders::Binders;
use crate::storage::members::{Members, listed};
use crate::storage::visit::visit_pairs;
use crate::structure::sign;

/// Why models cannot be averaged. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AverageError {
    /// There is no such population.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The population is no average.
    #[error("{0} has no AveragedModel")]
    NotAveraged(Entity),
    /// The decay is no part; torch's words.
    #[error("Invalid decay value {decay} provided. Please provide a value in [0,1] range.")]
    Decay {
        /// The decay.
        decay: f64,
    },
    /// The populations have other models.
    #[error("expected models alike in both populations, model {model} differs")]
    Models {
        /// The index of a model that only one has, or that is built otherwise.
        model: usize,
    },
}

/// Returns the rule of an exponential average: of it, `decay` is kept each time.
///
/// # Errors
///
/// If `decay` is not from 0 to 1.
///
/// Source: `torch.optim.swa_utils.get_ema_avg_fn`, `get_ema_multi_avg_fn`; torch's default is 0.999.
pub fn get_ema_avg_fn(decay: f64) -> Result<AverageFn, AverageError> {
    match (0.0..=1.0).contains(&decay) {
        true => Ok(AverageFn::Ema { decay }),
        false => Err(AverageError::Decay { decay }),
    }
}

/// Returns the rule of an average in which all models count alike.
///
/// Source: `torch.optim.swa_utils.get_swa_avg_fn`, `get_swa_multi_avg_fn`.
pub fn get_swa_avg_fn() -> AverageFn {
    AverageFn::Swa
}

/// Lists the parameters and buffers of a blueprint that have columns.
fn slots(blueprint: &Blueprint) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (position, at) in blueprint.positions.iter().enumerate() {
        let parameters = at.parameters.iter().filter(|of| of.has_column());
        let parameters = parameters.filter_map(|of| blueprint.parameter(position, &of.name));
        let buffers = at.buffers.iter().filter(|of| of.has_column());
        let buffers = buffers.filter_map(|of| blueprint.buffer(position, &of.name));
        slots.extend(parameters.chain(buffers));
    }
    slots
}

/// Models that are of one group in both populations.
struct Pair {
    members: Members,
    groups: [usize; 2],
    slots: [Vec<Slot>; 2],
}

/// Lists the models of two populations of one size by their groups, and checks that they are alike.
fn pairs(world: &World, populations: [Entity; 2]) -> Result<Vec<Pair>, AverageError> {
    let find = |of| world.get::<Population>(of).ok_or(SignError::NotAPopulation(of));
    let [to, from] = populations.map(find);
    let (to, from) = (to?, from?);
    if to.len() != from.len() {
        return Err(AverageError::Models { model: to.len().min(from.len()) });
    }
    let blueprints = world.resource::<Blueprints>();
    let (mut pairs, mut differs) = (Vec::new(), None::<usize>);
    // For each model, its group in the other population.
    let mut others = vec![0; from.len()];
    for (group, of) in from.groups().iter().enumerate().skip(1) {
        of.members.iter().for_each(|&model| others[model as usize] = group);
    }
    for (group, of) in to.groups().iter().enumerate() {
        for (other, other_of) in from.groups().iter().enumerate() {
            let is_here = |&&model: &&u32| others[model as usize] == other;
            let members: Vec<_> = of.members.iter().filter(is_here).copied().collect();
            let Some(&first) = members.first() else { continue };
            let own = [of, other_of].map(|group| blueprints.get(group.blueprint));
            let slots = own.map(|blueprint| blueprint.map(|of| slots(of)).unwrap_or_default());
            let key = |slot: &Slot| (slot.role, slot.name.clone(), slot.ty.clone());
            if !slots[0].iter().map(key).eq(slots[1].iter().map(key)) {
                let first = first as usize;
                differs = Some(differs.map_or(first, |known| known.min(first)));
            }
            pairs.push(Pair { members: listed(to.len(), &members), groups: [group, other], slots });
        }
    }
    match differs {
        Some(model) => Err(AverageError::Models { model }),
        None => Ok(pairs),
    }
}

/// Moves the averages in population `averaged`, which has an [`AveragedModel`] on its own entity, on to the models of
/// `population`, by index. The first time they are copied.
///
/// # Errors
///
/// If one is no population, `averaged` no average or its decay no part, or models differ.
///
/// Source: `torch.optim.swa_utils.AveragedModel.update_parameters`. There the average is a copy of the model, here a
/// population spawned from the same description.
pub fn update_parameters(
    world: &mut World,
    averaged: Entity,
    population: Entity,
) -> Result<(), AverageError> {
    sign::refresh(world, averaged)?;
    sign::refresh(world, population)?;
    let rule = *world.get::<AveragedModel>(averaged).ok_or(AverageError::NotAveraged(averaged))?;
    if let AverageFn::Ema { decay } = rule.avg_fn {
        get_ema_avg_fn(decay)?;
    }
    let populations = [averaged, population];
    let pairs = pairs(world, populations)?;
    // The average of what it is itself stays.
    for Pair { members, groups, slots } in pairs.into_iter().filter(|_| averaged != population) {
        let at = [0, 1].map(|side| {
            let mut at = Located::new(populations[side], groups[side], members.clone());
            at.binder = Binders::take(world, populations[side], groups[side]);
            at
        });
        let [mut to, mut from] = at;
        let bound = bind_pair(world, [(&mut to, &slots[0]), (&mut from, &slots[1])]);
        visit_pairs(bound.map_err(SignError::from)?, |to, from| {
            for (number, slot) in slots[0].iter().enumerate() {
                let bytes = slot.ty.size_bytes();
                let is_averaged = slot.role == Role::Parameter || rule.use_buffers;
                let weight = if is_averaged { rule.weight() } else { 1.0 };
                let (average, new) = (to.row_mut(number, bytes), from.row(number, bytes));
                gradients::average(slot.ty.dtype, average, new, weight);
            }
        });
        for at in [to, from] {
            Binders::put(world, at.population, at.group, at.binder);
        }
    }
    if let Some(mut rule) = world.get_mut::<AveragedModel>(averaged) {
        rule.n_averaged += 1;
    }
    Ok(())
}
