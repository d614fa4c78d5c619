//! Children: registering, replacing and removing modules of a live model.

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::module::registered::Value;

use super::attribute::setattr;
use super::children::{check_module, prepare, put_modules};
use super::error::RegistrationError;
use super::subject::{check_name, subject};
use crate::edit::lookup;
use crate::edit::lookup::Attribute;
use crate::errors::LookupError;

/// Registers a child of a module of a live model, in the place of the one of that name or as the last; gives
/// its entity.
///
/// `value` is a [`Value::Module`], or [`Value::None`] for a name without a module. The module that had the
/// name is despawned, unless it has another name: it moves there.
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::*;
/// # use neurarch_components::population::Population;
/// # use neurarch_components::module::registered::Value;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::registration::*;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3));
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// let root = world.get::<Population>(brains).unwrap().models()[1];
/// let tanh = register_module(&mut world, root, "1", Value::module(Tanh))?.unwrap();
/// assert!(world.get::<Tanh>(tanh).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.register_module`, `add_module`.
pub fn register_module(
    world: &mut World,
    module: Entity,
    name: &str,
    value: Value,
) -> Result<Option<Entity>, RegistrationError> {
    let (at, names) = subject(world, module, "module")?;
    check_module(&names, &value)?;
    if names.child(world, name).is_none() && names.has(world, name) {
        return Err(RegistrationError::Exists { name: name.to_owned() });
    }
    check_name("module", name)?;
    let value = prepare(world, &names, name, value)?;
    let mut new = put_modules(world, name, &[(at, names)], &[value])?;
    Ok(new.pop().flatten())
}

/// Puts a module at a dotted path, in the place of the one that is there; gives its entity.
///
/// With `strict` there must be one; otherwise its parent is enough.
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.set_submodule`.
pub fn set_submodule(
    world: &mut World,
    module: Entity,
    target: &str,
    new: Box<dyn DynModule>,
    strict: bool,
) -> Result<Entity, RegistrationError> {
    if target.is_empty() {
        return Err(RegistrationError::NoTarget);
    }
    let (path, name) = target.rsplit_once('.').unwrap_or(("", target));
    let parent = lookup::get_submodule(world, module, path)?;
    match lookup::attribute(world, parent, name)? {
        Some(Attribute::Module(Some(_))) => {}
        Some(_) => return Err(LookupError::NotAModule { name: name.to_owned() }.into()),
        None if strict => {
            // Says that it is not there.
            lookup::get_submodule(world, parent, name)?;
        }
        None => {}
    }
    setattr(world, parent, name, Value::Module(new))?;
    Ok(lookup::get_submodule(world, parent, name)?)
}
