//! What is done with gradients before a step, and the state of optimizers.

use crate::handles::{ModuleMut, PopulationMut};
use crate::kernels::ir::dtype::Element;
use crate::state::Tensor;
use crate::systems::compile::array::Input;
use crate::systems::execute::step;
use crate::systems::optim::lbfgs::{self, LbfgsError};
use crate::systems::optim::state_dict::{self, OptimizerStateDict, OptimizerStateError};
use crate::systems::optim::swa_utils::{self, AverageError};
use crate::systems::optim::update_bn::{self, UpdateBnError};
use crate::systems::structure::access::AccessError;
use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayView, Dimension};

/// What is done with gradients before a step, and with the state of optimizers.
///
/// # Example
///
/// ```
/// use ndarray::Array3;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(4, 2), 3, Seed(7))?;
/// brains.insert_with(|model| Adam { lr: 1e-2 * (1 + model) as f64, ..Adam::default() })?;
///
/// let (x, y) = (Array3::<f32>::ones((3, 8, 4)), Array3::<f32>::zeros((3, 8, 2)));
/// brains.forward(&x)?;
/// brains.loss::<f32, _>(&y, &MSELoss::default())?;
/// brains.backward()?;
/// let norms = brains.clip_grad_norm_(0.1)?; // one for each model
/// assert_eq!(norms.len(), 3);
/// assert!(brains.get_total_norm(2.0)?.iter().all(|norm| *norm <= 0.1001));
/// brains.step()?;
///
/// let state = brains.model(0)?.optimizer_state_dict()?;
/// assert_eq!(state.state[&0].len(), 3); // step, exp_avg and exp_avg_sq of `weight`
/// brains.model(1)?.load_optimizer_state_dict(&state)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl PopulationMut<'_> {
    /// Makes a step of every model by its [`LBFGS`](crate::components::optimizer::LBFGS); `closure` computes losses
    /// and gradients: [`lbfgs::step`].
    ///
    /// # Errors
    ///
    /// If a model has none, and what the closure fails with.
    pub fn step_with_closure(
        &mut self,
        closure: impl FnMut(&mut World) -> Result<Array1<f64>, LbfgsError>,
    ) -> Result<Array1<f64>, LbfgsError> {
        lbfgs::step(self.handle.world, self.id, closure)
    }

    /// Moves the averages in population `averaged` on to the models of `population`:
    /// [`swa_utils::update_parameters`].
    ///
    /// # Errors
    ///
    /// If `averaged` has no [`AveragedModel`](crate::components::optimizer::AveragedModel), or models differ.
    pub fn update_parameters(&mut self, population: Entity) -> Result<(), AverageError> {
        swa_utils::update_parameters(self.handle.world, self.id, population)
    }

    /// Makes running statistics the averages over some batches: [`update_bn::update_bn`].
    ///
    /// # Errors
    ///
    /// If the population was despawned, or a batch does not fit its models.
    pub fn update_bn<'a, T: Element, X: Into<Input<'a, T>>>(
        &mut self,
        loader: impl IntoIterator<Item = X>,
    ) -> Result<(), UpdateBnError> {
        update_bn::update_bn(self.handle.world, self.id, loader)
    }
}

impl ModuleMut<'_> {
    /// Overwrites the gradient of a parameter of a model, or takes it away: [`step::set_gradient`].
    ///
    /// # Errors
    ///
    /// If there is no such parameter, or the gradient has another shape or element type.
    pub fn set_gradient<T: Element, D: Dimension>(
        &mut self,
        name: &str,
        gradient: Option<ArrayView<'_, T, D>>,
    ) -> Result<(), AccessError> {
        step::set_gradient(self.handle.world, self.id, name, gradient.map(ArrayView::into_dyn))
    }

    /// Copies the state that an optimizer keeps for a parameter, by its dotted name from a module on: `step`,
    /// `exp_avg`. Empty before the first step: [`state_dict::optimizer_state`].
    ///
    /// # Errors
    ///
    /// If there is no such parameter.
    pub fn optimizer_state(&mut self, name: &str) -> Result<Vec<Tensor>, AccessError> {
        state_dict::optimizer_state(self.handle.world, self.id, name)
    }

    /// Copies the state of a model's optimizers: [`state_dict::optimizer_state_dict`].
    ///
    /// # Errors
    ///
    /// If the module is no root of a model.
    pub fn optimizer_state_dict(&mut self) -> Result<OptimizerStateDict, OptimizerStateError> {
        state_dict::optimizer_state_dict(self.handle.world, self.id)
    }

    /// Overwrites the state of a model's optimizers: [`state_dict::load_optimizer_state_dict`].
    ///
    /// # Errors
    ///
    /// If the state is not one of such optimizers on such a model.
    pub fn load_optimizer_state_dict(
        &mut self,
        dict: &OptimizerStateDict,
    ) -> Result<(), OptimizerStateError> {
        state_dict::load_optimizer_state_dict(self.handle.world, self.id, dict)
    }
}
