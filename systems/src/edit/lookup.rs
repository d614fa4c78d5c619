//! Lookups by dotted path from a module of a live model, with torch's errors.

use std::borrow::Cow;

use bevy_ecs::prelude::*;
use neurarch_components::module::NoModule;
use neurarch_components::module::attributes::{is_attribute, is_attribute_of_every_module};
use neurarch_components::module::blueprint::Parameter;
use neurarch_components::module::registered::{Attributes, Entry, Registered, Value};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::parametrizations::{RegisteredAgain, WeightNormed};
use neurarch_components::population::Population;
use neurarch_components::population::tie::SharedModule;
use neurarch_components::population::tree::{Model, ModuleName};
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;

use crate::edit::parametrize;
use crate::errors::AccessError;
pub use crate::errors::LookupError;
use crate::structure::root::root_of;
use crate::structure::spot::{Spot, locate, owner};
use crate::structure::traverse::NamedTensor;

/// What a module has under a name.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// A parameter; `None` is torch's `None`.
    Parameter(Option<NamedTensor>),
    /// A buffer; `None` is torch's `None`.
    Buffer(Option<NamedTensor>),
    /// A tensor that is computed: what the parametrizations make of its originals.
    Computed(Tensor),
    /// A child; `None` is torch's `None`.
    Module(Option<Entity>),
    /// A value that is only kept.
    Kept(Value),
    /// Something that the type has: `forward`, `in_features`.
    OfType,
}

/// What is known of a module's names.
pub(crate) struct Names {
    /// The module, the owner if a second name was given.
    pub(crate) entity: Entity,
    /// The model's population.
    pub(crate) population: Entity,
    /// The dtype of the model's floating parameters.
    pub(crate) dtype: Dtype,
    /// The name of the module's type.
    pub(crate) class: &'static str,
    /// What is registered in it.
    pub(crate) registered: Registered,
    attributes: &'static [&'static str],
}

/// A child by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) entity: Entity,
    /// Its place among all entities below its parent.
    pub(crate) place: usize,
    /// Whether it is a module, not a name without one.
    pub(crate) is_there: bool,
}

impl Names {
    /// Reads the names of a module; `None` if it has no layer component or is part of no model.
    pub(crate) fn of(world: &World, module: Entity) -> Option<Self> {
        let entity = owner(world, module);
        let (root, population) = root_of(world, entity)?;
        let dtype = world.get::<Population>(world.get::<Model>(root)?.population)?.dtype();
        let entity_ref = world.get_entity(entity).ok()?;
        let module = world.get_resource::<ModuleTypes>()?.module(entity_ref)?;
        let mut registered = Registered::of(entity_ref, module, dtype);
        entity_ref.get::<RegisteredAgain>().into_iter().for_each(|of| of.sort(&mut registered));
        let (class, attributes) = (module.type_name(), module.attributes());
        Some(Names { entity, population, dtype, class, registered, attributes })
    }

    /// Finds a child.
    pub(crate) fn child(&self, world: &World, name: &str) -> Option<Child> {
        let mut all = named_children(world, self.entity);
        all.find(|(known, _)| known == name).map(|(_, child)| child)
    }

    pub(crate) fn entry<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
        entries.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn kept<'w>(&self, world: &'w World, name: &str) -> Option<&'w Value> {
        let kept = &world.get::<Attributes>(self.entity)?.0;
        kept.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(crate) fn is_of_type(&self, name: &str) -> bool {
        is_attribute_of_every_module(name)
            || is_attribute(self.class, name)
            || self.attributes.contains(&name)
    }

    /// Returns whether the name is of a tensor that is parametrized.
    pub(crate) fn is_parametrized(&self, world: &World, name: &str) -> bool {
        parametrize::is_parametrized(world, self.entity, Some(name))
    }

    /// Returns whether the name is of a tensor that is computed: it is parametrized, or made of a length and a direction.
    pub(crate) fn is_computed(&self, world: &World, name: &str) -> bool {
        let normed = world.get::<WeightNormed>(self.entity);
        self.is_parametrized(world, name) || normed.is_some_and(|of| of.find(name).is_some())
    }

    /// Returns the type's name as it is now: torch makes a type of its own for a module with parametrizations.
    pub(crate) fn class_now(&self, world: &World) -> String {
        match parametrize::is_parametrized(world, self.entity, None) {
            true => format!("Parametrized{}", self.class),
            false => self.class.to_owned(),
        }
    }

    /// Returns whether there is anything of that name.
    ///
    /// Source: `hasattr(module, name)`.
    pub(crate) fn has(&self, world: &World, name: &str) -> bool {
        Names::entry(&self.registered.parameters, name).is_some()
            || Names::entry(&self.registered.buffers, name).is_some()
            || self.child(world, name).is_some()
            || self.is_computed(world, name)
            || self.kept(world, name).is_some()
            || self.is_of_type(name)
    }

    fn no_attribute(&self, world: &World, name: &str) -> LookupError {
        LookupError::NoAttribute { class: self.class_now(world), name: name.to_owned() }
    }
}

/// Lists the children of a module by name, those that are torch's `None` included; a module without a name is
/// named by its place.
pub(crate) fn named_children(
    world: &World,
    module: Entity,
) -> impl Iterator<Item = (Cow<'_, str>, Child)> {
    let types = world.get_resource::<ModuleTypes>();
    let all = world.get::<Children>(module).into_iter().flat_map(|children| children.iter());
    let mut modules = 0_usize;
    all.enumerate().filter_map(move |(place, entity)| {
        let entity_ref = world.get_entity(entity).ok().filter(|it| !it.contains::<Model>())?;
        let module = types.and_then(|types| types.module(entity_ref));
        let is_module = module.is_some() || entity_ref.contains::<SharedModule>();
        let is_there = is_module && !module.is_some_and(|module| module.is::<NoModule>());
        let name = match entity_ref.get::<ModuleName>() {
            Some(known) => Some(Cow::Borrowed(&*known.0)),
            None => is_module.then(|| Cow::Owned(modules.to_string())),
        };
        modules += usize::from(is_module);
        Some((name?, Child { entity, place, is_there }))
    })
}

fn names(world: &World, module: Entity) -> Result<Names, LookupError> {
    Names::of(world, module).ok_or(LookupError::Access(AccessError::NotAModule(module)))
}

/// Returns what a module has under a name; `None` if there is nothing.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `getattr(module, name)`; [`registration::getattr`](crate::edit::registration::getattr) has its error.
pub fn attribute(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<Option<Attribute>, LookupError> {
    let at = locate(world, module)?;
    let names = names(world, module)?;
    // A property of the class comes before all that is registered.
    if names.is_computed(world, name) {
        let values = parametrize::values(world, &[names.entity], name)?;
        return Ok(values.into_iter().next().map(|(_, ty, bytes)| {
            Attribute::Computed(Tensor::from_native(
                name.to_owned(),
                ty.dtype,
                ty.shape.to_vec(),
                bytes,
            ))
        }));
    }
    if Names::entry(&names.registered.parameters, name).is_some() {
        return Ok(Some(Attribute::Parameter(tensor_at(world, &at, Role::Parameter, name))));
    }
    if Names::entry(&names.registered.buffers, name).is_some() {
        return Ok(Some(Attribute::Buffer(tensor_at(world, &at, Role::Buffer, name))));
    }
    if let Some(child) = names.child(world, name) {
        let entity = owner(world, child.entity);
        return Ok(Some(Attribute::Module(child.is_there.then_some(entity))));
    }
    if let Some(value) = names.kept(world, name) {
        return Ok(Some(Attribute::Kept(value.clone())));
    }
    Ok(names.is_of_type(name).then_some(Attribute::OfType))
}

/// Finds a parameter or buffer of a module by its own name.
pub(crate) fn tensor_at(world: &World, at: &Spot, role: Role, name: &str) -> Option<NamedTensor> {
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let of = &blueprint.positions[at.position];
    let among = if role == Role::Buffer { &of.buffers } else { &of.parameters };
    let index = among.iter().position(|of| of.name == name)?;
    let (position, place) = among[index].tied.unwrap_or((at.position, index));
    let owner = &blueprint.positions[position];
    let owner = if role == Role::Buffer { &owner.buffers } else { &owner.parameters };
    let Parameter { name: own, ty, persistent, .. } = &owner[place];
    let (own_name, ty, persistent) = (own.clone(), ty.clone(), *persistent);
    let module = group.modules[position][at.member];
    Some(NamedTensor { name: name.to_owned(), module, own_name, ty, persistent })
}

/// Returns the module at a dotted path; `module` itself if it is empty.
///
/// # Errors
///
/// [`LookupError`], naming the part of the path that is not there or no module.
///
/// Source: `torch.nn.Module.get_submodule`.
pub fn get_submodule(
    world: &mut World,
    module: Entity,
    target: &str,
) -> Result<Entity, LookupError> {
    locate(world, module)?;
    let mut at = module;
    for name in target.split('.').filter(|_| !target.is_empty()) {
        let names = names(world, at)?;
        at = match names.child(world, name) {
            Some(child) if child.is_there => owner(world, child.entity),
            None if !names.has(world, name) => return Err(names.no_attribute(world, name)),
            _ => return Err(LookupError::NotAModule { name: name.to_owned() }),
        };
    }
    Ok(owner(world, at))
}

/// Finds the module of the last part of a path, and what it has there.
fn last(
    world: &mut World,
    module: Entity,
    target: &str,
) -> Result<(String, Attribute), LookupError> {
    let (path, name) = target.rsplit_once('.').unwrap_or(("", target));
    let module = get_submodule(world, module, path)?;
    match attribute(world, module, name)? {
        Some(found) => Ok((name.to_owned(), found)),
        None => Err(names(world, module)?.no_attribute(world, name)),
    }
}

/// Finds the parameter at a dotted path.
///
/// # Errors
///
/// [`LookupError`], also for a parameter that is torch's `None`.
///
/// Source: `torch.nn.Module.get_parameter`.
pub fn get_parameter(
    world: &mut World,
    module: Entity,
    target: &str,
) -> Result<NamedTensor, LookupError> {
    match last(world, module, target)? {
        (_, Attribute::Parameter(Some(found))) => {
            Ok(NamedTensor { name: target.to_owned(), ..found })
        }
        (name, _) => Err(LookupError::NotAParameter { name }),
    }
}

/// Finds the buffer at a dotted path; `None` is a buffer that is torch's `None`.
///
/// # Errors
///
/// [`LookupError`].
///
/// Source: `torch.nn.Module.get_buffer`.
pub fn get_buffer(
    world: &mut World,
    module: Entity,
    target: &str,
) -> Result<Option<NamedTensor>, LookupError> {
    match last(world, module, target)? {
        (_, Attribute::Buffer(found)) => {
            Ok(found.map(|found| NamedTensor { name: target.to_owned(), ..found }))
        }
        (name, _) => Err(LookupError::NotABuffer { name }),
    }
}
