//! Steps with a [`GradScaler`]: each model has its own, and one model's overflow passes over that model's step alone.

use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayD, Axis};
use neurarch_components::amp::{GradScaler, ScalerStage, ScalerState};
use neurarch_components::losses::Loss;
use neurarch_components::module::mode::Mode;
use neurarch_components::population::Population;
use neurarch_kernels::gradients;
use neurarch_kernels::ir::dtype::{Dtype, Element};

use crate::compile::array::Input;
use crate::errors::{SignError, StepError};
use crate::execute::run::with_run;
use crate::execute::shared::Sums;
use crate::execute::step;
use crate::execute::step::MicroBatches;
use crate::execute::tape::Start;
use crate::optim::gradients::{Gradients, Touch, Whose};

/// Why a scaler cannot do as asked; torch's words. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScalerError {
    /// There is no such population.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The step itself failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A model has no scaler.
    #[error("model {model} has no GradScaler: insert one, such as GradScaler::default()")]
    NoScaler {
        /// The model's index.
        model: usize,
    },
    /// A scale cannot grow by its factor.
    #[error("The growth factor must be > 1.0.")]
    GrowthFactor,
    /// A scale cannot go back by its factor.
    #[error("The backoff factor must be < 1.0.")]
    BackoffFactor,
    /// Nothing was scaled yet.
    #[error(
        "Attempted {0} but _scale is None.  This may indicate your script did not use scaler.scale(loss or outputs) earlier in the iteration."
    )]
    NotScaled(&'static str),
    /// Gradients are scaled back already.
    #[error("unscale_() has already been called on this optimizer since the last update().")]
    AlreadyUnscaled,
    /// The step is made already.
    #[error("unscale_() is being called after step().")]
    UnscaledAfterStep,
    /// The step is made already.
    #[error("step() has already been called since the last update().")]
    AlreadyStepped,
    /// A model has no gradients.
    #[error("No inf checks were recorded for this optimizer.")]
    NoGradients,
    /// No gradients were looked at.
    #[error("No inf checks were recorded prior to update.")]
    NoInfChecks,
    /// Scaled back, gradients of f16 would vanish.
    #[error("Attempting to unscale FP16 gradients.")]
    Fp16Gradients,
    /// The state is of a scaler that scales nothing.
    #[error(
        "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
    )]
    EmptyState,
    /// Gradients that several scales have a part in cannot be scaled back.
    #[error("the population shares parameters: their gradients would be of several scales")]
    Shared,
}

/// The scaler of an active model.
struct Of {
    model: usize,
    root: Entity,
    scaler: GradScaler,
}

impl Of {
    /// Returns whether a gradient was found that is not finite.
    fn overflowed(&self) -> bool {
        self.scaler.enabled && self.scaler.found_inf == Some(true)
    }
}

/// Lists the active models of a population with their scalers.
fn scalers(world: &mut World, population: Entity) -> Result<Vec<Of>, ScalerError> {
    let mut states = world.query::<(Option<&Mode>, Option<&GradScaler>)>();
    let world: &World = world;
    let found = world.get::<Population>(population);
    let roots = found.ok_or(SignError::NotAPopulation(population))?.models();
    states.update_archetypes(world);
    let mut all = Vec::with_capacity(roots.len());
    for (model, &root) in roots.iter().enumerate() {
        let (mode, scaler) = states.get_manual(world, root).unwrap_or_default();
        if mode.is_some_and(|mode| mode.inactive) {
            continue;
        }
        let scaler = *scaler.ok_or(ScalerError::NoScaler { model })?;
        check(&scaler)?;
        all.push(Of { model, root, scaler });
    }
    let is_scaled = all.iter().any(|of| of.scaler.enabled);
    match is_scaled && Sums::of(world, population).is_some() {
        true => Err(ScalerError::Shared),
        false => Ok(all),
    }
}

fn check(scaler: &GradScaler) -> Result<(), ScalerError> {
    match scaler {
        GradScaler { enabled: false, .. } => Ok(()),
        scaler if scaler.growth_factor.is_nan() || scaler.growth_factor <= 1.0 => {
            Err(ScalerError::GrowthFactor)
        }
        scaler if scaler.backoff_factor.is_nan() || scaler.backoff_factor >= 1.0 => {
            Err(ScalerError::BackoffFactor)
        }
        _ => Ok(()),
    }
}

/// Writes scalers back.
fn put(world: &mut World, all: &[Of]) {
    let mut scalers = world.query::<&mut GradScaler>();
    for of in all {
        if let Ok(mut scaler) = scalers.get_mut(world, of.root) {
            *scaler = of.scaler;
        }
    }
}

/// Multiplies each model's numbers by its scale.
///
/// # Shape
///
/// `outputs` is `[models, ..]`, and so is the result.
///
/// # Errors
///
/// If there is no such population, a model has no scaler, or `outputs` is of other models.
///
/// Source: `torch.amp.GradScaler.scale`.
pub fn scale<T: Element>(
    world: &mut World,
    population: Entity,
    outputs: &ArrayD<T>,
) -> Result<ArrayD<T>, ScalerError> {
    let mut all = scalers(world, population)?;
    if !T::DTYPE.is_float() {
        return Err(StepError::NotFloat.into());
    }
    let expected = world.get::<Population>(population).map_or(0, |population| population.len());
    let given = outputs.shape().first().copied().unwrap_or(0);
    if given != expected {
        return Err(StepError::Models { array: "outputs", expected, given }.into());
    }
    let mut scaled = outputs.as_standard_layout().into_owned();
    for of in all.iter_mut().filter(|of| of.scaler.enabled) {
        let scale = of.scaler.start();
        let mut row = scaled.index_axis_mut(Axis(0), of.model);
        if let Some(row) = row.as_slice_mut() {
            gradients::scale(T::DTYPE, bytemuck::cast_slice_mut(row), scale.into());
        }
    }
    put(world, &all);
    Ok(scaled)
}

/// Multiplies what [`backward`](step::backward()) starts from by each model's scale: `scale(loss)` of the last loss.
///
/// # Errors
///
/// If there was no loss of one number for each model after a forward pass, a model was spawned or edited since, or a
/// model has no scaler.
///
/// Source: `torch.amp.GradScaler.scale`.
pub fn scale_loss(world: &mut World, population: Entity) -> Result<(), ScalerError> {
    let mut all = scalers(world, population)?;
    scale_losses(world, population, &mut all)?;
    put(world, &all);
    Ok(())
}

fn scale_losses(world: &mut World, population: Entity, all: &mut [Of]) -> Result<(), StepError> {
    with_run(world, population, |world, run| {
        run.follow(world, population)?;
        let tape = &mut run.tape;
        match tape.start {
            Start::Nothing => return Err(StepError::NoLoss),
            Start::LossArray => return Err(StepError::NotScalar),
            Start::Loss => {}
        }
        let y = tape.results.as_ref().and_then(|results| results.only().cloned());
        let y = y.ok_or(StepError::NoForward("scale_loss"))?;
        let size = y.size_bytes();
        for of in all.iter_mut().filter(|of| of.scaler.enabled) {
            let scale = of.scaler.start();
            let row = &mut tape.gradient.bytes_mut()[of.model * size..][..size];
            gradients::scale(y.dtype, row, scale.into());
        }
        Ok(())
    })
}

/// Divides the gradients of each model by its scale, and looks for numbers that are not finite.
///
/// # Errors
///
/// In torch's words: if nothing was scaled, or this was done already, or the step was made, since the last
/// [`update`]; and if gradients are of f16.
///
/// Source: `torch.amp.GradScaler.unscale_`.
pub fn unscale_(world: &mut World, population: Entity) -> Result<(), ScalerError> {
    let mut all = scalers(world, population)?;
    for Of { scaler, .. } in all.iter().filter(|of| of.scaler.enabled) {
        match (scaler.scale, scaler.stage) {
            (None, _) => return Err(ScalerError::NotScaled("unscale_")),
            (_, ScalerStage::Unscaled) => return Err(ScalerError::AlreadyUnscaled),
            (_, ScalerStage::Stepped) => return Err(ScalerError::UnscaledAfterStep),
            (_, ScalerStage::Ready) => {}
        }
    }
    unscale_ready(world, population, &mut all)?;
    put(world, &all);
    Ok(())
}

/// Divides the gradients of the models that are ready for it.
fn unscale_ready(world: &mut World, population: Entity, all: &mut [Of]) -> Result<(), ScalerError> {
    if all.iter().all(|of| !of.scaler.enabled) {
        return Ok(());
    }
    let whose = Whose::of(world, population)?;
    let mut unscalings = vec![Unscaling::default(); whose.models];
    let is_ready = |of: &Of| of.scaler.enabled && of.scaler.stage == ScalerStage::Ready;
    for of in all.iter_mut().filter(|of| is_ready(of)) {
        let inverse = (1.0 / f64::from(of.scaler.start())) as f32;
        unscalings[of.model].inverse = Some(inverse);
    }
    let is_f16 = whose.with(world, |world, all| {
        if all.iter().any(|alike| alike.has(Dtype::F16)) {
            return Ok(true);
        }
        for alike in all {
            alike.visit(world, Touch::Write, &mut unscalings, Unscaling::unscale)?;
        }
        Ok(false)
    })?;
    if is_f16 {
        return Err(ScalerError::Fp16Gradients);
    }
    for of in all {
        if let Some(found_inf) = unscalings[of.model].found_inf {
            of.scaler.found_inf = Some(found_inf);
            of.scaler.stage = ScalerStage::Unscaled;
        }
    }
    Ok(())
}

/// How the gradients of a model are scaled back.
#[derive(Clone, Copy, Default)]
struct Unscaling {
    /// What they are multiplied by; none if they stay as they are.
    inverse: Option<f32>,
    /// Whether one was not finite, once they were looked at.
    found_inf: Option<bool>,
}

impl Unscaling {
    fn unscale(gradients: &mut Gradients<'_, '_>, of: &mut Unscaling) {
        let Some(inverse) = of.inverse else { return };
        let mut found_inf = false;
        gradients.change(|dtype, row| found_inf |= gradients::unscale(dtype, row, inverse));
        of.found_inf = Some(found_inf);
    }
}

/// Updates the parameters of the models whose gradients are all finite, which are divided by the scale first unless
/// [`unscale_`] did so. Of the others nothing changes: neither parameters nor the state of optimizers.
///
/// Says of each model whether its step was made.
///
/// # Shape
///
/// `[models]`, by index.
///
/// # Errors
///
/// In torch's words: if nothing was scaled, the step was made already since the last [`update`], or a model has no
/// gradients; and as [`step::step`].
///
/// Source: `torch.amp.GradScaler.step`.
pub fn step(world: &mut World, population: Entity) -> Result<Vec<bool>, ScalerError> {
    let mut all = scalers(world, population)?;
    let made = step_of(world, population, &mut all);
    // Gradients that were scaled back stay so.
    put(world, &all);
    made?;
    let models = world.get::<Population>(population).map_or(0, |population| population.len());
    let mut is_made = vec![false; models];
    all.iter().for_each(|of| is_made[of.model] = !of.overflowed());
    Ok(is_made)
}

fn step_of(world: &mut World, population: Entity, all: &mut [Of]) -> Result<(), ScalerError> {
    for Of { scaler, .. } in all.iter().filter(|of| of.scaler.enabled) {
        match (scaler.scale, scaler.stage) {
            (None, _) => return Err(ScalerError::NotScaled("step")),
            (_, ScalerStage::Stepped) => return Err(ScalerError::AlreadyStepped),
            _ => {}
        }
    }
    unscale_ready(world, population, all)?;
    if all.iter().any(|of| of.scaler.enabled && of.scaler.found_inf.is_none()) {
        return Err(ScalerError::NoGradients);
    }
    let skipped: Vec<Entity> = all.iter().filter(|of| of.overflowed()).map(|of| of.root).collect();
    if skipped.len() < all.len() {
        set_inactive(world, &skipped, true);
        let made = step::step(world, population);
        set_inactive(world, &skipped, false);
        made?;
    }
    for of in all.iter_mut().filter(|of| of.scaler.enabled) {
        of.scaler.stage = ScalerStage::Stepped;
    }
    Ok(())
}

/// Passes over some models, or no more.
fn set_inactive(world: &mut World, roots: &[Entity], is_inactive: bool) {
    for &root in roots {
        if let Some(mut mode) = world.get_mut::<Mode>(root) {
            mode.inactive = is_inactive;
        }
    }
}

/// Moves each model's scale on: [`GradScaler::advance`]; or makes it `new_scale`.
///
/// # Errors
///
/// In torch's words: if nothing was scaled, or no gradients were looked at, since the last update.
///
/// Source: `torch.amp.GradScaler.update`.
pub fn update(
    world: &mut World,
    population: Entity,
    new_scale: Option<f64>,
) -> Result<(), ScalerError> {
    let mut all = scalers(world, population)?;
    update_of(&mut all, new_scale)?;
    put(world, &all);
    Ok(())
}

fn update_of(all: &mut [Of], new_scale: Option<f64>) -> Result<(), ScalerError> {
    for Of { scaler, .. } in all.iter().filter(|of| of.scaler.enabled) {
        if scaler.scale.is_none() {
            return Err(ScalerError::NotScaled("update"));
        }
        if new_scale.is_none() && scaler.found_inf.is_none() {
            return Err(ScalerError::NoInfChecks);
        }
    }
    for Of { scaler, .. } in all.iter_mut().filter(|of| of.scaler.enabled) {
        match (new_scale, scaler.found_inf) {
            (Some(new_scale), _) => scaler.scale = Some(new_scale as f32),
            (None, found_inf) => scaler.advance(found_inf.unwrap_or(false)),
        }
        (scaler.stage, scaler.found_inf) = (ScalerStage::Ready, None);
    }
    Ok(())
}

/// Returns the scale of each model, 1 where nothing is scaled.
///
/// # Shape
///
/// `[models]`, by index.
///
/// # Errors
///
/// If there is no such population, or a model has no scaler.
///
/// Source: `torch.amp.GradScaler.get_scale`.
pub fn get_scale(world: &World, population: Entity) -> Result<Array1<f64>, ScalerError> {
    let found = world.get::<Population>(population);
    let roots = found.ok_or(SignError::NotAPopulation(population))?.models();
    let of = |(model, &root): (usize, &Entity)| {
        let scaler = world.get::<GradScaler>(root).ok_or(ScalerError::NoScaler { model })?;
        Ok(scaler.get_scale())
    };
    roots.iter().enumerate().map(of).collect()
}

/// Returns what is worth keeping of a model's scaler; `None` if it scales nothing.
///
/// # Errors
///
/// If the entity has no scaler.
///
/// Source: `torch.amp.GradScaler.state_dict`, which is empty then.
pub fn state_dict(world: &World, root: Entity) -> Result<Option<ScalerState>, ScalerError> {
    let scaler = world.get::<GradScaler>(root).ok_or(ScalerError::NoScaler { model: 0 })?;
    let GradScaler { growth_factor, backoff_factor, growth_interval, growth_tracker, .. } = *scaler;
    let scale = scaler.get_scale();
    Ok(scaler.enabled.then_some(ScalerState {
        scale,
        growth_factor,
        backoff_factor,
        growth_interval,
        growth_tracker,
    }))
}

/// Overwrites a model's scaler; one that scales nothing stays as it is.
///
/// # Errors
///
/// If the entity has no scaler, or the state is of one that scales nothing.
///
/// Source: `torch.amp.GradScaler.load_state_dict`.
pub fn load_state_dict(
    world: &mut World,
    root: Entity,
    state: Option<&ScalerState>,
) -> Result<(), ScalerError> {
    let scaler = world.get_mut::<GradScaler>(root);
    let mut scaler = scaler.ok_or(ScalerError::NoScaler { model: 0 })?;
    if !scaler.enabled {
        return Ok(());
    }
    let state = state.ok_or(ScalerError::EmptyState)?;
    let ScalerState { scale, growth_factor, backoff_factor, growth_interval, growth_tracker } =
        *state;
    *scaler = GradScaler {
        init_scale: scale,
        growth_factor,
        backoff_factor,
        growth_interval,
        growth_tracker,
        scale: scaler.scale.map(|_| scale as f32),
        ..*scaler
    };
    Ok(())
}

/// Makes a training step with scaled losses, call after call: gradients taken away, forward, loss, backward, step and
/// update. Gives each model's loss, which is not scaled.
///
/// # Shape
///
/// `x` and `targets` are `[models, batch, ..]` or shared; the result is `[models]`.
///
/// # Errors
///
/// As [`step::train_step`], and if a model has no scaler or parameters are shared.
pub fn train_step<'a, 'b, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    targets: impl Into<Input<'b, Y>>,
    loss: &impl Loss,
) -> Result<Array1<X::Float>, ScalerError> {
    // They are read and written once.
    let mut all = scalers(world, population)?;
    step::zero_grad(world, population, true)?;
    step::forward(world, population, x)?;
    let losses = step::loss::<X::Float, Y>(world, population, targets, loss)?;
    scale_losses(world, population, &mut all)?;
    step::backward(world, population)?;
    let made = step_of(world, population, &mut all).and_then(|()| update_of(&mut all, None));
    put(world, &all);
    made?;
    Ok(losses.into_iter().collect())
}

/// [`train_step`] on a batch in parts, one after the other: [`step::train_step_accumulated`] says what holds. The scales
/// stay as they are until the step is made.
///
/// # Shape
///
/// As [`train_step`].
///
/// # Errors
///
/// As [`step::train_step_accumulated`], and if a model has no scaler or parameters are shared.
///
/// Source: "Gradient accumulation" in torch's automatic mixed precision examples.
pub fn train_step_accumulated<'a, 'b, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    targets: impl Into<Input<'b, Y>>,
    loss: &impl Loss,
    micro_batches: usize,
) -> Result<Array1<X::Float>, ScalerError> {
    let arrays = (x.into(), targets.into());
    let mut all = scalers(world, population)?;
    let parts = MicroBatches::new(world, population, arrays, loss, micro_batches)?;
    step::zero_grad(world, population, true)?;
    let losses = parts
        .accumulate::<ScalerError>(world, |world| Ok(scale_losses(world, population, &mut all)?))?;
    let made = step_of(world, population, &mut all).and_then(|()| update_of(&mut all, None));
    put(world, &all);
    made?;
    Ok(losses)
}
