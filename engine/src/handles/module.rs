//! [`ModuleMut`]: a module of one model that can be changed.

use core::ops::{Deref, DerefMut};
use std::borrow::Cow;

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayView, Dimension};

use crate::components::module::Module;
use crate::components::module::registered::Value;
use crate::handles::{ModuleRef, TargetMut};
use crate::kernels::ir::dtype::Element;
use crate::systems::edit::lookup::{self, Attribute, LookupError};
use crate::systems::edit::registration::{self, RegistrationError};
use crate::systems::execute::hooks::Target;
use crate::systems::structure::access::AccessError;
use crate::systems::structure::mode::checkpoints;
use crate::systems::structure::sign::SignError;
use crate::systems::structure::traverse::{Listing, NamedTensor};
use crate::systems::structure::{access, mode, tie, traverse};

/// A module of one model, its root or any below: what torch's `nn.Module` has as methods. [`NeurarchWorld::module_mut`] makes
/// one, as bevy's `entity_mut` makes an `EntityWorldMut`.
///
/// After a despawn its methods give an error.
///
/// [`NeurarchWorld::module_mut`]: crate::NeurarchWorld::module_mut
///
/// # Example
///
/// ```
/// use neurarch::nn::Value;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
/// let mut brains = world.spawn_population(&brain, 100, Seed(1))?;
///
/// // One model is edited: it moves to another blueprint, the others do not notice.
/// let mut head = brains.model(0)?.at("2")?;
/// head.register_parameter("scale", Value::drawn_parameter([1], Init::Ones))?;
/// let error = head.register_parameter("scale.x", Value::None).unwrap_err();
/// assert_eq!(error.to_string(), "parameter name can't contain \".\"");
/// assert_eq!(brains.model(0)?.named_parameters()?.last().unwrap().name, "2.scale");
/// assert_eq!(brains.model(1)?.named_parameters()?.len(), 4);
///
/// // The state of one goes into all others.
/// let state = brains.model(1)?.state_dict()?;
/// let options = LoadOptions { strict: false, ..LoadOptions::default() };
/// let keys = brains.load_state_dict_with(&state, options)?;
/// assert_eq!(keys.missing_keys, ["2.scale"]);
/// let vectors = brains.model(1)?.parameters_to_vector::<f32>()?;
/// assert_eq!(vectors.len(), 13);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the methods of `torch.nn.Module`, and `torch.nn.utils.parameters_to_vector`.
#[derive(Debug)]
pub struct ModuleMut<'w> {
    pub(super) handle: TargetMut<'w>,
    pub(super) id: Entity,
}

impl<'w> Deref for ModuleMut<'w> {
    type Target = TargetMut<'w>;

    fn deref(&self) -> &TargetMut<'w> {
        &self.handle
    }
}

impl DerefMut for ModuleMut<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.handle
    }
}

impl<'w> ModuleMut<'w> {
    pub(crate) fn new(world: &'w mut World, id: Entity) -> Result<Self, AccessError> {
        ModuleRef::new(world, id)?;
        Ok(Self::of(world, id))
    }

    fn of(world: &'w mut World, id: Entity) -> Self {
        ModuleMut { handle: TargetMut { world, target: Target::Module(id) }, id }
    }

    /// Returns the module's entity, to keep.
    pub fn id(&self) -> Entity {
        self.id
    }

    /// Returns what can be read of it.
    ///
    /// # Errors
    ///
    /// If the module was despawned.
    pub fn as_ref(&self) -> Result<ModuleRef<'_>, AccessError> {
        ModuleRef::new(self.handle.world, self.id)
    }

    /// Returns the module at a dotted path from here; this one if the path is empty.
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    pub fn at(self, path: &str) -> Result<ModuleMut<'w>, LookupError> {
        let id = lookup::get_submodule(self.handle.world, self.id, path)?;
        Ok(Self::of(self.handle.world, id))
    }
}

/// Parameters and buffers.
impl ModuleMut<'_> {
    /// Makes a parameter of a model the same as another, both by dotted names: [`tie::tie`].
    ///
    /// # Errors
    ///
    /// If there are no such parameters, or their types differ.
    pub fn tie(&mut self, tied: &str, owner: &str) -> Result<(), AccessError> {
        tie::tie(self.handle.world, self.id, tied, owner)
    }

    /// Gives a module of a model a second name in another of its modules: [`tie::share`].
    ///
    /// # Errors
    ///
    /// If they are not of one model, or the name cannot be.
    pub fn share(&mut self, name: &str, owner: Entity) -> Result<Entity, SignError> {
        tie::share(self.handle.world, self.id, name, owner)
    }

    /// Lists the dotted names of a model's parameters.
    ///
    /// # Errors
    ///
    /// If the module is no root of a model.
    pub fn parameter_names(&mut self) -> Result<Vec<String>, AccessError> {
        access::parameter_names(self.handle.world, self.id)
    }

    /// Copies a parameter or buffer by its dotted name from a module on, such as a model's root: [`access::read`].
    ///
    /// It settles what was edited first, and so takes `&mut World`. A system, or whoever has `&World`, reads with
    /// [`Parameters`](crate::systems::system_params::parameters::Parameters), whose methods have the same names.
    ///
    /// # Errors
    ///
    /// If there is none of that name and element type.
    pub fn parameter<T: Element>(&mut self, name: &str) -> Result<ArrayD<T>, AccessError> {
        access::read(self.handle.world, self.id, name, None)
    }

    /// Overwrites a parameter or buffer by its dotted name from a module on, such as a model's root:
    /// [`access::write`]. A system writes with
    /// [`ParameterCommands`](crate::systems::system_params::commands::ParameterCommands).
    ///
    /// # Errors
    ///
    /// If there is none of that name, element type and shape.
    pub fn set_parameter<T: Element, D: Dimension>(
        &mut self,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), AccessError> {
        access::write(self.handle.world, self.id, name, numbers.into_dyn())
    }

    /// Copies the gradient of a parameter by its dotted name from a module on; `None` if it has none:
    /// [`access::gradient`].
    ///
    /// # Errors
    ///
    /// If there is no parameter of that name and element type.
    pub fn gradient<T: Element>(&mut self, name: &str) -> Result<Option<ArrayD<T>>, AccessError> {
        access::gradient(self.handle.world, self.id, name)
    }
    /// Returns whether a parameter, by its dotted name from here, needs a gradient: [`mode::requires_grad`].
    ///
    /// # Errors
    ///
    /// If there is no such parameter.
    pub fn requires_grad(&mut self, name: &str) -> Result<bool, AccessError> {
        mode::requires_grad(self.handle.world, self.id, name)
    }

    /// Returns whether the module is in training mode: [`mode::is_training`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn is_training(&mut self) -> Result<bool, AccessError> {
        mode::is_training(self.handle.world, self.id)
    }

    /// Returns whether what the module makes is computed again on the way back: [`checkpoints::is_activation_checkpointing`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn is_activation_checkpointing(&mut self) -> Result<bool, AccessError> {
        checkpoints::is_activation_checkpointing(self.handle.world, self.id)
    }
}

/// The tree of modules.
impl ModuleMut<'_> {
    /// Lists the children by name: [`traverse::named_children`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_children(&mut self) -> Result<Vec<(String, Entity)>, AccessError> {
        traverse::named_children(self.handle.world, self.id)
    }

    /// Lists the children.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn children(&mut self) -> Result<Vec<Entity>, AccessError> {
        Ok(self.named_children()?.into_iter().map(|(_, child)| child).collect())
    }

    /// Lists the module and all below it by name, as `listing` says: [`traverse::named_modules`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_modules_with(
        &mut self,
        listing: Listing<'_>,
    ) -> Result<Vec<(String, Entity)>, AccessError> {
        traverse::named_modules(self.handle.world, self.id, listing)
    }

    /// Lists the module and all below it by name.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_modules(&mut self) -> Result<Vec<(String, Entity)>, AccessError> {
        self.named_modules_with(Listing::default())
    }

    /// Lists the module and all below it.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn modules(&mut self) -> Result<Vec<Entity>, AccessError> {
        Ok(self.named_modules()?.into_iter().map(|(_, module)| module).collect())
    }

    /// Lists parameters by name, as `listing` says: [`traverse::named_parameters`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_parameters_with(
        &mut self,
        listing: Listing<'_>,
    ) -> Result<Vec<NamedTensor>, AccessError> {
        traverse::named_parameters(self.handle.world, self.id, listing)
    }

    /// Lists the parameters of the module and all below it by name.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_parameters(&mut self) -> Result<Vec<NamedTensor>, AccessError> {
        self.named_parameters_with(Listing::default())
    }

    /// Lists buffers by name, as `listing` says: [`traverse::named_buffers`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_buffers_with(
        &mut self,
        listing: Listing<'_>,
    ) -> Result<Vec<NamedTensor>, AccessError> {
        traverse::named_buffers(self.handle.world, self.id, listing)
    }

    /// Lists the buffers of the module and all below it by name.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn named_buffers(&mut self) -> Result<Vec<NamedTensor>, AccessError> {
        self.named_buffers_with(Listing::default())
    }

    /// Calls `deed` with each module below, children first, then with the module itself:
    /// [`traverse::apply`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn apply(&mut self, deed: impl FnMut(&mut World, Entity)) -> Result<(), AccessError> {
        traverse::apply(self.handle.world, self.id, deed)
    }

    /// Returns the name of the module's type: `Linear`.
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn class_name(&mut self) -> Result<Cow<'static, str>, AccessError> {
        traverse::class_name(self.handle.world, self.id)
    }

    /// Prints the module and all below it as torch does: [`traverse::repr`].
    ///
    /// # Errors
    ///
    /// If the entity is no module of a model.
    pub fn repr(&mut self) -> Result<String, AccessError> {
        traverse::repr(self.handle.world, self.id)
    }
}

/// What a module has under a name.
impl ModuleMut<'_> {
    /// Registers a child: [`registration::register_module`].
    ///
    /// # Errors
    ///
    /// If the name or the value cannot be; torch's words.
    pub fn register_module(
        &mut self,
        name: &str,
        value: Value,
    ) -> Result<Option<Entity>, RegistrationError> {
        registration::register_module(self.handle.world, self.id, name, value)
    }

    /// The same as [`register_module`](Self::register_module).
    ///
    /// # Errors
    ///
    /// As that.
    pub fn add_module(
        &mut self,
        name: &str,
        value: Value,
    ) -> Result<Option<Entity>, RegistrationError> {
        self.register_module(name, value)
    }

    /// Returns what the module has under a name: [`registration::getattr`].
    ///
    /// # Errors
    ///
    /// If there is nothing; torch's words.
    pub fn getattr(&mut self, name: &str) -> Result<Attribute, RegistrationError> {
        registration::getattr(self.handle.world, self.id, name)
    }

    /// Returns the module at a dotted path: [`lookup::get_submodule`].
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    pub fn get_submodule(&mut self, target: &str) -> Result<Entity, LookupError> {
        lookup::get_submodule(self.handle.world, self.id, target)
    }

    /// Puts a module at a dotted path: [`registration::set_submodule`].
    ///
    /// # Errors
    ///
    /// If its parent is not there, or, if `strict`, the module itself; torch's words.
    pub fn set_submodule(
        &mut self,
        target: &str,
        new: impl Module,
        strict: bool,
    ) -> Result<Entity, RegistrationError> {
        registration::set_submodule(self.handle.world, self.id, target, Box::new(new), strict)
    }

    /// Finds the parameter at a dotted path: [`lookup::get_parameter`].
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    pub fn get_parameter(&mut self, target: &str) -> Result<NamedTensor, LookupError> {
        lookup::get_parameter(self.handle.world, self.id, target)
    }

    /// Finds the buffer at a dotted path, `None` if it is torch's `None`: [`lookup::get_buffer`].
    ///
    /// # Errors
    ///
    /// If there is none; torch's words.
    pub fn get_buffer(&mut self, target: &str) -> Result<Option<NamedTensor>, LookupError> {
        lookup::get_buffer(self.handle.world, self.id, target)
    }
}
