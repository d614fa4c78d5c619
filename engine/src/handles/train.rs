//! What populations do: run and learn.

use crate::components::losses::Loss;
use crate::handles::PopulationMut;
use crate::kernels::ir::dtype::Element;
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::compile::array::{AnyArray, AnyInput, DataSet, Input};
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;
use bevy_ecs::prelude::*;
use ndarray::{Array1, Array2, ArrayD, ArrayViewMut, Dimension};

/// What populations do: run, learn, and what can be toggled about it.
///
/// Wherever arrays are taken, `&Array`, views and [`Input`] are; their first axis is that of the models,
/// in the order of [`models`](PopulationMut::models).
///
/// # Example
///
/// ```
/// use ndarray::{Array2, Array3};
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// brains.insert(SGD { lr: 0.1, ..SGD::default() })?;
/// let (x, y) = (Array3::<f32>::ones((3, 8, 4)), Array2::<i64>::ones((3, 8)));
/// let loss = CrossEntropyLoss::default();
///
/// // As in torch, one by one:
/// brains.forward(&x)?;
/// let first = brains.loss::<f32, _>(&y, &loss)?; // one for each model
/// brains.backward()?;
/// brains.step()?;
/// brains.zero_grad()?;
/// // Or all at once, to the same bits, and faster:
/// let second = brains.train_step(&x, &y, &loss)?;
/// assert!(second.iter().zip(&first).all(|(second, first)| second < first));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl PopulationMut<'_> {
    /// Runs the models: [`step::forward`].
    ///
    /// # Errors
    ///
    /// If `x` does not fit the population or its modules, or the result is not of the type of `x` (f32 if `x` is of
    /// whole numbers).
    pub fn forward<'a, X: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError> {
        step::forward(self.handle.world, self.id, x)
    }

    /// Calls models that take several values or keyword arguments, or give several values:
    /// [`step::forward_with`].
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward), and if a value of the result is not of `T`.
    pub fn forward_with<T: Element>(
        &mut self,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<ArrayD<T>>, StepError> {
        step::forward_with(self.handle.world, self.id, arguments)
    }

    /// Calls models whose results are of several element types: [`step::forward_any`].
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_any(
        &mut self,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<AnyArray>, StepError> {
        step::forward_any(self.handle.world, self.id, arguments)
    }

    /// Runs the models into an array that is there already: [`step::forward_into`].
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward), and if `y` has another shape than the result.
    pub fn forward_into<'a, X: Element, D: Dimension>(
        &mut self,
        x: impl Into<Input<'a, X>>,
        y: ArrayViewMut<'_, X::Float, D>,
    ) -> Result<(), StepError> {
        step::forward_into(self.handle.world, self.id, x, y)
    }

    /// Computes the loss of the last forward pass: [`step::loss`].
    ///
    /// # Errors
    ///
    /// If there was no forward pass, or the targets do not fit its result.
    pub fn loss<'a, T: Element, Y: Element>(
        &mut self,
        targets: impl Into<Input<'a, Y>>,
        loss: &impl Loss,
    ) -> Result<ArrayD<T>, StepError> {
        step::loss(self.handle.world, self.id, targets, loss)
    }

    /// Adds the gradients of the last loss to those of the parameters: [`step::backward`].
    ///
    /// # Errors
    ///
    /// If there was no loss of one number for each model after a forward pass, or gradients were off in it.
    pub fn backward(&mut self) -> Result<(), StepError> {
        step::backward(self.handle.world, self.id)
    }

    /// Adds the gradients of the last loss times a number: [`step::backward_scaled`].
    ///
    /// # Errors
    ///
    /// As [`backward`](Self::backward).
    pub fn backward_scaled(&mut self, scale: f64) -> Result<(), StepError> {
        step::backward_scaled(self.handle.world, self.id, scale)
    }

    /// Goes back from a gradient of the last forward pass's results: [`step::backward_from`].
    ///
    /// # Errors
    ///
    /// As [`backward`](Self::backward), and if `gradient` has another shape than the results.
    pub fn backward_from<'a, T: Element>(
        &mut self,
        gradient: impl Into<Input<'a, T>>,
    ) -> Result<(), StepError> {
        step::backward_from(self.handle.world, self.id, gradient)
    }

    /// Adds the gradients of the last forward pass from given gradients of its floating results, `None` where
    /// there is none: [`step::backward_with`].
    ///
    /// # Errors
    ///
    /// As [`backward_from`](Self::backward_from), and if there are more or fewer than results.
    pub fn backward_with(&mut self, gradients: &[Option<AnyInput<'_>>]) -> Result<(), StepError> {
        step::backward_with(self.handle.world, self.id, gradients)
    }

    /// Copies the gradient of the last input, if it [`requires_grad`](Input::requires_grad), after a
    /// backward pass: [`step::input_gradient`].
    ///
    /// # Errors
    ///
    /// If there is no such population, or the input's elements are not `T`.
    pub fn input_gradient<T: Element>(&self) -> Result<Option<ArrayD<T>>, StepError> {
        step::input_gradient(self.handle.world, self.id)
    }

    /// Updates the parameters that have a gradient: [`step::step`].
    ///
    /// # Errors
    ///
    /// If a model has no optimizer.
    pub fn step(&mut self) -> Result<(), StepError> {
        step::step(self.handle.world, self.id)
    }

    /// Makes one training step: [`step::train_step`].
    ///
    /// # Errors
    ///
    /// If the arrays do not fit the population or the loss, or a model has no optimizer.
    pub fn train_step<'a, 'b, X: Element, Y: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<X::Float>, StepError> {
        step::train_step(self.handle.world, self.id, x, targets, loss)
    }

    /// Makes one training step, the losses into an array that is there already:
    /// [`step::train_step_into`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](Self::train_step), and if `losses` has another length.
    pub fn train_step_into<'a, 'b, X: Element, Y: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
        losses: &mut [X::Float],
    ) -> Result<(), StepError> {
        step::train_step_into(self.handle.world, self.id, x, targets, loss, losses)
    }

    /// Makes one training step on a batch in so many parts, whose gradients add up: [`step::train_step_accumulated`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](Self::train_step), and if the batch cannot be cut.
    pub fn train_step_accumulated<'a, 'b, X: Element, Y: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
        micro_batches: usize,
    ) -> Result<Array1<X::Float>, StepError> {
        step::train_step_accumulated(self.handle.world, self.id, x, targets, loss, micro_batches)
    }

    /// Makes one training step of models that take several values or keyword arguments, or give several
    /// values: [`step::train_step_with`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](Self::train_step).
    pub fn train_step_with<'a, L: Element, Y: Element>(
        &mut self,
        arguments: Arguments<AnyInput<'_>>,
        targets: impl Into<Input<'a, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<L>, StepError> {
        step::train_step_with(self.handle.world, self.id, arguments, targets, loss)
    }

    /// Makes a training step on each minibatch of a data set: [`step::train_steps`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](Self::train_step), and if item numbers or sizes do not fit the data.
    pub fn train_steps<X: Element, Y: Element>(
        &mut self,
        data: DataSet<'_, X, Y>,
        loss: &impl Loss,
    ) -> Result<Array2<X::Float>, StepError> {
        step::train_steps(self.handle.world, self.id, &data, loss)
    }

    /// Makes a training step on each minibatch of a data set, the losses of type `L`:
    /// [`step::train_steps_with`].
    ///
    /// # Errors
    ///
    /// As [`train_steps`](Self::train_steps), and if the models are not of type `L`.
    pub fn train_steps_with<L: Element, X: Element, Y: Element>(
        &mut self,
        data: DataSet<'_, X, Y>,
        loss: &impl Loss,
    ) -> Result<Array2<L>, StepError> {
        step::train_steps_with(self.handle.world, self.id, &data, loss)
    }
}
