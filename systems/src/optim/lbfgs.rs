//! [`step`] of [`LBFGS`]: all models of a population side by side, each on its own line.

use bevy_ecs::prelude::*;
use ndarray::Array1;
use neurarch_components::optimizer::{LBFGS, LbfgsState, OptimizerError};
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::lbfgs::{Ask, LbfgsStep};

use crate::errors::{AccessError, SignError, StepError};
use crate::structure::access;
use crate::structure::population::Models;
use crate::structure::vector::{VectorError, parameters_to_vector, vector_to_parameters};

/// Why a step of [`LBFGS`] cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LbfgsError {
    /// A model could not run.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A gradient cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Parameters cannot be read or written.
    #[error(transparent)]
    Vector(#[from] VectorError),
    /// A model has a number that is refused; torch's words.
    #[error("model {model}: {source}")]
    Optimizer {
        /// The model's index.
        model: usize,
        /// Why.
        source: OptimizerError,
    },
    /// The closure gave another number of losses.
    #[error("closure: expected losses of {expected} models, got {given}")]
    Losses {
        /// How many models there are.
        expected: usize,
        /// How many losses came.
        given: usize,
    },
}

impl From<SignError> for LbfgsError {
    fn from(error: SignError) -> Self {
        LbfgsError::Step(error.into())
    }
}

/// Makes a step of every model of a population by the [`LBFGS`] on its root. `closure` takes gradients away, runs the
/// models, computes their losses, goes back, and gives the losses; it is called until the last model has made its
/// step. Models that are ready before that stay as they are meanwhile.
///
/// # Shape
///
/// The closure's result is `[models]`, as is this one: the losses of the first call.
///
/// # Errors
///
/// If a model has no [`LBFGS`] or one that torch refuses, and what the closure fails with.
///
/// Source: `torch.optim.LBFGS.step`.
pub fn step(
    world: &mut World,
    population: Entity,
    mut closure: impl FnMut(&mut World) -> Result<Array1<f64>, LbfgsError>,
) -> Result<Array1<f64>, LbfgsError> {
    let found = world.get::<Population>(population);
    let found = found.ok_or(StepError::from(SignError::NotAPopulation(population)))?;
    let (roots, dtype) = (found.models().to_vec(), Models::of(found).dtype);
    let mut settings = Vec::new();
    for (model, &root) in roots.iter().enumerate() {
        let own = world.get::<LBFGS>(root).ok_or(StepError::NoOptimizer { model })?;
        own.check().map_err(|source| LbfgsError::Optimizer { model, source })?;
        settings.push(own.settings());
    }
    let mut steps = Vec::new();
    for &root in &roots {
        let x = read(world, root, dtype)?;
        let state = world.get::<LbfgsState>(root).cloned().unwrap_or_default().0;
        steps.push((LbfgsStep::new(x), state, true));
    }
    let mut first = None;
    loop {
        let losses = closure(world)?;
        if losses.len() != roots.len() {
            let (expected, given) = (roots.len(), losses.len());
            return Err(LbfgsError::Losses { expected, given });
        }
        for (model, (step, state, goes_on)) in steps.iter_mut().enumerate() {
            if !*goes_on {
                continue;
            }
            let root = roots[model];
            let gradient = match dtype {
                Dtype::F64 => gradient::<f64>(world, root)?,
                _ => gradient::<f32>(world, root)?,
            };
            let x = match step.next(state, &settings[model], losses[model], &gradient) {
                Ask::Evaluate(x) => x,
                Ask::Done(x) => {
                    *goes_on = false;
                    x
                }
            };
            write(world, root, dtype, x)?;
        }
        let losses = first.get_or_insert(losses);
        if steps.iter().all(|(_, _, goes_on)| !goes_on) {
            let losses = std::mem::take(losses);
            for (root, (_, state, _)) in roots.into_iter().zip(steps) {
                if let Ok(mut root) = world.get_entity_mut(root) {
                    root.insert(LbfgsState(state));
                }
            }
            return Ok(losses);
        }
    }
}

fn read(world: &mut World, root: Entity, dtype: Dtype) -> Result<Vec<f64>, VectorError> {
    Ok(match dtype {
        Dtype::F64 => parameters_to_vector::<f64>(world, root)?.to_vec(),
        _ => parameters_to_vector::<f32>(world, root)?.mapv(f64::from).to_vec(),
    })
}

fn write(world: &mut World, root: Entity, dtype: Dtype, x: Vec<f64>) -> Result<(), VectorError> {
    let x = Array1::from(x);
    match dtype {
        Dtype::F64 => vector_to_parameters(world, root, x.view()),
        _ => vector_to_parameters(world, root, x.mapv(|x| x as f32).view()),
    }
}

/// Copies the gradients of all parameters, zeros where there is none.
fn gradient<T: Element + Into<f64>>(
    world: &mut World,
    root: Entity,
) -> Result<Vec<f64>, AccessError> {
    let mut all = Vec::new();
    for of in crate::structure::traverse::named_parameters(world, root, Default::default())? {
        match access::gradient::<T>(world, root, &of.name)? {
            Some(gradient) => all.extend(gradient.iter().map(|&g| g.into())),
            None => all.resize(all.len() + of.ty.shape.numel(), 0.0),
        }
    }
    Ok(all)
}
