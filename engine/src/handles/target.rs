//! [`TargetMut`]: a module of one model, or the module at a path of all models of a population.

use core::fmt;

use bevy_ecs::prelude::*;
use ndarray::ArrayD;

use crate::components::containers::Slice;
use crate::components::module::Init;
use crate::components::module::registered::Value;
use crate::handles::LiveContainer;
use crate::kernels::ir::dtype::Element;
use crate::kernels::ir::shape::Shape;
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::compile::array::{AnyInput, Input};
use crate::systems::edit::registration;
use crate::systems::edit::registration::RegistrationError;
use crate::systems::execute::hooks::Target;
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;
use crate::systems::init::{self, InitError, NoFans};
use crate::systems::structure::access::AccessError;
use crate::systems::structure::mode;
use crate::systems::structure::mode::checkpoints::{self, SpanError};

/// A module of one model, or the module at a path of all models of a population: whatever a hook can be registered
/// at, a parameter, or a parametrization.
///
/// [`ModuleMut`](crate::ModuleMut), [`PopulationMut`](crate::PopulationMut) and [`PositionMut`](crate::PositionMut)
/// lead here, so these methods are theirs.
pub struct TargetMut<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) target: Target,
}

impl fmt::Debug for TargetMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TargetMut").field(&self.target).finish()
    }
}

impl TargetMut<'_> {
    /// Returns what the handle is of.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the world.
    pub fn world(&self) -> &World {
        self.world
    }

    /// Returns the world, to be changed.
    pub fn world_mut(&mut self) -> &mut World {
        self.world
    }

    /// Returns torch's operations on containers, if the module is one.
    pub fn container(&mut self) -> LiveContainer<'_> {
        LiveContainer { world: &mut *self.world, target: self.target.clone() }
    }

    /// Calls the module, or that at a path in all models of a population: [`step::call`](step::call()).
    ///
    /// # Example
    ///
    /// ```
    /// use ndarray::{Array1, Array2};
    /// use neurarch::prelude::*;
    ///
    /// let mut world = World::new();
    /// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
    /// let mut brains = world.spawn_population(&brain, 100, Seed(1))?;
    /// let hidden = brains.at("0").forward(&Array2::<f32>::ones((100, 2)))?; // [100, 3]
    ///
    /// let mut layer = brains.model(7)?.at("0")?;
    /// let of_one = layer.forward(&Array1::<f32>::ones(2))?; // [3]: one model has no axis of models.
    /// assert_eq!(of_one, hidden.index_axis(ndarray::Axis(0), 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such module, torch's words, or it cannot take `x`.
    pub fn forward<'a, X: Element>(
        &mut self,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError> {
        step::call(self.world, self.target.clone(), x)
    }

    /// Calls a module that takes several values or keyword arguments, or gives several values: [`step::call_with`].
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward), and if a value of the result is not of `T`.
    pub fn forward_with<T: Element>(
        &mut self,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<ArrayD<T>>, StepError> {
        step::call_with(self.world, self.target.clone(), arguments)
    }

    /// Registers a parameter: [`registration::register_parameter`].
    ///
    /// # Errors
    ///
    /// If the name or the value cannot be; torch's words.
    pub fn register_parameter(
        &mut self,
        name: &str,
        value: Value,
    ) -> Result<(), RegistrationError> {
        registration::register_parameter(self.world, self.target.clone(), name, value)
    }

    /// Registers a buffer: [`registration::register_buffer`].
    ///
    /// # Errors
    ///
    /// If the name or the value cannot be; torch's words.
    pub fn register_buffer(
        &mut self,
        name: &str,
        value: Value,
        persistent: bool,
    ) -> Result<(), RegistrationError> {
        registration::register_buffer(self.world, self.target.clone(), name, value, persistent)
    }

    /// Assigns a value to a name: [`registration::setattr`].
    ///
    /// # Errors
    ///
    /// If the value cannot be assigned over what is there; torch's words.
    pub fn setattr(&mut self, name: &str, value: Value) -> Result<(), RegistrationError> {
        registration::setattr(self.world, self.target.clone(), name, value)
    }

    /// Deletes what the module has under a name: [`registration::delattr`].
    ///
    /// # Errors
    ///
    /// If there is nothing, torch's words, or something else is tied to it.
    pub fn delattr(&mut self, name: &str) -> Result<(), RegistrationError> {
        registration::delattr(self.world, self.target.clone(), name)
    }

    /// Gives a parameter new numbers, from a distribution that follows from its shape:
    /// `|shape| init::xavier_uniform(shape, 1.0)`.
    ///
    /// # Errors
    ///
    /// If there is no such parameter, or its shape has no fans.
    pub fn fill_with(
        &mut self,
        name: &str,
        init: impl Fn(&Shape) -> Result<Init, NoFans>,
    ) -> Result<(), InitError> {
        init::fill_with(self.world, self.target.clone(), name, init)
    }

    /// Gives the module and all below it the first numbers that their modules ask for, drawn anew:
    /// [`init::reset_parameters`].
    ///
    /// # Errors
    ///
    /// If there is no such module.
    pub fn reset_parameters(&mut self) -> Result<(), AccessError> {
        init::reset_parameters(self.world, self.target.clone())
    }

    /// Puts the module alone, not those below it, into training or evaluation mode: [`mode::set_training`].
    ///
    /// # Errors
    ///
    /// If there is no such module.
    pub fn set_training(&mut self, is_training: bool) -> Result<(), AccessError> {
        mode::set_training(self.world, self.target.clone(), is_training)
    }

    /// Computes what the module and all below it make again on the way back, while it is in training mode, rather than keep it
    /// until then: [`checkpoints::enable_activation_checkpointing`]. The bits are the same.
    ///
    /// # Example
    ///
    /// ```
    /// use neurarch::prelude::*;
    ///
    /// let block = || Sequential::new().push(Linear::new(8, 8)).push(Tanh).push(Linear::new(8, 8)).push(Tanh);
    /// let model = Sequential::new().push(block()).push(block()).push(Linear::new(8, 1));
    /// let mut world = World::new();
    /// let mut brains = world.spawn_population(&model, 10, Seed(0))?;
    /// for block in ["0", "1"] {
    ///     brains.at(block).enable_activation_checkpointing()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such module.
    pub fn enable_activation_checkpointing(&mut self) -> Result<(), AccessError> {
        checkpoints::enable_activation_checkpointing(self.world, self.target.clone())
    }

    /// Keeps the activations of the module and of all below it until the way back, as at first:
    /// [`checkpoints::disable_activation_checkpointing`].
    ///
    /// # Errors
    ///
    /// If there is no such module.
    pub fn disable_activation_checkpointing(&mut self) -> Result<(), AccessError> {
        checkpoints::disable_activation_checkpointing(self.world, self.target.clone())
    }

    /// Computes some modules of a `Sequential` again together on the way back: [`checkpoints::checkpoint_span`].
    ///
    /// # Errors
    ///
    /// If there is no such module, it is no `Sequential`, or the slice leaves out modules.
    pub fn checkpoint_span(&mut self, span: impl Into<Slice>) -> Result<(), SpanError> {
        checkpoints::checkpoint_span(self.world, self.target.clone(), span)
    }

    /// Cuts a `Sequential` into segments, all of which but the last are computed again on the way back:
    /// [`checkpoints::checkpoint_sequential`].
    ///
    /// # Errors
    ///
    /// As [`checkpoint_span`](Self::checkpoint_span), and if there are no segments, or more than modules.
    pub fn checkpoint_sequential(&mut self, segments: usize) -> Result<(), SpanError> {
        checkpoints::checkpoint_sequential(self.world, self.target.clone(), segments)
    }

    /// Sets whether one parameter, by its dotted name from here, needs a gradient: [`mode::set_requires_grad`].
    ///
    /// # Errors
    ///
    /// If there is no such module or parameter, or it is of integers.
    pub fn set_requires_grad(
        &mut self,
        name: &str,
        requires_grad: bool,
    ) -> Result<(), AccessError> {
        mode::set_requires_grad(self.world, self.target.clone(), name, requires_grad)
    }
}
