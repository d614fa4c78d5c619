//! Attributes: assigning, reading and deleting what a module of a live model has under a name.

use bevy_ecs::prelude::*;
use neurarch_components::registered::{Attributes, Entry, Value};
use neurarch_kernels::program::Role;

use super::module::{prepare, put_module, remove_child};
use super::{
    Gone, RegistrationError, check_name, check_ties, edit, put, put_parameter, register_buffer,
    subject,
};
use crate::lookup::{self, Attribute, Names};

/// Assigns a value to a name of a module of a live model.
///
/// A [`Value::Parameter`] and a [`Value::Module`] take the place of whatever has the name; a
/// [`Value::Buffer`] is registered; a tensor replaces the numbers of a buffer; [`Value::None`] keeps the name
/// and takes the value. What is assigned to a name that nothing has, and is none of these, is only kept:
/// [`Attributes`].
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.__setattr__`. Names with dots are refused for modules, too.
pub fn setattr(
    world: &mut World,
    module: Entity,
    name: &str,
    value: Value,
) -> Result<(), RegistrationError> {
    let what = match value {
        Value::Parameter(_) => "parameters",
        Value::Buffer { .. } => "buffer",
        _ => "module",
    };
    let (at, names) = subject(world, module, what)?;
    let is_parameter = Names::entry(&names.registered.parameters, name).is_some();
    let buffer = Names::entry(&names.registered.buffers, name);
    let child = names.child(world, name);
    let wrong = |what, expected| {
        let (name, given) = (name.to_owned(), value.typename(names.dtype));
        Err(RegistrationError::AssignKind { what, name, given, expected })
    };
    match &value {
        Value::Parameter(_) => {
            check_name("parameter", name)?;
            if names.is_of_type(name) {
                return Err(RegistrationError::Exists { name: name.to_owned() });
            }
            let gone = buffer.map(|_| Gone::Buffer).into_iter().chain(child.map(Gone::Child));
            put_parameter(world, &at, &names, name, value, gone.collect())?;
            forget(world, &names, name);
        }
        Value::None if is_parameter => {
            put(world, &at, &names, Role::Parameter, name, None, true, Vec::new())?;
        }
        _ if is_parameter => return wrong("parameter", "torch.nn.Parameter or None"),
        Value::Module(_) => {
            check_name("module", name)?;
            let value = prepare(world, &names, name, value)?;
            if buffer.is_some() {
                delattr(world, module, name)?;
            }
            put_module(world, &at, &names, name, &value)?;
            forget(world, &names, name);
        }
        Value::None if child.is_some() => {
            let value = prepare(world, &names, name, value)?;
            put_module(world, &at, &names, name, &value)?;
        }
        _ if child.is_some() => {
            return wrong("child module", "torch.nn.Module or None");
        }
        Value::Other(_) if buffer.is_some() => {
            return wrong("buffer", "torch.nn.Buffer, torch.Tensor or None");
        }
        Value::Buffer { persistent, .. } => {
            let persistent = *persistent;
            register_buffer(world, module, name, value, persistent)?;
        }
        _ if buffer.is_some() => {
            let persistent = buffer.is_some_and(|buffer| buffer.persistent);
            register_buffer(world, module, name, value, persistent)?;
        }
        _ => {
            forget(world, &names, name);
            let mut entity = world.entity_mut(names.entity);
            let mut kept = entity.take::<Attributes>().unwrap_or_default();
            kept.0.push((name.to_owned(), value));
            entity.insert(kept);
        }
    }
    Ok(())
}

/// Drops a kept value.
fn forget(world: &mut World, names: &Names, name: &str) -> bool {
    let Some(mut kept) = world.get_mut::<Attributes>(names.entity) else { return false };
    let before = kept.0.len();
    kept.0.retain(|(known, _)| known != name);
    kept.0.len() < before
}

/// Deletes what a module of a live model has under a name: a parameter, a buffer, a child with all below it,
/// or a kept value.
///
/// # Errors
///
/// [`RegistrationError::NoAttribute`] if there is nothing; [`RegistrationError::InUse`] if something that
/// stays is tied to it, which torch allows. Nothing is changed then.
///
/// Source: `torch.nn.Module.__delattr__`.
pub fn delattr(world: &mut World, module: Entity, name: &str) -> Result<(), RegistrationError> {
    let (at, names) = subject(world, module, "module")?;
    let mut registered = names.registered.clone();
    let is_other = |entry: &Entry| entry.name != name;
    if Names::entry(&registered.parameters, name).is_some() {
        check_ties(world, &at, &registered, name)?;
        registered.parameters.retain(is_other);
        edit(world, &names, Some(registered), name)?;
    } else if Names::entry(&registered.buffers, name).is_some() {
        registered.buffers.retain(is_other);
        edit(world, &names, Some(registered), name)?;
    } else if let Some(child) = names.child(world, name) {
        remove_child(world, &at, child)?;
    } else if !forget(world, &names, name) {
        return Err(RegistrationError::NoAttribute { class: names.class, name: name.to_owned() });
    }
    Ok(())
}

/// Gives what a module of a live model has under a name.
///
/// # Errors
///
/// [`RegistrationError::NoAttribute`] if there is nothing.
///
/// Source: `torch.nn.Module.__getattr__`.
pub fn getattr(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<Attribute, RegistrationError> {
    let (_, names) = subject(world, module, "module")?;
    let found = lookup::attribute(world, module, name)?;
    found
        .ok_or_else(|| RegistrationError::NoAttribute { class: names.class, name: name.to_owned() })
}
