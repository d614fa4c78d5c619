//! Averages of weights over time: [`update_parameters`], [`get_ema_avg_fn`], [`get_swa_avg_fn`].

use bevy_ecs::prelude::*;
use neurarch_components::column::{ColumnKey, row, row_mut};
use neurarch_components::optimizer::{AverageFn, AveragedModel};
use neurarch_components::population::Population;
use neurarch_kernels::gradients;
use neurarch_kernels::program::{Role, Slot};

use crate::access;
use crate::sign::{self, SignError};

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

/// Gives the rule of an exponential average: of it, `decay` is kept each time.
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

/// Gives the rule of an average in which all models count alike.
///
/// Source: `torch.optim.swa_utils.get_swa_avg_fn`, `get_swa_multi_avg_fn`.
pub fn get_swa_avg_fn() -> AverageFn {
    AverageFn::Swa
}

/// Lists the parameters and buffers of a model with their entities.
fn slots(world: &World, root: Entity) -> Option<Vec<(Entity, Slot)>> {
    let (group, member, blueprint) = access::place(world, root).ok()?;
    let mut slots = Vec::new();
    for (position, at) in blueprint.positions.iter().enumerate() {
        let entity = group.modules[position][member];
        let parameters = at.parameters.iter().filter(|of| of.has_column());
        let parameters = parameters.filter_map(|of| blueprint.parameter(position, &of.name));
        let buffers = at.buffers.iter().filter(|of| of.has_column());
        let buffers = buffers.filter_map(|of| blueprint.buffer(position, &of.name));
        slots.extend(parameters.chain(buffers).map(|slot| (entity, slot)));
    }
    Some(slots)
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
    let models = |of: Entity| world.get::<Population>(of).map(|of| of.models().to_vec());
    let (to, from) = (models(averaged).unwrap_or_default(), models(population).unwrap_or_default());
    if to.len() != from.len() {
        return Err(AverageError::Models { model: to.len().min(from.len()) });
    }
    let mut pairs = Vec::new();
    for (model, (&to, &from)) in to.iter().zip(&from).enumerate() {
        let differs = AverageError::Models { model };
        let (Some(to), Some(from)) = (slots(world, to), slots(world, from)) else {
            return Err(differs);
        };
        let key = |slot: &Slot| (slot.role, slot.name.clone(), slot.ty.clone());
        if !to.iter().map(|(_, slot)| key(slot)).eq(from.iter().map(|(_, slot)| key(slot))) {
            return Err(differs);
        }
        pairs.extend(to.into_iter().zip(from));
    }
    for ((to, slot), (from, _)) in pairs {
        let key = ColumnKey::of(&slot);
        let size_bytes = slot.ty.size_bytes();
        let Some(new) = row(world, from, key).map(|row| row[..size_bytes].to_vec()) else {
            continue;
        };
        let Some(average) = row_mut(world, to, key) else { continue };
        let average = &mut average[..size_bytes];
        let is_averaged = slot.role == Role::Parameter || rule.use_buffers;
        let weight = if is_averaged { rule.weight() } else { 1.0 };
        gradients::average(slot.ty.dtype, average, &new, weight);
    }
    if let Some(mut rule) = world.get_mut::<AveragedModel>(averaged) {
        rule.n_averaged += 1;
    }
    Ok(())
}
