//! [`TrainWorld`]: the steps of training on bevy's [`World`], by one-line callers of the functions in
//! [`systems::step`](crate::systems::execute::step).

use bevy_ecs::prelude::*;
use ndarray::{Array1, Array2, ArrayD, ArrayViewMut, Dimension};

use crate::components::losses::Loss;
use crate::kernels::ir::dtype::{Dtype, Element};
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::compile::array::{AnyArray, AnyInput, DataSet, Input};
use crate::systems::compile::plans::Plans;
use crate::systems::execute::hooks::Target;
use crate::systems::execute::step;
use crate::systems::execute::step::{StepError, TrainStep};
use crate::systems::structure::access::AccessError;
use crate::systems::structure::mode;

/// What populations do: run, learn, and what can be toggled about it.
///
/// Wherever arrays are taken, `&Array`, views and [`Input`] are; their first axis is that of the models,
/// in the order of [`models`](crate::NeurarchWorld::models).
///
/// # Example
///
/// ```
/// use ndarray::{Array2, Array3};
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// world.insert(brains, SGD { lr: 0.1, ..SGD::default() })?;
/// let (x, y) = (Array3::<f32>::ones((3, 8, 4)), Array2::<i64>::ones((3, 8)));
/// let loss = CrossEntropyLoss::default();
///
/// // As in torch, one by one:
/// world.forward(brains, &x)?;
/// let first = world.loss::<f32, _>(brains, &y, &loss)?; // one for each model
/// world.backward(brains)?;
/// world.step(brains)?;
/// world.zero_grad(brains)?;
/// // Or all at once, to the same bits, and faster:
/// let second = world.train_step(brains, &x, &y, &loss)?;
/// assert!(second.iter().zip(&first).all(|(second, first)| second < first));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait TrainWorld {
    /// Runs the models: [`step::forward`].
    ///
    /// # Errors
    ///
    /// If `x` does not fit the population or its modules, or the result is not of the type of `x` (f32 if `x` is of
    /// whole numbers).
    fn forward<'a, X: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError>;

    /// Calls models that take several values or keyword arguments, or give several values:
    /// [`step::forward_with`].
    ///
    /// # Errors
    ///
    /// As [`forward`](TrainWorld::forward), and if a value of the result is not of `T`.
    fn forward_with<T: Element>(
        &mut self,
        population: Entity,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<ArrayD<T>>, StepError>;

    /// Calls models whose results are of several element types: [`step::forward_any`].
    ///
    /// # Errors
    ///
    /// As [`forward`](TrainWorld::forward).
    fn forward_any(
        &mut self,
        population: Entity,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<AnyArray>, StepError>;

    /// Runs the models into an array that is there already: [`step::forward_into`].
    ///
    /// # Errors
    ///
    /// As [`forward`](TrainWorld::forward), and if `y` has another shape than the result.
    fn forward_into<'a, X: Element, D: Dimension>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        y: ArrayViewMut<'_, X::Float, D>,
    ) -> Result<(), StepError>;

    /// Computes the loss of the last forward pass: [`step::loss`].
    ///
    /// # Errors
    ///
    /// If there was no forward pass, or the targets do not fit its result.
    fn loss<'a, T: Element, Y: Element>(
        &mut self,
        population: Entity,
        targets: impl Into<Input<'a, Y>>,
        loss: &impl Loss,
    ) -> Result<ArrayD<T>, StepError>;

    /// Adds the gradients of the last loss to those of the parameters: [`step::backward`].
    ///
    /// # Errors
    ///
    /// If there was no loss of one number for each model after a forward pass, or gradients were off in it.
    fn backward(&mut self, population: Entity) -> Result<(), StepError>;

    /// Goes back from a gradient of the last forward pass's results: [`step::backward_from`].
    ///
    /// # Errors
    ///
    /// As [`backward`](TrainWorld::backward), and if `gradient` has another shape than the results.
    fn backward_from<'a, T: Element>(
        &mut self,
        population: Entity,
        gradient: impl Into<Input<'a, T>>,
    ) -> Result<(), StepError>;

    /// Adds the gradients of the last forward pass from given gradients of its floating results, `None` where
    /// there is none: [`step::backward_with`].
    ///
    /// # Errors
    ///
    /// As [`backward_from`](TrainWorld::backward_from), and if there are more or fewer than results.
    fn backward_with(
        &mut self,
        population: Entity,
        gradients: &[Option<AnyInput<'_>>],
    ) -> Result<(), StepError>;

    /// Copies the gradient of the last input, if it [`requires_grad`](Input::requires_grad), after a
    /// backward pass: [`step::input_gradient`].
    ///
    /// # Errors
    ///
    /// If there is no such population, or the input's elements are not `T`.
    fn input_gradient<T: Element>(
        &self,
        population: Entity,
    ) -> Result<Option<ArrayD<T>>, StepError>;

    /// Updates the parameters that have a gradient: [`step::step`].
    ///
    /// # Errors
    ///
    /// If a model has no optimizer.
    fn step(&mut self, population: Entity) -> Result<(), StepError>;

    /// Takes gradients away, of a population or of a module and all below it, to torch's `None`:
    /// [`step::zero_grad`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither.
    fn zero_grad(&mut self, entity: Entity) -> Result<(), StepError>;

    /// [`zero_grad`](TrainWorld::zero_grad), or zeros where there are gradients if `set_to_none` is false.
    ///
    /// # Errors
    ///
    /// As [`zero_grad`](TrainWorld::zero_grad).
    fn zero_grad_with(&mut self, entity: Entity, set_to_none: bool) -> Result<(), StepError>;

    /// Makes one training step: [`step::train_step`].
    ///
    /// # Errors
    ///
    /// If the arrays do not fit the population or the loss, or a model has no optimizer.
    fn train_step<'a, 'b, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<X::Float>, StepError>;

    /// Makes one training step, the losses into an array that is there already:
    /// [`step::train_step_into`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](TrainWorld::train_step), and if `losses` has another length.
    fn train_step_into<'a, 'b, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
        losses: &mut [X::Float],
    ) -> Result<(), StepError>;

    /// Makes one training step of models that take several values or keyword arguments, or give several
    /// values: [`step::train_step_with`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](TrainWorld::train_step).
    fn train_step_with<'a, L: Element, Y: Element>(
        &mut self,
        population: Entity,
        arguments: Arguments<AnyInput<'_>>,
        targets: impl Into<Input<'a, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<L>, StepError>;

    /// Makes a training step of several populations, whose tiles run in parallel: [`step::train_step_all`].
    ///
    /// # Errors
    ///
    /// If a population is listed twice, or as [`train_step`](TrainWorld::train_step) of one of them.
    fn train_step_all<L: Element>(
        &mut self,
        steps: &[TrainStep<'_>],
    ) -> Result<Vec<Array1<L>>, StepError>;

    /// Runs several populations, whose tiles run in parallel: [`step::forward_all`].
    ///
    /// # Errors
    ///
    /// If a population is listed twice, or as [`forward`](TrainWorld::forward) of one of them.
    fn forward_all<T: Element>(
        &mut self,
        calls: &[(Entity, AnyInput<'_>)],
    ) -> Result<Vec<ArrayD<T>>, StepError>;

    /// Makes a training step on each minibatch of a data set: [`step::train_steps`].
    ///
    /// # Errors
    ///
    /// As [`train_step`](TrainWorld::train_step), and if item numbers or sizes do not fit the data.
    fn train_steps<X: Element, Y: Element>(
        &mut self,
        population: Entity,
        data: DataSet<'_, X, Y>,
        loss: &impl Loss,
    ) -> Result<Array2<X::Float>, StepError>;

    /// Makes a training step on each minibatch of a data set, the losses of type `L`:
    /// [`step::train_steps_with`].
    ///
    /// # Errors
    ///
    /// As [`train_steps`](TrainWorld::train_steps), and if the models are not of type `L`.
    fn train_steps_with<L: Element, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        data: DataSet<'_, X, Y>,
        loss: &impl Loss,
    ) -> Result<Array2<L>, StepError>;

    /// Runs `run` with autocast to `dtype`, bf16 or f16, or without it if it is another: [`mode::autocast`].
    ///
    /// # Example
    ///
    /// ```
    /// use ndarray::{Array2, Array3};
    /// use neurarch::prelude::*;
    ///
    /// let mut world = World::new();
    /// let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
    /// world.insert(brains, Adam::default())?;
    /// let (x, y) = (Array3::<f32>::ones((3, 8, 4)), Array2::<i64>::ones((3, 8)));
    /// let losses = world.autocast(Dtype::BF16, |world| {
    ///     world.train_step(brains, &x, &y, &CrossEntropyLoss::default())
    /// })?;
    /// assert!(losses.iter().all(|loss| loss.is_finite()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn autocast<R>(&mut self, dtype: Dtype, run: impl FnOnce(&mut World) -> R) -> R;

    /// Says whether forward passes and losses run with autocast: [`mode::is_autocast_enabled`].
    fn is_autocast_enabled(&self) -> bool;

    /// Runs `run`, in which forward passes keep nothing for a backward pass: [`mode::no_grad`].
    fn no_grad<R>(&mut self, run: impl FnOnce(&mut World) -> R) -> R;

    /// Says whether forward passes keep what a backward pass will need: [`mode::set_grad_enabled`].
    fn set_grad_enabled(&mut self, is_enabled: bool);

    /// Puts a population, or a module and all below it, into training mode: [`mode::train`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither.
    fn train(&mut self, entity: Entity) -> Result<(), StepError>;

    /// Puts a population, or a module and all below it, into evaluation mode: [`mode::eval`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither.
    fn eval(&mut self, entity: Entity) -> Result<(), StepError>;

    /// Says whether the parameters of a population, or of a module and all below it, need gradients:
    /// [`mode::requires_grad_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither.
    fn requires_grad_(&mut self, entity: Entity, requires_grad: bool) -> Result<(), StepError>;

    /// Says whether a module of one model is in training mode: [`mode::is_training`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn is_training(&mut self, module: Entity) -> Result<bool, AccessError>;

    /// Puts a module alone, not those below it, into training or evaluation mode: [`mode::set_training`].
    ///
    /// # Errors
    ///
    /// If there is no such module.
    fn set_training(
        &mut self,
        target: impl Into<Target>,
        is_training: bool,
    ) -> Result<(), AccessError>;

    /// Says whether a parameter, by its dotted name below a module, needs a gradient: [`mode::requires_grad`].
    ///
    /// # Errors
    ///
    /// If there is no such module or parameter.
    fn requires_grad(&mut self, module: Entity, name: &str) -> Result<bool, AccessError>;

    /// Says whether one parameter, by its dotted name below a module, is to need a gradient:
    /// [`mode::set_requires_grad`].
    ///
    /// # Errors
    ///
    /// If there is no such module or parameter, or it is of integers.
    fn set_requires_grad(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        requires_grad: bool,
    ) -> Result<(), AccessError>;

    /// Says whether a population's models, or one of them, take part: [`mode::set_active`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither.
    fn set_active(&mut self, entity: Entity, is_active: bool) -> Result<(), StepError>;

    /// Makes tiles of that many models from the next plan on; `None` asks the caches. For tests: no bit
    /// of a result depends on it.
    fn force_tile(&mut self, models: Option<usize>);
}

impl TrainWorld for World {
    fn forward<'a, X: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError> {
        step::forward(self, population, x)
    }

    fn forward_into<'a, X: Element, D: Dimension>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        y: ArrayViewMut<'_, X::Float, D>,
    ) -> Result<(), StepError> {
        step::forward_into(self, population, x, y)
    }

    fn loss<'a, T: Element, Y: Element>(
        &mut self,
        population: Entity,
        targets: impl Into<Input<'a, Y>>,
        loss: &impl Loss,
    ) -> Result<ArrayD<T>, StepError> {
        step::loss(self, population, targets, loss)
    }

    fn backward(&mut self, population: Entity) -> Result<(), StepError> {
        step::backward(self, population)
    }

    fn backward_from<'a, T: Element>(
        &mut self,
        population: Entity,
        gradient: impl Into<Input<'a, T>>,
    ) -> Result<(), StepError> {
        step::backward_from(self, population, gradient)
    }

    fn forward_with<T: Element>(
        &mut self,
        population: Entity,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<ArrayD<T>>, StepError> {
        step::forward_with(self, population, arguments)
    }

    fn forward_any(
        &mut self,
        population: Entity,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<AnyArray>, StepError> {
        step::forward_any(self, population, arguments)
    }

    fn backward_with(
        &mut self,
        population: Entity,
        gradients: &[Option<AnyInput<'_>>],
    ) -> Result<(), StepError> {
        step::backward_with(self, population, gradients)
    }

    fn input_gradient<T: Element>(
        &self,
        population: Entity,
    ) -> Result<Option<ArrayD<T>>, StepError> {
        step::input_gradient(self, population)
    }

    fn step(&mut self, population: Entity) -> Result<(), StepError> {
        step::step(self, population)
    }

    fn zero_grad(&mut self, entity: Entity) -> Result<(), StepError> {
        step::zero_grad(self, entity, true)
    }

    fn zero_grad_with(&mut self, entity: Entity, set_to_none: bool) -> Result<(), StepError> {
        step::zero_grad(self, entity, set_to_none)
    }

    fn train_step<'a, 'b, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<X::Float>, StepError> {
        step::train_step(self, population, x, targets, loss)
    }

    fn train_step_into<'a, 'b, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        x: impl Into<Input<'a, X>>,
        targets: impl Into<Input<'b, Y>>,
        loss: &impl Loss,
        losses: &mut [X::Float],
    ) -> Result<(), StepError> {
        step::train_step_into(self, population, x, targets, loss, losses)
    }

    fn train_step_with<'a, L: Element, Y: Element>(
        &mut self,
        population: Entity,
        arguments: Arguments<AnyInput<'_>>,
        targets: impl Into<Input<'a, Y>>,
        loss: &impl Loss,
    ) -> Result<Array1<L>, StepError> {
        step::train_step_with(self, population, arguments, targets, loss)
    }

    fn train_step_all<L: Element>(
        &mut self,
        steps: &[TrainStep<'_>],
    ) -> Result<Vec<Array1<L>>, StepError> {
        step::train_step_all(self, steps)
    }

    fn forward_all<T: Element>(
        &mut self,
        calls: &[(Entity, AnyInput<'_>)],
    ) -> Result<Vec<ArrayD<T>>, StepError> {
        step::forward_all(self, calls)
    }

    fn train_steps<X: Element, Y: Element>(
        &mut self,
        population: Entity,
        data: DataSet<'_, X, Y>,
        loss: &impl Loss,
    ) -> Result<Array2<X::Float>, StepError> {
        step::train_steps(self, population, &data, loss)
    }

    fn train_steps_with<L: Element, X: Element, Y: Element>(
        &mut self,
        population: Entity,
        data: DataSet<'_, X, Y>,
        loss: &impl Loss,
    ) -> Result<Array2<L>, StepError> {
        step::train_steps_with(self, population, &data, loss)
    }

    fn autocast<R>(&mut self, dtype: Dtype, run: impl FnOnce(&mut World) -> R) -> R {
        mode::autocast(self, dtype, run)
    }

    fn is_autocast_enabled(&self) -> bool {
        mode::is_autocast_enabled(self)
    }

    fn no_grad<R>(&mut self, run: impl FnOnce(&mut World) -> R) -> R {
        mode::no_grad(self, run)
    }

    fn set_grad_enabled(&mut self, is_enabled: bool) {
        mode::set_grad_enabled(self, is_enabled);
    }

    fn train(&mut self, entity: Entity) -> Result<(), StepError> {
        Ok(mode::train(self, entity)?)
    }

    fn eval(&mut self, entity: Entity) -> Result<(), StepError> {
        Ok(mode::eval(self, entity)?)
    }

    fn requires_grad_(&mut self, entity: Entity, requires_grad: bool) -> Result<(), StepError> {
        Ok(mode::requires_grad_(self, entity, requires_grad)?)
    }

    fn is_training(&mut self, module: Entity) -> Result<bool, AccessError> {
        mode::is_training(self, module)
    }

    fn set_training(
        &mut self,
        target: impl Into<Target>,
        is_training: bool,
    ) -> Result<(), AccessError> {
        mode::set_training(self, target, is_training)
    }

    fn requires_grad(&mut self, module: Entity, name: &str) -> Result<bool, AccessError> {
        mode::requires_grad(self, module, name)
    }

    fn set_requires_grad(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        requires_grad: bool,
    ) -> Result<(), AccessError> {
        mode::set_requires_grad(self, target, name, requires_grad)
    }

    fn set_active(&mut self, entity: Entity, is_active: bool) -> Result<(), StepError> {
        Ok(mode::set_active(self, entity, is_active)?)
    }

    fn force_tile(&mut self, models: Option<usize>) {
        self.get_resource_or_init::<Plans>().options.tile = models;
    }
}
