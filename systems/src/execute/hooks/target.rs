//! Whose calls a hook is told of: checks that somebody will call it.

use bevy_ecs::prelude::*;
use neurarch_components::hook::{Callback, GlobalHooks, HookKind, Hooks, PopulationHooks};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;

use crate::errors::AccessError;
use crate::errors::SignError;
use crate::structure::sign;
use crate::structure::spot::find;
use crate::structure::spot::locate;
use crate::structure::spot::owner;
use crate::structure::target::Target;

/// Why a hook cannot be registered: it would never be called. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterHookError {
    /// There is no such module or population.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No model of the population has a module at the path; torch's words.
    #[error("'{path}': {class} has no attribute `{name}`")]
    Path {
        /// The dotted path that was asked for.
        path: String,
        /// The type of the module that the path leads to.
        class: String,
        /// What that module does not have.
        name: String,
    },
    /// The module has no such parameter; torch's words.
    #[error("{path}: '{class}' object has no attribute '{name}'")]
    NoAttribute {
        /// Dotted path of the module; the type's name for a root.
        path: String,
        /// The module's type.
        class: String,
        /// The name that was asked for.
        name: String,
    },
    /// The parameter is torch's `None`; torch's words.
    #[error("{path}.{name}: 'NoneType' object has no attribute 'register_hook'")]
    None {
        /// Dotted path of the module; the type's name for a root.
        path: String,
        /// The parameter's name.
        name: String,
    },
    /// The name is of no parameter, but of a tensor that is computed; torch's words.
    #[error("{path}: `{name}` is not an nn.Parameter")]
    NotAParameter {
        /// Dotted path of the module; the type's name for a root.
        path: String,
        /// The tensor's name.
        name: String,
    },
    /// The name is of a buffer; torch's words.
    #[error("{path}.{name}: cannot register a hook on a tensor that doesn't require gradient")]
    NoGradient {
        /// Dotted path of the module; the type's name for a root.
        path: String,
        /// The tensor's name.
        name: String,
    },
    /// A module has backward hooks of the other kind; torch's words.
    #[error(
        "Cannot use both regular backward hooks and full backward hooks {}. Please use only one of them.",
        if *.is_global { "as a global Module hook" } else { "on a single Module" }
    )]
    Mixed {
        /// Whether they are of all modules.
        is_global: bool,
    },
    /// Such hooks are called for all modules, or not at all.
    #[error("a {0} is called for all modules: expected Target::All")]
    OfAllModules(HookKind),
}

/// Finds who will call a hook: the owner, where the target or the parameter is a second name.
pub(super) fn resolve(
    world: &mut World,
    target: Target,
    callback: Callback,
) -> Result<(Target, Callback), RegisterHookError> {
    let kind = callback.kind();
    let is_registration = matches!(
        kind,
        HookKind::ParameterRegistration
            | HookKind::BufferRegistration
            | HookKind::ModuleRegistration
    );
    match target {
        Target::All => Ok((Target::All, callback)),
        _ if is_registration => Err(RegisterHookError::OfAllModules(kind)),
        Target::Module(module) => {
            let at = locate(world, owner(world, module))?;
            let (blueprint, group) = (at.blueprint(world), at.group(world));
            let (mut callback, mut position) = (callback, at.position);
            if let Some((owner, own)) = parameter(&blueprint, at.position, &callback)? {
                callback.rename_parameter(own);
                position = owner;
            }
            Ok((Target::Module(group.modules[position][at.member]), callback))
        }
        Target::Population(population, path) => {
            let (path, callback) = resolve_path(world, population, path, callback)?;
            Ok((Target::Population(population, path), callback))
        }
    }
}

/// Refuses a backward hook where there was one of the other kind: full, or not.
///
/// Source: `_is_full_backward_hook` of `torch.nn.Module`.
pub(super) fn check_mixed(
    world: &World,
    target: &Target,
    kind: HookKind,
) -> Result<(), RegisterHookError> {
    let Some(is_full) = kind.is_full() else { return Ok(()) };
    let is_other = |hooks: &Hooks| hooks.is_full_backward() == Some(!is_full);
    let of_population = |population: Entity, path: &str| {
        let hooks = world.get::<PopulationHooks>(population);
        hooks.and_then(|hooks| hooks.at(path)).is_some_and(is_other)
    };
    let of_module = |module: Entity| world.get::<Hooks>(module).is_some_and(is_other);
    let is_mixed = match target {
        Target::All => world.get_resource::<GlobalHooks>().is_some_and(|hooks| is_other(&hooks.0)),
        Target::Population(population, path) => {
            let found = world.get::<Population>(*population).into_iter();
            let mut modules = found.flat_map(Population::groups).flat_map(|group| {
                let blueprint = world.resource::<Blueprints>().get(group.blueprint);
                let position = blueprint.and_then(|blueprint| blueprint.below(0, path).ok());
                position.into_iter().flat_map(|position| &group.modules[position])
            });
            of_population(*population, path) || modules.any(|&module| of_module(module))
        }
        Target::Module(module) => {
            let at = find(world, *module)?;
            let path = &at.blueprint(world).positions[at.position].path;
            of_module(*module) || of_population(at.population, path)
        }
    };
    match is_mixed {
        true => Err(RegisterHookError::Mixed { is_global: *target == Target::All }),
        false => Ok(()),
    }
}

/// Finds the module at a path in a structure of the population that has it.
fn resolve_path(
    world: &mut World,
    population: Entity,
    path: String,
    callback: Callback,
) -> Result<(String, Callback), RegisterHookError> {
    sign::refresh(world, population).map_err(AccessError::from)?;
    let found = world.get::<Population>(population);
    let found = found.ok_or(AccessError::Sign(SignError::NotAPopulation(population)))?;
    let mut failure = None;
    let mut callback = callback;
    for group in found.groups() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let Some(blueprint) = blueprint else { continue };
        let position = match blueprint.below(0, &path) {
            Ok(position) => position,
            Err((at, name)) => {
                let (class, name) = (blueprint.class_name(at).into_owned(), name.to_owned());
                failure.get_or_insert(RegisterHookError::Path { path: path.clone(), class, name });
                continue;
            }
        };
        match parameter(blueprint, position, &callback) {
            Ok(None) => return Ok((blueprint.positions[position].path.clone(), callback)),
            Ok(Some((position, own))) => {
                callback.rename_parameter(own);
                return Ok((blueprint.positions[position].path.clone(), callback));
            }
            Err(error) => drop(failure.insert(error)),
        }
    }
    // A population that never had a model says nothing of its modules.
    failure.map_or(Ok((path, callback)), Err)
}

/// Finds the owner of the parameter that a hook is of: its position, and its own name there. `None` if the hook is the
/// module's.
fn parameter(
    blueprint: &Blueprint,
    position: usize,
    callback: &Callback,
) -> Result<Option<(usize, String)>, RegisterHookError> {
    let Some(name) = callback.parameter() else { return Ok(None) };
    let at = &blueprint.positions[position];
    let class = blueprint.class_name(position).into_owned();
    let path = if at.path.is_empty() { class.clone() } else { at.path.clone() };
    let name = name.to_owned();
    let Some(slot) = blueprint.parameter(position, &name) else {
        let is_computed = blueprint.parametrization(position, &name).is_some()
            || at.weight_normed.find(&name).is_some();
        return Err(match () {
            () if is_computed => RegisterHookError::NotAParameter { path, name },
            () if blueprint.buffer(position, &name).is_some() => {
                RegisterHookError::NoGradient { path, name }
            }
            () if at.nones.contains(&name) => RegisterHookError::None { path, name },
            () => RegisterHookError::NoAttribute { path, class, name },
        });
    };
    Ok(Some((slot.position, slot.own_name().to_owned())))
}
