//! [`ModuleWorld`]: torch's methods of a module on bevy's [`World`], by one-line callers of
//! [`systems`](crate::systems).

use std::borrow::Cow;

use bevy_ecs::prelude::*;
use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2};

use crate::components::module::Module;
use crate::components::module::registered::Value;
use crate::components::state::{IncompatibleKeys, StateDict};
use crate::kernels::ir::dtype::Element;
use crate::kernels::ir::tree::{Arguments, Tree};
use crate::systems::compile::array::{AnyInput, Input};
use crate::systems::edit::lookup::{Attribute, LookupError};
use crate::systems::edit::registration::RegistrationError;
use crate::systems::edit::{lookup, registration};
use crate::systems::execute::hooks::Target;
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;
use crate::systems::state::dict::{self, StateDictError};
use crate::systems::state::load::{self, LoadOptions, LoadStateDictError};
use crate::systems::structure::access::AccessError;
use crate::systems::structure::traverse::{Listing, NamedTensor};
use crate::systems::structure::vector::VectorError;
use crate::systems::structure::{traverse, vector};

/// What torch's `nn.Module` has as methods: each takes the entity of a module, a model's root or any other.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
/// let brains = world.spawn_population(&brain, 100, Seed(1))?;
/// let (first, other) = (world.models(brains)?[0], world.models(brains)?[1]);
///
/// // One model is edited: it moves to another blueprint, the others do not notice.
/// let head = world.get_submodule(first, "2")?;
/// world.register_parameter(head, "scale", Value::drawn_parameter([1], Init::Ones))?;
/// let names = world.named_parameters(first)?;
/// assert_eq!(names.last().unwrap().name, "2.scale");
/// assert_eq!(world.named_parameters(other)?.len(), 4);
/// let error = world.register_parameter(head, "scale.x", Value::None).unwrap_err();
/// assert_eq!(error.to_string(), "parameter name can't contain \".\"");
///
/// // The state of one goes into all others.
/// let state = world.state_dict(other)?;
/// let keys = world.load_state_dict_with(
///     brains,
///     &state,
///     LoadOptions { strict: false, ..LoadOptions::default() },
/// )?;
/// assert_eq!(keys.missing_keys, ["2.scale"]);
/// let vectors = world.parameters_to_vector::<f32>(other)?;
/// assert_eq!(vectors.len(), 13);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the methods of `torch.nn.Module`, and `torch.nn.utils.parameters_to_vector`.
pub trait ModuleWorld {
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
    /// let brains = world.spawn_population(&brain, 100, Seed(1))?;
    /// let hidden = world.call((brains, "0"), &Array2::<f32>::ones((100, 2)))?; // [100, 3]
    ///
    /// let layer = world.module(world.models(brains)?[7], "0")?;
    /// let of_one = world.call(layer, &Array1::<f32>::ones(2))?; // [3]: one model has no axis of models.
    /// assert_eq!(of_one, hidden.index_axis(ndarray::Axis(0), 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such module, torch's words, or it cannot take `x`.
    fn call<'a, X: Element>(
        &mut self,
        module: impl Into<Target>,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError>;

    /// Calls a module that takes several values or keyword arguments, or gives several values: [`step::call_with`].
    ///
    /// # Errors
    ///
    /// As [`call`](ModuleWorld::call), and if a value of the result is not of `T`.
    fn call_with<T: Element>(
        &mut self,
        module: impl Into<Target>,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<ArrayD<T>>, StepError>;

    /// Lists the children by name: [`traverse::named_children`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_children(&mut self, module: Entity) -> Result<Vec<(String, Entity)>, AccessError>;

    /// Lists the children.
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn children(&mut self, module: Entity) -> Result<Vec<Entity>, AccessError> {
        Ok(self.named_children(module)?.into_iter().map(|(_, child)| child).collect())
    }

    /// Lists the module and all below it by name, as `listing` says: [`traverse::named_modules`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_modules_with(
        &mut self,
        module: Entity,
        listing: Listing<'_>,
    ) -> Result<Vec<(String, Entity)>, AccessError>;

    /// Lists the module and all below it by name.
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_modules(&mut self, module: Entity) -> Result<Vec<(String, Entity)>, AccessError> {
        self.named_modules_with(module, Listing::default())
    }

    /// Lists the module and all below it.
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn modules(&mut self, module: Entity) -> Result<Vec<Entity>, AccessError> {
        Ok(self.named_modules(module)?.into_iter().map(|(_, module)| module).collect())
    }

    /// Lists parameters by name, as `listing` says: [`traverse::named_parameters`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_parameters_with(
        &mut self,
        module: Entity,
        listing: Listing<'_>,
    ) -> Result<Vec<NamedTensor>, AccessError>;

    /// Lists the parameters of the module and all below it by name.
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_parameters(&mut self, module: Entity) -> Result<Vec<NamedTensor>, AccessError> {
        self.named_parameters_with(module, Listing::default())
    }

    /// Lists buffers by name, as `listing` says: [`traverse::named_buffers`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_buffers_with(
        &mut self,
        module: Entity,
        listing: Listing<'_>,
    ) -> Result<Vec<NamedTensor>, AccessError>;

    /// Lists the buffers of the module and all below it by name.
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn named_buffers(&mut self, module: Entity) -> Result<Vec<NamedTensor>, AccessError> {
        self.named_buffers_with(module, Listing::default())
    }

    /// Calls `deed` with each module below, children first, then with the module itself:
    /// [`traverse::apply`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn apply(
        &mut self,
        module: Entity,
        deed: impl FnMut(&mut World, Entity),
    ) -> Result<(), AccessError>;

    /// Gives the name of the module's type: `Linear`.
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn class_name(&mut self, module: Entity) -> Result<Cow<'static, str>, AccessError>;

    /// Prints the module and all below it as torch does: [`traverse::repr`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model.
    fn repr(&mut self, module: Entity) -> Result<String, AccessError>;

    /// Registers a parameter: [`registration::register_parameter`].
    ///
    /// # Errors
    ///
    /// If the name or the value cannot be; torch's words.
    fn register_parameter(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        value: Value,
    ) -> Result<(), RegistrationError>;

    /// Registers a buffer: [`registration::register_buffer`].
    ///
    /// # Errors
    ///
    /// If the name or the value cannot be; torch's words.
    fn register_buffer(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        value: Value,
        persistent: bool,
    ) -> Result<(), RegistrationError>;

    /// Registers a child: [`registration::register_module`].
    ///
    /// # Errors
    ///
    /// If the name or the value cannot be; torch's words.
    fn register_module(
        &mut self,
        module: Entity,
        name: &str,
        value: Value,
    ) -> Result<Option<Entity>, RegistrationError>;

    /// The same as [`register_module`](ModuleWorld::register_module).
    ///
    /// # Errors
    ///
    /// As that.
    fn add_module(
        &mut self,
        module: Entity,
        name: &str,
        value: Value,
    ) -> Result<Option<Entity>, RegistrationError> {
        self.register_module(module, name, value)
    }

    /// Assigns a value to a name: [`registration::setattr`].
    ///
    /// # Errors
    ///
    /// If the value cannot be assigned over what is there; torch's words.
    fn setattr(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        value: Value,
    ) -> Result<(), RegistrationError>;

    /// Gives what the module has under a name: [`registration::getattr`].
    ///
    /// # Errors
    ///
    /// If there is nothing; torch's words.
    fn getattr(&mut self, module: Entity, name: &str) -> Result<Attribute, RegistrationError>;

    /// Deletes what the module has under a name: [`registration::delattr`].
    ///
    /// # Errors
    ///
    /// If there is nothing, torch's words, or something else is tied to it.
    fn delattr(&mut self, target: impl Into<Target>, name: &str) -> Result<(), RegistrationError>;

    /// Gives the module at a dotted path: [`lookup::get_submodule`].
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    fn get_submodule(&mut self, module: Entity, target: &str) -> Result<Entity, LookupError>;

    /// Puts a module at a dotted path: [`registration::set_submodule`].
    ///
    /// # Errors
    ///
    /// If its parent is not there, or, if `strict`, the module itself; torch's words.
    fn set_submodule(
        &mut self,
        module: Entity,
        target: &str,
        new: impl Module,
        strict: bool,
    ) -> Result<Entity, RegistrationError>;

    /// Finds the parameter at a dotted path: [`lookup::get_parameter`].
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    fn get_parameter(&mut self, module: Entity, target: &str) -> Result<NamedTensor, LookupError>;

    /// Finds the buffer at a dotted path, `None` if it is torch's `None`: [`lookup::get_buffer`].
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    fn get_buffer(
        &mut self,
        module: Entity,
        target: &str,
    ) -> Result<Option<NamedTensor>, LookupError>;

    /// Copies the parameters and persistent buffers of a module and all below it: [`dict::state_dict`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model, or a hook failed.
    fn state_dict(&mut self, module: Entity) -> Result<StateDict, StateDictError> {
        self.state_dict_with(module, "")
    }

    /// The same, `prefix` in front of all names: it ends with a dot.
    ///
    /// # Errors
    ///
    /// As [`state_dict`](ModuleWorld::state_dict).
    fn state_dict_with(
        &mut self,
        module: Entity,
        prefix: &str,
    ) -> Result<StateDict, StateDictError>;

    /// [`state_dict_with`](ModuleWorld::state_dict_with) into a state dict that is there: [`dict::state_dict_into`].
    ///
    /// # Errors
    ///
    /// As [`state_dict`](ModuleWorld::state_dict); `destination` is as it was then.
    fn state_dict_into(
        &mut self,
        module: Entity,
        destination: &mut StateDict,
        prefix: &str,
    ) -> Result<(), StateDictError>;

    /// Copies the parameters and persistent buffers of all models of a population, each `[models, ..]`:
    /// [`dict::stacked_state_dict`].
    ///
    /// # Errors
    ///
    /// If the models are not of one structure, or a hook failed.
    fn stacked_state_dict(&mut self, population: Entity) -> Result<StateDict, StateDictError>;

    /// Loads a state dict into a module, or into every model of a population: [`load::load_state_dict`].
    ///
    /// # Errors
    ///
    /// If keys or sizes do not match, in torch's words; what fits is loaded all the same.
    fn load_state_dict(
        &mut self,
        entity: Entity,
        state: &StateDict,
    ) -> Result<IncompatibleKeys, LoadStateDictError> {
        self.load_state_dict_with(entity, state, LoadOptions::default())
    }

    /// The same, as `options` say.
    ///
    /// # Errors
    ///
    /// As [`load_state_dict`](ModuleWorld::load_state_dict).
    fn load_state_dict_with(
        &mut self,
        entity: Entity,
        state: &StateDict,
        options: LoadOptions,
    ) -> Result<IncompatibleKeys, LoadStateDictError>;

    /// Loads a slice of each tensor, `[models, ..]`, into each model of a population:
    /// [`load::load_stacked_state_dict`].
    ///
    /// # Errors
    ///
    /// As [`load_state_dict`](ModuleWorld::load_state_dict), and if the models are not of one structure.
    fn load_stacked_state_dict(
        &mut self,
        population: Entity,
        state: &StateDict,
        options: LoadOptions,
    ) -> Result<IncompatibleKeys, LoadStateDictError>;

    /// Copies all parameters into one vector: [`vector::parameters_to_vector`].
    ///
    /// # Errors
    ///
    /// If `module` is no module of a model, or a parameter has elements of another type.
    fn parameters_to_vector<T: Element>(
        &mut self,
        module: Entity,
    ) -> Result<Array1<T>, VectorError>;

    /// Overwrites all parameters with the numbers of a vector: [`vector::vector_to_parameters`].
    ///
    /// # Errors
    ///
    /// As [`parameters_to_vector`](ModuleWorld::parameters_to_vector), and if the length is another.
    fn vector_to_parameters<T: Element>(
        &mut self,
        module: Entity,
        vector: ArrayView1<'_, T>,
    ) -> Result<(), VectorError>;

    /// Copies all parameters of each model into a row of a matrix, `[models, numel]`:
    /// [`vector::parameters_to_vectors`].
    ///
    /// # Errors
    ///
    /// As [`parameters_to_vector`](ModuleWorld::parameters_to_vector), and if models have unequally many.
    fn parameters_to_vectors<T: Element>(
        &mut self,
        population: Entity,
    ) -> Result<Array2<T>, VectorError>;

    /// Overwrites all parameters of each model with a row of a matrix: [`vector::vectors_to_parameters`].
    ///
    /// # Errors
    ///
    /// As [`parameters_to_vectors`](ModuleWorld::parameters_to_vectors), and if the shape is another.
    fn vectors_to_parameters<T: Element>(
        &mut self,
        population: Entity,
        vectors: ArrayView2<'_, T>,
    ) -> Result<(), VectorError>;
}

impl ModuleWorld for World {
    fn call<'a, X: Element>(
        &mut self,
        module: impl Into<Target>,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError> {
        step::call(self, module, x)
    }

    fn call_with<T: Element>(
        &mut self,
        module: impl Into<Target>,
        arguments: Arguments<AnyInput<'_>>,
    ) -> Result<Tree<ArrayD<T>>, StepError> {
        step::call_with(self, module, arguments)
    }

    fn named_children(&mut self, module: Entity) -> Result<Vec<(String, Entity)>, AccessError> {
        traverse::named_children(self, module)
    }

    fn named_modules_with(
        &mut self,
        module: Entity,
        listing: Listing<'_>,
    ) -> Result<Vec<(String, Entity)>, AccessError> {
        traverse::named_modules(self, module, listing)
    }

    fn named_parameters_with(
        &mut self,
        module: Entity,
        listing: Listing<'_>,
    ) -> Result<Vec<NamedTensor>, AccessError> {
        traverse::named_parameters(self, module, listing)
    }

    fn named_buffers_with(
        &mut self,
        module: Entity,
        listing: Listing<'_>,
    ) -> Result<Vec<NamedTensor>, AccessError> {
        traverse::named_buffers(self, module, listing)
    }

    fn apply(
        &mut self,
        module: Entity,
        deed: impl FnMut(&mut World, Entity),
    ) -> Result<(), AccessError> {
        traverse::apply(self, module, deed)
    }

    fn class_name(&mut self, module: Entity) -> Result<Cow<'static, str>, AccessError> {
        traverse::class_name(self, module)
    }

    fn repr(&mut self, module: Entity) -> Result<String, AccessError> {
        traverse::repr(self, module)
    }

    fn register_parameter(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        value: Value,
    ) -> Result<(), RegistrationError> {
        registration::register_parameter(self, target, name, value)
    }

    fn register_buffer(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        value: Value,
        persistent: bool,
    ) -> Result<(), RegistrationError> {
        registration::register_buffer(self, target, name, value, persistent)
    }

    fn register_module(
        &mut self,
        module: Entity,
        name: &str,
        value: Value,
    ) -> Result<Option<Entity>, RegistrationError> {
        registration::register_module(self, module, name, value)
    }

    fn setattr(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        value: Value,
    ) -> Result<(), RegistrationError> {
        registration::setattr(self, target, name, value)
    }

    fn getattr(&mut self, module: Entity, name: &str) -> Result<Attribute, RegistrationError> {
        registration::getattr(self, module, name)
    }

    fn delattr(&mut self, target: impl Into<Target>, name: &str) -> Result<(), RegistrationError> {
        registration::delattr(self, target, name)
    }

    fn get_submodule(&mut self, module: Entity, target: &str) -> Result<Entity, LookupError> {
        lookup::get_submodule(self, module, target)
    }

    fn set_submodule(
        &mut self,
        module: Entity,
        target: &str,
        new: impl Module,
        strict: bool,
    ) -> Result<Entity, RegistrationError> {
        registration::set_submodule(self, module, target, Box::new(new), strict)
    }

    fn get_parameter(&mut self, module: Entity, target: &str) -> Result<NamedTensor, LookupError> {
        lookup::get_parameter(self, module, target)
    }

    fn get_buffer(
        &mut self,
        module: Entity,
        target: &str,
    ) -> Result<Option<NamedTensor>, LookupError> {
        lookup::get_buffer(self, module, target)
    }

    fn state_dict_with(
        &mut self,
        module: Entity,
        prefix: &str,
    ) -> Result<StateDict, StateDictError> {
        dict::state_dict(self, module, prefix)
    }

    fn state_dict_into(
        &mut self,
        module: Entity,
        destination: &mut StateDict,
        prefix: &str,
    ) -> Result<(), StateDictError> {
        dict::state_dict_into(self, module, destination, prefix)
    }

    fn stacked_state_dict(&mut self, population: Entity) -> Result<StateDict, StateDictError> {
        dict::stacked_state_dict(self, population)
    }

    fn load_state_dict_with(
        &mut self,
        entity: Entity,
        state: &StateDict,
        options: LoadOptions,
    ) -> Result<IncompatibleKeys, LoadStateDictError> {
        load::load_state_dict(self, entity, state, options)
    }

    fn load_stacked_state_dict(
        &mut self,
        population: Entity,
        state: &StateDict,
        options: LoadOptions,
    ) -> Result<IncompatibleKeys, LoadStateDictError> {
        load::load_stacked_state_dict(self, population, state, options)
    }

    fn parameters_to_vector<T: Element>(
        &mut self,
        module: Entity,
    ) -> Result<Array1<T>, VectorError> {
        vector::parameters_to_vector(self, module)
    }

    fn vector_to_parameters<T: Element>(
        &mut self,
        module: Entity,
        vector: ArrayView1<'_, T>,
    ) -> Result<(), VectorError> {
        vector::vector_to_parameters(self, module, vector)
    }

    fn parameters_to_vectors<T: Element>(
        &mut self,
        population: Entity,
    ) -> Result<Array2<T>, VectorError> {
        vector::parameters_to_vectors(self, population)
    }

    fn vectors_to_parameters<T: Element>(
        &mut self,
        population: Entity,
        vectors: ArrayView2<'_, T>,
    ) -> Result<(), VectorError> {
        vector::vectors_to_parameters(self, population, vectors)
    }
}
