//! The modules that are to be edited, and what their names may be.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use neurarch_components::hook::{Callback, GlobalHooks, HookKind, RegisterAt};
use neurarch_components::module::registered::{Registered, Value};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_kernels::ir::trace::panic_message;

use super::error::RegistrationError;
use crate::edit::lookup::Names;
use crate::errors::AccessError;
use crate::execute::hooks::Target;
use crate::structure::spot::{Spot, locate, owner};
use crate::structure::traverse::spots;

/// Finds the module that is to be edited; `what` is what an entity without layer component is told.
pub(super) fn subject(
    world: &mut World,
    module: Entity,
    what: &'static str,
) -> Result<(Spot, Names), RegistrationError> {
    let entity = owner(world, module);
    let found = world.get_entity(entity).map_err(|_| AccessError::NotAModule(module))?;
    let types = world.get_resource::<ModuleTypes>();
    if types.and_then(|types| types.module(found)).is_none() {
        return Err(RegistrationError::NotInitialized { what });
    }
    let at = locate(world, entity)?;
    let names = Names::of(world, entity).ok_or(AccessError::NotAModule(module))?;
    Ok((at, names))
}

/// Finds the modules that are to be edited: one, or that of every model of a population.
pub(super) fn subjects(
    world: &mut World,
    target: Target,
    what: &'static str,
) -> Result<Vec<(Spot, Names)>, RegistrationError> {
    let (population, path) = match target {
        Target::Module(module) => return Ok(vec![subject(world, module, what)?]),
        Target::Population(population, path) => (population, path),
        Target::All => return Err(RegistrationError::AllModules),
    };
    let mut subjects = Vec::new();
    for (spot, members) in spots(world, population, &path)? {
        for (member, &module) in spot.group(world).modules[spot.position].iter().enumerate() {
            debug_assert!(member < members);
            let names = Names::of(world, module).ok_or(AccessError::NotAModule(module))?;
            subjects.push((Spot { member, ..spot }, names));
        }
    }
    Ok(subjects)
}

/// Returns, for each subject, what `of` gives for the first one of its structure.
pub(super) fn for_each_structure<T: Clone>(
    subjects: &[(Spot, Names)],
    mut of: impl FnMut(&Names) -> Result<T, RegistrationError>,
) -> Result<Vec<T>, RegistrationError> {
    let mut last: Option<(usize, T)> = None;
    let mut all = Vec::with_capacity(subjects.len());
    for (at, names) in subjects {
        let made = match last.take() {
            Some((group, made)) if group == at.group => made,
            _ => of(names)?,
        };
        all.push(made.clone());
        last = Some((at.group, made));
    }
    Ok(all)
}

/// Refuses names that nothing can have. torch asks for the dot before it asks whether it is empty.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), RegistrationError> {
    if name.contains('.') {
        return Err(RegistrationError::Dot { what, name: name.to_owned() });
    }
    if name.is_empty() { Err(RegistrationError::EmptyName { what }) } else { Ok(()) }
}

/// Calls the registration hooks; gives what is to be registered.
pub(crate) fn ask(
    world: &World,
    kind: HookKind,
    names: &Names,
    name: &str,
    mut value: Value,
) -> Result<Value, RegistrationError> {
    let hooks = world.get_resource::<GlobalHooks>().map(|hooks| hooks.0.list(kind));
    let at = RegisterAt { module: names.entity, class: names.class, name };
    for (number, hook) in hooks.into_iter().flatten().enumerate() {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut callback = hook.callback.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *callback {
                Callback::ParameterRegistration(hook)
                | Callback::BufferRegistration(hook)
                | Callback::ModuleRegistration(hook) => hook(&at, &value),
                _ => Ok(None),
            }
        }));
        let result = result.unwrap_or_else(|panic| Err(panic_message(&*panic).into()));
        let message = |error: Box<dyn std::error::Error + Send + Sync>| error.to_string();
        let new = result.map_err(|error| RegistrationError::Hook {
            kind,
            number,
            message: message(error),
        })?;
        value = new.unwrap_or(value);
    }
    Ok(value)
}

/// Refuses to take a parameter away that others are tied to.
pub(crate) fn check_ties(
    world: &World,
    at: &Spot,
    registered: &Registered,
    name: &str,
) -> Result<(), RegistrationError> {
    let there = registered.parameters.iter().filter(|entry| entry.ty.is_some());
    let index = there.into_iter().position(|entry| entry.name == name);
    let owner = index.map(|index| (at.position, index));
    let blueprint = at.blueprint(world);
    for (position, of) in blueprint.positions.iter().enumerate() {
        for parameter in &of.parameters {
            if parameter.tied.is_some() && parameter.tied == owner {
                let (name, by) = (name.to_owned(), blueprint.path_below(position, &parameter.name));
                return Err(RegistrationError::InUse { name, by });
            }
        }
    }
    Ok(())
}
