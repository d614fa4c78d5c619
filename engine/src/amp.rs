//! [`AmpWorld`]: steps with scaled losses on bevy's [`World`], by one-line callers of
//! [`systems::amp`](crate::systems::amp).

use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayD};

use crate::components::amp::ScalerState;
use crate::components::losses::Loss;
use crate::kernels::ir::dtype::Element;
use crate::systems::amp::{self, ScalerError};
use crate::systems::compile::array::Input;

/// Training in f16: what a [`GradScaler`](crate::components::amp::GradScaler) on each model does.
///
/// # Example
///
/// ```
/// use ndarray::Array3;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// world.insert(brains, SGD::default())?;
/// world.insert(brains, GradScaler { init_scale: 1024.0, ..GradScaler::default() })?;
/// let (mut x, y) = (Array3::<f32>::ones((3, 8, 4)), Array3::<f32>::zeros((3, 8, 2)));
/// x[[1, 0, 0]] = 1e5; // more than f16 holds
/// for _ in 0..2 {
///     world.autocast(Dtype::F16, |world| {
///         world.forward(brains, &x)?;
///         world.loss::<f32, _>(brains, &y, &MSELoss::default())
///     })?;
///     world.zero_grad(brains)?;
///     world.scale_loss(brains)?;
///     world.backward(brains)?;
///     let made = world.step_scaled(brains)?;
///     world.update_scale(brains, None)?;
///     assert_eq!(made, [true, false, true]); // the other models do not notice
/// }
/// assert_eq!(world.get_scale(brains)?.to_vec(), [1024.0, 256.0, 1024.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AmpWorld {
    /// Multiplies each model's numbers by its scale: [`amp::scale`].
    ///
    /// # Errors
    ///
    /// If a model has no scaler, or `outputs` is of other models.
    fn scale<T: Element>(
        &mut self,
        population: Entity,
        outputs: &ArrayD<T>,
    ) -> Result<ArrayD<T>, ScalerError>;

    /// Scales what `backward` starts from: [`amp::scale_loss`].
    ///
    /// # Errors
    ///
    /// If there was no loss, or a model has no scaler.
    fn scale_loss(&mut self, population: Entity) -> Result<(), ScalerError>;

    /// Divides the gradients by the scales before a step, to clip them: [`amp::unscale_`].
    ///
    /// # Errors
    ///
    /// In torch's words, if it is not the time for it.
    fn unscale_(&mut self, population: Entity) -> Result<(), ScalerError>;

    /// Makes the step of the models whose gradients are finite, and says which those are: [`amp::step`].
    ///
    /// # Errors
    ///
    /// In torch's words, if it is not the time for it; if a model has no optimizer or no gradients.
    fn step_scaled(&mut self, population: Entity) -> Result<Vec<bool>, ScalerError>;

    /// Moves the scales on, or makes them `new_scale`: [`amp::update`].
    ///
    /// # Errors
    ///
    /// In torch's words, if it is not the time for it.
    fn update_scale(
        &mut self,
        population: Entity,
        new_scale: Option<f64>,
    ) -> Result<(), ScalerError>;

    /// Gives the scale of each model: [`amp::get_scale`].
    ///
    /// # Errors
    ///
    /// If a model has no scaler.
    fn get_scale(&self, population: Entity) -> Result<Array1<f64>, ScalerError>;

    /// Makes a training step with scaled losses: [`amp::train_step`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](crate::TrainWorld::train_step), and if a model has no scaler.
    fn train_step_scaled<'a, 'b, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<X::Float>, ScalerError>;

    /// Gives what is worth keeping of a model's scaler: [`amp::state_dict`].
    ///
    /// # Errors
    ///
    /// If it has none.
    fn scaler_state_dict(&self, root: Entity) -> Result<Option<ScalerState>, ScalerError>;

    /// Overwrites a model's scaler: [`amp::load_state_dict`].
    ///
    /// # Errors
    ///
    /// If it has none, or the state is of one that scales nothing.
    fn load_scaler_state_dict(
        &mut self,
        root: Entity,
        state: Option<&ScalerState>,
    ) -> Result<(), ScalerError>;
}

impl AmpWorld for World {
    fn scale<T: Element>(
        &mut self,
        population: Entity,
        outputs: &ArrayD<T>,
    ) -> Result<ArrayD<T>, ScalerError> {
        amp::scale(self, population, outputs)
    }

    fn scale_loss(&mut self, population: Entity) -> Result<(), ScalerError> {
        amp::scale_loss(self, population)
    }

    fn unscale_(&mut self, population: Entity) -> Result<(), ScalerError> {
        amp::unscale_(self, population)
    }

    fn step_scaled(&mut self, population: Entity) -> Result<Vec<bool>, ScalerError> {
        amp::step(self, population)
    }

    fn update_scale(
        &mut self,
        population: Entity,
        new_scale: Option<f64>,
    ) -> Result<(), ScalerError> {
        amp::update(self, population, new_scale)
    }

    fn get_scale(&self, population: Entity) -> Result<Array1<f64>, ScalerError> {
        amp::get_scale(self, population)
    }

    fn train_step_scaled<'a, 'b, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<X::Float>, ScalerError> {
        amp::train_step(self, population, x, targets, loss)
    }

    fn scaler_state_dict(&self, root: Entity) -> Result<Option<ScalerState>, ScalerError> {
        amp::state_dict(self, root)
    }

    fn load_scaler_state_dict(
        &mut self,
        root: Entity,
        state: Option<&ScalerState>,
    ) -> Result<(), ScalerError> {
        amp::load_state_dict(self, root, state)
    }
}
