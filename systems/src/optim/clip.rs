//! Clipping of gradients: the norm of each model's, or each number.

use bevy_ecs::prelude::*;
use neurarch_kernels::gradients;

use super::gradients::{Gradients, Touch, Whose};
use crate::errors::SignError;
use crate::errors::StepError;

/// Why gradients cannot be clipped. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClipError {
    /// The entity is neither a population nor a module of one.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The models cannot be grouped.
    #[error(transparent)]
    Step(StepError),
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

impl From<StepError> for ClipError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Sign(error) => ClipError::Sign(error),
            error => ClipError::Step(error),
        }
    }
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

fn norm(gradients: &Gradients<'_, '_>, norm_type: f64) -> f64 {
    let norms = gradients.rows().map(|(dtype, row)| gradients::vector_norm(dtype, row, norm_type));
    gradients::total_norm(norms, norm_type)
}

/// Visits the gradients of each model that is meant with its element of `of`.
fn visit<T: Send + Default>(
    world: &mut World,
    whose: Whose,
    touch: Touch,
    of: &mut [T],
    work: impl Fn(&mut Gradients<'_, '_>, &mut T) + Sync,
) -> Result<(), ClipError> {
    whose.with(world, |world, all| {
        all.iter_mut().try_for_each(|alike| alike.visit(world, touch, of, &work))
    })?;
    Ok(())
}

/// Returns the norm of all gradients of each model of a population, or of a module and all below it.
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
    let whose = Whose::of(world, entity)?;
    let mut norms = vec![0.0; whose.models];
    visit(world, whose, Touch::Read, &mut norms, |gradients, of| *of = norm(gradients, norm_type))?;
    Ok(norms)
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
    if error_if_nonfinite {
        let whose = Whose::of(world, entity)?;
        let norms = get_total_norm(world, entity, norm_type)?;
        if let Some(bad) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(ClipError::NonFinite { model: whose.first + bad, norm_type });
        }
        clip_grads_with_norm_(world, entity, max_norm, &norms)?;
        return Ok(norms);
    }
    let whose = Whose::of(world, entity)?;
    let mut norms = vec![0.0; whose.models];
    visit(world, whose, Touch::Write, &mut norms, |gradients, of| {
        *of = norm(gradients, norm_type);
        scale(gradients, max_norm, *of);
    })?;
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
    let whose = Whose::of(world, entity)?;
    if whose.models != total_norms.len() {
        return Err(ClipError::Norms { expected: whose.models, found: total_norms.len() });
    }
    let mut norms = total_norms.to_vec();
    visit(world, whose, Touch::Write, &mut norms, |gradients, of| scale(gradients, max_norm, *of))
}

fn scale(gradients: &mut Gradients<'_, '_>, max_norm: f64, norm: f64) {
    let factor = max_norm / (norm + 1e-6);
    // NaN stays, as in torch.
    if factor < 1.0 || factor.is_nan() {
        gradients.change(|dtype, row| gradients::scale(dtype, row, factor));
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
    let whose = Whose::of(world, entity)?;
    visit(world, whose, Touch::Write, &mut vec![(); whose.models], |gradients, ()| {
        gradients.change(|dtype, row| gradients::clamp(dtype, row, clip_value));
    })
}
