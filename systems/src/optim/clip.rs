//! Clipping of gradients: the norm of each model's, or each number.

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::Blueprints;
use neurarch_components::column::{ColumnKey, row, row_mut};
use neurarch_components::mode::HasGradient;
use neurarch_components::population::Population;
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::gradients;
use neurarch_kernels::program::Role;

use crate::access;
use crate::sign::{self, SignError};

/// Why gradients cannot be clipped. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClipError {
    /// The entity is neither a population nor a module of one.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// There is not one norm for each model.
    #[error("expected a norm for each of {expected} models, got {found}")]
    Norms {
        /// How many models there are.
        expected: usize,
        /// How many norms came.
        found: usize,
    },
    /// A norm is no finite number; torch's words.
    #[error(
        "The total norm of order {norm_type:?} for gradients from `parameters` is non-finite, so it cannot be clipped. To disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
    )]
    NonFinite {
        /// The model's index.
        model: usize,
        /// The order of the norm.
        norm_type: f64,
    },
}

/// How [`clip_grad_norm_`] measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipOptions {
    /// The order of the norm; it may be infinite.
    pub norm_type: f64,
    /// Whether a norm that is not finite is an error.
    pub error_if_nonfinite: bool,
}

impl Default for ClipOptions {
    fn default() -> Self {
        ClipOptions { norm_type: 2.0, error_if_nonfinite: false }
    }
}

/// A gradient that is there.
pub(crate) struct Gradient {
    entity: Entity,
    key: ColumnKey,
    pub(crate) dtype: Dtype,
    size_bytes: usize,
}

/// Lists, for each model of a population, or for the model of one module, its index and the gradients that it
/// has, of a module those of it and all below.
pub(crate) fn gradients(
    world: &mut World,
    entity: Entity,
) -> Result<Vec<(usize, Vec<Gradient>)>, SignError> {
    let not_there = SignError::NotAPopulation(entity);
    let (roots, module) = match world.get::<Population>(entity) {
        Some(population) => (population.models().to_vec(), None),
        None => {
            let (root, _) = sign::root_of(world, entity).ok_or(not_there.clone())?;
            (vec![root], Some(entity))
        }
    };
    let population = match module {
        None => entity,
        Some(module) => sign::root_of(world, module).ok_or(not_there.clone())?.1,
    };
    sign::refresh(world, population)?;
    let of_model = |root: Entity| {
        let (group, member, _) = access::place(world, root).map_err(|_| not_there.clone())?;
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let blueprint = blueprint.ok_or(not_there.clone())?;
        let position = match module {
            None => 0,
            Some(module) => {
                let found = group.modules.iter().position(|modules| modules[member] == module);
                found.ok_or(not_there.clone())?
            }
        };
        let bits = world.get::<HasGradient>(root);
        let below = blueprint.parameters_below(position).into_iter();
        let there = below.filter(|&(position, index)| {
            bits.is_some_and(|bits| bits.0.contains(blueprint.number(position, index)))
        });
        let there = there.map(|(position, index)| {
            let ty = &blueprint.positions[position].parameters[index].ty;
            Gradient {
                entity: group.modules[position][member],
                key: ColumnKey::new(Role::Gradient, index, ty),
                dtype: ty.dtype,
                size_bytes: ty.size_bytes(),
            }
        });
        Ok((group.members[member] as usize, there.collect()))
    };
    roots.into_iter().map(of_model).collect()
}

fn norm(world: &World, gradients: &[Gradient], norm_type: f64) -> f64 {
    let norms = gradients.iter().filter_map(|of| {
        let row = row(world, of.entity, of.key)?;
        Some(gradients::vector_norm(of.dtype, &row[..of.size_bytes], norm_type))
    });
    gradients::total_norm(norms, norm_type)
}

/// Changes the rows of gradients.
pub(crate) fn change(
    world: &mut World,
    gradients: &[Gradient],
    mut change: impl FnMut(Dtype, &mut [u8]),
) {
    for of in gradients {
        if let Some(row) = row_mut(world, of.entity, of.key) {
            change(of.dtype, &mut row[..of.size_bytes]);
        }
    }
}

/// Gives the norm of all gradients of each model of a population, or of a module and all below it.
///
/// # Shape
///
/// `[models]`, by index; `[1]` of a module.
///
/// # Errors
///
/// If `entity` is neither.
///
/// Source: `torch.nn.utils.get_total_norm`.
pub fn get_total_norm(
    world: &mut World,
    entity: Entity,
    norm_type: f64,
) -> Result<Vec<f64>, ClipError> {
    let models = gradients(world, entity)?;
    Ok(models.iter().map(|(_, gradients)| norm(world, gradients, norm_type)).collect())
}

/// Scales the gradients of each model so that their norm is at most `max_norm`: times
/// `min(1, max_norm / (norm + 1e-6))`. Gives the norms before.
///
/// # Shape
///
/// As [`get_total_norm`].
///
/// # Errors
///
/// As [`get_total_norm`], and if a norm is not finite and `error_if_nonfinite`. Nothing is scaled then.
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip_grad_norm_(
    world: &mut World,
    entity: Entity,
    max_norm: f64,
    options: ClipOptions,
) -> Result<Vec<f64>, ClipError> {
    let ClipOptions { norm_type, error_if_nonfinite } = options;
    let models = gradients(world, entity)?;
    let norms: Vec<_> =
        models.iter().map(|(_, gradients)| norm(world, gradients, norm_type)).collect();
    let bad = models.iter().zip(&norms).find(|(_, norm)| !norm.is_finite());
    if let Some(((model, _), _)) = bad.filter(|_| error_if_nonfinite) {
        return Err(ClipError::NonFinite { model: *model, norm_type });
    }
    scale(world, &models, max_norm, &norms);
    Ok(norms)
}

/// Scales the gradients of each model by `min(1, max_norm / (norm + 1e-6))`, given the norms, as
/// [`get_total_norm`] measures them.
///
/// # Errors
///
/// If `entity` is neither a population nor a module of one, or there is not one norm for each model. Nothing is scaled
/// then.
///
/// Source: `torch.nn.utils.clip_grads_with_norm_`.
pub fn clip_grads_with_norm_(
    world: &mut World,
    entity: Entity,
    max_norm: f64,
    total_norms: &[f64],
) -> Result<(), ClipError> {
    let models = gradients(world, entity)?;
    if models.len() != total_norms.len() {
        return Err(ClipError::Norms { expected: models.len(), found: total_norms.len() });
    }
    scale(world, &models, max_norm, total_norms);
    Ok(())
}

fn scale(world: &mut World, models: &[(usize, Vec<Gradient>)], max_norm: f64, norms: &[f64]) {
    for ((_, gradients), norm) in models.iter().zip(norms) {
        let factor = max_norm / (norm + 1e-6);
        // NaN stays, as in torch.
        let factor = if factor > 1.0 { 1.0 } else { factor };
        change(world, gradients, |dtype, row| gradients::scale(dtype, row, factor));
    }
}

/// Brings every number of the gradients of a population's models, or of a module and all below it, into
/// `-clip_value` to `clip_value`.
///
/// # Errors
///
/// If `entity` is neither.
///
/// Source: `torch.nn.utils.clip_grad_value_`.
pub fn clip_grad_value_(
    world: &mut World,
    entity: Entity,
    clip_value: f64,
) -> Result<(), ClipError> {
    for (_, gradients) in gradients(world, entity)? {
        change(world, &gradients, |dtype, row| gradients::clamp(dtype, row, clip_value));
    }
    Ok(())
}
