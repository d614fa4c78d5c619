//! [`Parameters`]: models read with `&World`, in a bevy system or anywhere.

use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use ndarray::ArrayViewD;
use neurarch_components::state::{StateDict, Tensor};
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::program::Role;

use crate::errors::AccessError;
use crate::optim::state_dict::optimizer_state_at;
use crate::state::dict::{StateDictError, state_dict_at};
use crate::structure::access;
use crate::structure::access::Found;
use crate::structure::traverse;
use crate::structure::traverse::{Listing, NamedTensor};
use crate::system_params::settled::settled;

/// Reads parameters, buffers, gradients and optimizer state of modules by their entities. Numbers are viewed where they
/// lie.
///
/// Its methods have the names of those of `World`, which settle what was edited first, as reading in torch would. These
/// change nothing, so they run in a system beside others that read. A module of a model that was edited and not used
/// since gives [`AccessError::Unsettled`], never what it had before: an exclusive system that uses the model, or settles
/// it, comes first. All other models can be read meanwhile.
///
/// It reads the whole world: a system that has it changes things by `Commands`, whose
/// [`set_parameter`](crate::system_params::commands::ParameterCommands::set_parameter) writes parameters. Outside of a system
/// `Parameters::from(&world)` makes one.
///
/// Each call asks every module of the model whether its children are as they were. Where much is read of a model of many
/// modules, `state_dict` asks once.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_systems::system_params::parameters::Parameters;
/// # use neurarch_systems::structure::spawn::spawn_population;
///
/// fn weigh(layers: Query<(Entity, &Linear)>, parameters: Parameters) -> Result {
///     for (entity, linear) in &layers {
///         let weight = parameters.parameter::<f32>(entity, "weight")?;
///         assert_eq!(weight.shape(), [linear.out_features, linear.in_features]);
///         assert!(parameters.gradient::<f32>(entity, "weight")?.is_none());
///     }
///     Ok(())
/// }
///
/// # let mut world = World::new();
/// spawn_population(&mut world, &Linear::new(2, 3), 10, 10, 7, Dtype::F32)?;
/// let mut schedule = Schedule::default();
/// schedule.add_systems(weigh);
/// schedule.run(&mut world);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(SystemParam, Clone, Copy, Debug)]
pub struct Parameters<'w> {
    world: &'w World,
}

impl<'w> From<&'w World> for Parameters<'w> {
    fn from(world: &'w World) -> Self {
        Parameters { world }
    }
}

impl<'w> Parameters<'w> {
    fn find(&self, module: Entity, name: &str) -> Result<Found, AccessError> {
        access::found_at(self.world, &settled(self.world, module)?, name, None)
    }

    /// Views a parameter or buffer by its dotted name from a module on: the owner's, if it is tied; the population's,
    /// if its models share it.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model, or one that is not settled, has nothing of that name and element type, or
    /// does not know its shape yet.
    ///
    /// Source: `torch.nn.Module.get_parameter`, `get_buffer`.
    pub fn parameter<T: Element>(
        &self,
        module: Entity,
        name: &str,
    ) -> Result<ArrayViewD<'w, T>, AccessError> {
        self.find(module, name)?.view(self.world)
    }

    /// Views the gradient of a parameter by its dotted name from a module on; `None` if it has none.
    ///
    /// # Errors
    ///
    /// As [`parameter`](Parameters::parameter).
    ///
    /// Source: `torch.Tensor.grad`.
    pub fn gradient<T: Element>(
        &self,
        module: Entity,
        name: &str,
    ) -> Result<Option<ArrayViewD<'w, T>>, AccessError> {
        access::gradient_of(self.world, self.find(module, name)?)
    }

    /// Copies the state that an optimizer keeps for a parameter, by its dotted name from a module on: `step`, `exp_avg`.
    /// Empty before the first step, and if no optimizer updates it.
    ///
    /// # Errors
    ///
    /// As [`parameter`](Parameters::parameter).
    ///
    /// Source: `torch.optim.Optimizer.state[parameter]`.
    pub fn optimizer_state(&self, module: Entity, name: &str) -> Result<Vec<Tensor>, AccessError> {
        optimizer_state_at(self.world, &settled(self.world, module)?, name)
    }

    /// Lists the parameters of a module and of all below it by name.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model, or one that is not settled.
    ///
    /// Source: `torch.nn.Module.named_parameters`.
    pub fn named_parameters(&self, module: Entity) -> Result<Vec<NamedTensor>, AccessError> {
        self.named(module, Role::Parameter)
    }

    /// Lists the buffers of a module and of all below it by name.
    ///
    /// # Errors
    ///
    /// As [`named_parameters`](Parameters::named_parameters).
    ///
    /// Source: `torch.nn.Module.named_buffers`.
    pub fn named_buffers(&self, module: Entity) -> Result<Vec<NamedTensor>, AccessError> {
        self.named(module, Role::Buffer)
    }

    fn named(&self, module: Entity, role: Role) -> Result<Vec<NamedTensor>, AccessError> {
        let at = settled(self.world, module)?;
        Ok(traverse::named_tensors(self.world, &at, Listing::default(), role))
    }

    /// Lists a module and all below it by name, each before its children.
    ///
    /// # Errors
    ///
    /// As [`named_parameters`](Parameters::named_parameters).
    ///
    /// Source: `torch.nn.Module.named_modules`.
    pub fn named_modules(&self, module: Entity) -> Result<Vec<(String, Entity)>, AccessError> {
        let at = settled(self.world, module)?;
        Ok(traverse::named_modules_at(self.world, &at, Listing::default()))
    }

    /// Copies the parameters and persistent buffers of a module and of all below it, as
    /// [`state_dict`](crate::state::dict::state_dict) does.
    ///
    /// # Errors
    ///
    /// As [`named_parameters`](Parameters::named_parameters), or if a hook failed.
    ///
    /// Source: `torch.nn.Module.state_dict`.
    pub fn state_dict(&self, module: Entity) -> Result<StateDict, StateDictError> {
        let at = settled(self.world, module);
        let at = at.map_err(|error| StateDictError::from_access(error, module))?;
        state_dict_at(self.world, &at, "")
    }
}
