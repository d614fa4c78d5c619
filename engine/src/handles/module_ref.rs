//! [`ModuleRef`]: a module of one model that is read.

use bevy_ecs::prelude::*;
use ndarray::ArrayViewD;

use crate::components::amp::ScalerState;
use crate::components::state::{StateDict, Tensor};
use crate::kernels::ir::dtype::Element;
use crate::systems::amp::{self, ScalerError};
use crate::systems::edit::parametrize;
use crate::systems::state::dict::StateDictError;
use crate::systems::structure::access::AccessError;
use crate::systems::structure::traverse::NamedTensor;
use crate::systems::system_params::parameters::Parameters;

/// A module of one model, its root or any below, that is read: [`NeurarchWorld::module`] makes one.
///
/// Numbers are viewed where they lie. A module of a model that was edited and not used since gives
/// [`AccessError::Unsettled`], never what it had before. In a system, [`Parameters`] reads the same.
///
/// [`NeurarchWorld::module`]: crate::NeurarchWorld::module
#[derive(Clone, Copy, Debug)]
pub struct ModuleRef<'w> {
    pub(super) world: &'w World,
    pub(super) id: Entity,
}

impl<'w> ModuleRef<'w> {
    pub(crate) fn new(world: &'w World, id: Entity) -> Result<Self, AccessError> {
        world.get_entity(id).map_err(|_| AccessError::NotAModule(id))?;
        Ok(ModuleRef { world, id })
    }

    fn parameters(&self) -> Parameters<'w> {
        Parameters::from(self.world)
    }

    /// Returns the module's entity.
    pub fn id(&self) -> Entity {
        self.id
    }

    /// Returns a component of the module: its settings, an optimizer.
    pub fn get<C: Component>(&self) -> Option<&'w C> {
        self.world.get::<C>(self.id)
    }

    /// Views a parameter or buffer by its dotted name from here: [`Parameters::parameter`].
    ///
    /// # Errors
    ///
    /// As [`Parameters::parameter`].
    pub fn parameter<T: Element>(&self, name: &str) -> Result<ArrayViewD<'w, T>, AccessError> {
        self.parameters().parameter(self.id, name)
    }

    /// Views the gradient of a parameter by its dotted name from here, if it has one: [`Parameters::gradient`].
    ///
    /// # Errors
    ///
    /// As [`Parameters::gradient`].
    pub fn gradient<T: Element>(
        &self,
        name: &str,
    ) -> Result<Option<ArrayViewD<'w, T>>, AccessError> {
        self.parameters().gradient(self.id, name)
    }

    /// Copies the state that an optimizer keeps for a parameter: [`Parameters::optimizer_state`].
    ///
    /// # Errors
    ///
    /// As [`Parameters::optimizer_state`].
    pub fn optimizer_state(&self, name: &str) -> Result<Vec<Tensor>, AccessError> {
        self.parameters().optimizer_state(self.id, name)
    }

    /// Lists the parameters of the module and of all below it by name.
    ///
    /// # Errors
    ///
    /// As [`Parameters::named_parameters`].
    pub fn named_parameters(&self) -> Result<Vec<NamedTensor>, AccessError> {
        self.parameters().named_parameters(self.id)
    }

    /// Lists the buffers of the module and of all below it by name.
    ///
    /// # Errors
    ///
    /// As [`Parameters::named_buffers`].
    pub fn named_buffers(&self) -> Result<Vec<NamedTensor>, AccessError> {
        self.parameters().named_buffers(self.id)
    }

    /// Lists the module and all below it by name, each before its children.
    ///
    /// # Errors
    ///
    /// As [`Parameters::named_modules`].
    pub fn named_modules(&self) -> Result<Vec<(String, Entity)>, AccessError> {
        self.parameters().named_modules(self.id)
    }

    /// Copies the parameters and persistent buffers of the module and of all below it.
    ///
    /// # Errors
    ///
    /// As [`Parameters::state_dict`].
    pub fn state_dict(&self) -> Result<StateDict, StateDictError> {
        self.parameters().state_dict(self.id)
    }

    /// Returns whether a tensor of the module is parametrized; any, if no name is given.
    pub fn is_parametrized(&self, name: Option<&str>) -> bool {
        parametrize::is_parametrized(self.world, self.id, name)
    }

    /// Returns the state of the model's scaler, if it has one: [`amp::state_dict`].
    ///
    /// # Errors
    ///
    /// If the module is no root of a model.
    pub fn scaler_state_dict(&self) -> Result<Option<ScalerState>, ScalerError> {
        amp::state_dict(self.world, self.id)
    }
}
