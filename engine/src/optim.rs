//! [`OptimWorld`]: gradients before a step, and the state of optimizers, by one-line callers of
//! [`systems::optim`](crate::systems::optim).

use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayView, Dimension};

use crate::kernels::ir::dtype::Element;
use crate::state::Tensor;
use crate::state::training::{self, TrainingStateError};
use crate::systems::compile::array::Input;
use crate::systems::execute::step;
use crate::systems::optim::clip::{self, ClipError, ClipOptions};
use crate::systems::optim::lbfgs::{self, LbfgsError};
use crate::systems::optim::state_dict::{self, OptimizerStateDict, OptimizerStateError};
use crate::systems::optim::swa_utils::{self, AverageError};
use crate::systems::optim::update_bn::{self, UpdateBnError};
use crate::systems::structure::access::AccessError;

/// What is done with gradients before a step, and with the state of optimizers.
///
/// # Example
///
/// ```
/// use ndarray::Array3;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// world.insert_with(brains, |model| Adam { lr: 1e-2 * (1 + model) as f64, ..Adam::default() })?;
///
/// let (x, y) = (Array3::<f32>::ones((3, 8, 4)), Array3::<f32>::zeros((3, 8, 2)));
/// world.forward(brains, &x)?;
/// world.loss::<f32, _>(brains, &y, &MSELoss::default())?;
/// world.backward(brains)?;
/// let norms = world.clip_grad_norm_(brains, 0.1)?; // one for each model
/// assert_eq!(norms.len(), 3);
/// assert!(world.get_total_norm(brains, 2.0)?.iter().all(|norm| *norm <= 0.1001));
/// world.step(brains)?;
///
/// let [first, second] = [world.models(brains)?[0], world.models(brains)?[1]];
/// let state = world.optimizer_state_dict(first)?;
/// assert_eq!(state.state[&0].len(), 3); // step, exp_avg and exp_avg_sq of `weight`
/// world.load_optimizer_state_dict(second, &state)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait OptimWorld {
    /// Scales the gradients of each model to a Euclidean norm of at most `max_norm`, and gives the norms before:
    /// [`clip::clip_grad_norm_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one.
    fn clip_grad_norm_(&mut self, entity: Entity, max_norm: f64) -> Result<Vec<f64>, ClipError>;

    /// [`clip_grad_norm_`](OptimWorld::clip_grad_norm_) by a norm of any order, which may have to be finite.
    ///
    /// # Errors
    ///
    /// As there, and if a norm is not finite and `options` forbid it.
    fn clip_grad_norm_with(
        &mut self,
        entity: Entity,
        max_norm: f64,
        options: ClipOptions,
    ) -> Result<Vec<f64>, ClipError>;

    /// Brings every number of the gradients into `-clip_value` to `clip_value`: [`clip::clip_grad_value_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one.
    fn clip_grad_value_(&mut self, entity: Entity, clip_value: f64) -> Result<(), ClipError>;

    /// Gives the norm of all gradients of each model: [`clip::get_total_norm`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one.
    fn get_total_norm(&mut self, entity: Entity, norm_type: f64) -> Result<Vec<f64>, ClipError>;

    /// Overwrites the gradient of a parameter of a model, or takes it away: [`step::set_gradient`].
    ///
    /// # Errors
    ///
    /// If there is no such parameter, or the gradient has another shape or element type.
    fn set_gradient<T: Element, D: Dimension>(
        &mut self,
        root: Entity,
        name: &str,
        gradient: Option<ArrayView<'_, T, D>>,
    ) -> Result<(), AccessError>;

    /// Copies the state that an optimizer keeps for a parameter, by its dotted name from a module on: `step`,
    /// `exp_avg`. Empty before the first step: [`state_dict::optimizer_state`].
    ///
    /// # Errors
    ///
    /// If there is no such parameter.
    fn optimizer_state(&mut self, module: Entity, name: &str) -> Result<Vec<Tensor>, AccessError>;

    /// Copies the state of a model's optimizers: [`state_dict::optimizer_state_dict`].
    ///
    /// # Errors
    ///
    /// If `root` is no model's root.
    fn optimizer_state_dict(
        &mut self,
        root: Entity,
    ) -> Result<OptimizerStateDict, OptimizerStateError>;

    /// Overwrites the state of a model's optimizers: [`state_dict::load_optimizer_state_dict`].
    ///
    /// # Errors
    ///
    /// If the state is not one of such optimizers on such a model.
    fn load_optimizer_state_dict(
        &mut self,
        root: Entity,
        dict: &OptimizerStateDict,
    ) -> Result<(), OptimizerStateError>;

    /// Makes a step of every model by its [`LBFGS`](crate::components::optimizer::LBFGS); `closure` computes losses
    /// and gradients: [`lbfgs::step`].
    ///
    /// # Errors
    ///
    /// If a model has none, and what the closure fails with.
    fn step_with_closure(
        &mut self,
        population: Entity,
        closure: impl FnMut(&mut World) -> Result<Array1<f64>, LbfgsError>,
    ) -> Result<Array1<f64>, LbfgsError>;

    /// Moves the averages in population `averaged` on to the models of `population`:
    /// [`swa_utils::update_parameters`].
    ///
    /// # Errors
    ///
    /// If `averaged` has no [`AveragedModel`](crate::components::optimizer::AveragedModel), or models differ.
    fn update_parameters(
        &mut self,
        averaged: Entity,
        population: Entity,
    ) -> Result<(), AverageError>;

    /// Makes running statistics the averages over some batches: [`update_bn::update_bn`].
    ///
    /// # Errors
    ///
    /// If `population` is none, or a batch does not fit its models.
    fn update_bn<'a, T: Element, X: Into<Input<'a, T>>>(
        &mut self,
        population: Entity,
        loader: impl IntoIterator<Item = X>,
    ) -> Result<(), UpdateBnError>;

    /// Scales the gradients of each model by its norm, which is given: [`clip::clip_grads_with_norm_`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither a population nor a module of one, or there is not one norm for each model.
    fn clip_grads_with_norm_(
        &mut self,
        entity: Entity,
        max_norm: f64,
        total_norms: &[f64],
    ) -> Result<(), ClipError>;

    /// Lists what optimizers and schedulers of a model or a population have come to, and how many random numbers were
    /// drawn: [`training::training_state`].
    ///
    /// # Errors
    ///
    /// If `entity` is neither the root of a model nor a population, or its models differ.
    ///
    /// # Example
    ///
    /// ```
    /// # use ndarray::Array3;
    /// # use neurarch::prelude::*;
    /// # use neurarch::state::safetensors;
    /// # let mut world = World::new();
    /// # let brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
    /// # world.insert(brains, Adam::default())?;
    /// # let folder = std::env::temp_dir().join(format!("neurarch-training-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// // What PyTorch reads, and what training goes on from, stacked over all models.
    /// safetensors::save(folder.join("model.safetensors"), &world.stacked_state_dict(brains)?)?;
    /// safetensors::save(folder.join("training.safetensors"), &world.training_state(brains)?)?;
    ///
    /// let model = safetensors::read(folder.join("model.safetensors"))?.into();
    /// world.load_stacked_state_dict(brains, &model, LoadOptions::default())?;
    /// let training = safetensors::read(folder.join("training.safetensors"))?;
    /// world.load_training_state(brains, &training)?;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn training_state(&mut self, entity: Entity) -> Result<Vec<Tensor>, TrainingStateError>;

    /// Goes on where training was: [`training::load_training_state`].
    ///
    /// # Errors
    ///
    /// If the tensors are of other optimizers or schedulers than `entity` has.
    fn load_training_state(
        &mut self,
        entity: Entity,
        tensors: &[Tensor],
    ) -> Result<(), TrainingStateError>;
}

impl OptimWorld for World {
    fn clip_grad_norm_(&mut self, entity: Entity, max_norm: f64) -> Result<Vec<f64>, ClipError> {
        clip::clip_grad_norm_(self, entity, max_norm, ClipOptions::default())
    }

    fn clip_grad_norm_with(
        &mut self,
        entity: Entity,
        max_norm: f64,
        options: ClipOptions,
    ) -> Result<Vec<f64>, ClipError> {
        clip::clip_grad_norm_(self, entity, max_norm, options)
    }

    fn clip_grad_value_(&mut self, entity: Entity, clip_value: f64) -> Result<(), ClipError> {
        clip::clip_grad_value_(self, entity, clip_value)
    }

    fn get_total_norm(&mut self, entity: Entity, norm_type: f64) -> Result<Vec<f64>, ClipError> {
        clip::get_total_norm(self, entity, norm_type)
    }

    fn set_gradient<T: Element, D: Dimension>(
        &mut self,
        root: Entity,
        name: &str,
        gradient: Option<ArrayView<'_, T, D>>,
    ) -> Result<(), AccessError> {
        step::set_gradient(self, root, name, gradient.map(ArrayView::into_dyn))
    }

    fn optimizer_state(&mut self, module: Entity, name: &str) -> Result<Vec<Tensor>, AccessError> {
        state_dict::optimizer_state(self, module, name)
    }

    fn optimizer_state_dict(
        &mut self,
        root: Entity,
    ) -> Result<OptimizerStateDict, OptimizerStateError> {
        state_dict::optimizer_state_dict(self, root)
    }

    fn load_optimizer_state_dict(
        &mut self,
        root: Entity,
        dict: &OptimizerStateDict,
    ) -> Result<(), OptimizerStateError> {
        state_dict::load_optimizer_state_dict(self, root, dict)
    }

    fn step_with_closure(
        &mut self,
        population: Entity,
        closure: impl FnMut(&mut World) -> Result<Array1<f64>, LbfgsError>,
    ) -> Result<Array1<f64>, LbfgsError> {
        lbfgs::step(self, population, closure)
    }

    fn update_parameters(
        &mut self,
        averaged: Entity,
        population: Entity,
    ) -> Result<(), AverageError> {
        swa_utils::update_parameters(self, averaged, population)
    }
    fn update_bn<'a, T: Element, X: Into<Input<'a, T>>>(
        &mut self,
        population: Entity,
        loader: impl IntoIterator<Item = X>,
    ) -> Result<(), UpdateBnError> {
        update_bn::update_bn(self, population, loader)
    }

    fn clip_grads_with_norm_(
        &mut self,
        entity: Entity,
        max_norm: f64,
        total_norms: &[f64],
    ) -> Result<(), ClipError> {
        clip::clip_grads_with_norm_(self, entity, max_norm, total_norms)
    }

    fn training_state(&mut self, entity: Entity) -> Result<Vec<Tensor>, TrainingStateError> {
        training::training_state(self, entity)
    }

    fn load_training_state(
        &mut self,
        entity: Entity,
        tensors: &[Tensor],
    ) -> Result<(), TrainingStateError> {
        training::load_training_state(self, entity, tensors)
    }
}
