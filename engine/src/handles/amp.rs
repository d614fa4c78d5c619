//! Training in f16: what a [`GradScaler`](crate::components::amp::GradScaler) on each model does.

use crate::components::amp::ScalerState;
use crate::components::losses::Loss;
use crate::handles::{ModuleMut, PopulationMut};
use crate::kernels::ir::dtype::Element;
use crate::systems::amp::{self, ScalerError};
use crate::systems::compile::array::Input;
use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayD};

/// Training in f16: what a [`GradScaler`](crate::components::amp::GradScaler) on each model does.
///
/// # Example
///
/// ```
/// use ndarray::Array3;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// brains.insert(SGD::default())?;
/// brains.insert(GradScaler { init_scale: 1024.0, ..GradScaler::default() })?;
/// let (mut x, y) = (Array3::<f32>::ones((3, 8, 4)), Array3::<f32>::zeros((3, 8, 2)));
/// x[[1, 0, 0]] = 1e5; // more than f16 holds
/// for _ in 0..2 {
///     brains.autocast(Dtype::F16, |brains| {
///         brains.forward(&x)?;
///         brains.loss::<f32, _>(&y, &MSELoss::default())
///     })?;
///     brains.zero_grad()?;
///     brains.scale_loss()?;
///     brains.backward()?;
///     let made = brains.step_scaled()?;
///     brains.update_scale(None)?;
///     assert_eq!(made, [true, false, true]); // the other models do not notice
/// }
/// assert_eq!(brains.as_ref()?.get_scale()?.to_vec(), [1024.0, 256.0, 1024.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl PopulationMut<'_> {
    /// Multiplies each model's numbers by its scale: [`amp::scale`].
    ///
    /// # Errors
    ///
    /// If a model has no scaler, or `outputs` is of other models.
    pub fn scale<T: Element>(&mut self, outputs: &ArrayD<T>) -> Result<ArrayD<T>, ScalerError> {
        amp::scale(self.handle.world, self.id, outputs)
    }

    /// Scales what `backward` starts from: [`amp::scale_loss`].
    ///
    /// # Errors
    ///
    /// If there was no loss, or a model has no scaler.
    pub fn scale_loss(&mut self) -> Result<(), ScalerError> {
        amp::scale_loss(self.handle.world, self.id)
    }

    /// Divides the gradients by the scales before a step, to clip them: [`amp::unscale_`].
    ///
    /// # Errors
    ///
    /// In torch's words, if it is not the time for it.
    pub fn unscale_(&mut self) -> Result<(), ScalerError> {
        amp::unscale_(self.handle.world, self.id)
    }

    /// Makes the step of the models whose gradients are finite, and says which those are: [`amp::step`].
    ///
    /// # Errors
    ///
    /// In torch's words, if it is not the time for it; if a model has no optimizer or no gradients.
    pub fn step_scaled(&mut self) -> Result<Vec<bool>, ScalerError> {
        amp::step(self.handle.world, self.id)
    }

    /// Moves the scales on, or makes them `new_scale`: [`amp::update`].
    ///
    /// # Errors
    ///
    /// In torch's words, if it is not the time for it.
    pub fn update_scale(&mut self, new_scale: Option<f64>) -> Result<(), ScalerError> {
        amp::update(self.handle.world, self.id, new_scale)
    }

    /// Returns the scale of each model: [`amp::get_scale`].
    ///
    /// # Errors
    ///
    /// If a model has no scaler.
    pub fn get_scale(&self) -> Result<Array1<f64>, ScalerError> {
        amp::get_scale(self.handle.world, self.id)
    }

    /// Makes a training step with scaled losses: [`amp::train_step`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](Self::train_step), and if a model has no scaler.
    pub fn train_step_scaled<'a, 'b, X: Element, Y: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<X::Float>, ScalerError> {
        amp::train_step(self.handle.world, self.id, x, targets, loss)
    }

    /// Makes a training step with scaled losses on a batch in so many parts: [`amp::train_step_accumulated`].
    ///
    /// # Errors
    ///
    /// As [`train_step_accumulated`](Self::train_step_accumulated), and if a model has no scaler.
    pub fn train_step_scaled_accumulated<'a, 'b, X: Element, Y: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
        micro_batches: usize,
    ) -> Result<Array1<X::Float>, ScalerError> {
        amp::train_step_accumulated(self.handle.world, self.id, x, targets, loss, micro_batches)
    }
}

impl ModuleMut<'_> {
    /// Returns what is worth keeping of a model's scaler: [`amp::state_dict`].
    ///
    /// # Errors
    ///
    /// If it has none.
    pub fn scaler_state_dict(&self) -> Result<Option<ScalerState>, ScalerError> {
        amp::state_dict(self.handle.world, self.id)
    }

    /// Overwrites a model's scaler: [`amp::load_state_dict`].
    ///
    /// # Errors
    ///
    /// If it has none, or the state is of one that scales nothing.
    pub fn load_scaler_state_dict(
        &mut self,
        state: Option<&ScalerState>,
    ) -> Result<(), ScalerError> {
        amp::load_state_dict(self.handle.world, self.id, state)
    }
}
