//! Calling the hooks of saving and loading: those of all modules, of a population, of a module, in this order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use neurarch_components::hook::{
    Callback, GlobalHooks, Hook, HookError, HookKind, Hooks, PopulationHooks, StateAt,
};
use neurarch_components::module::blueprint::{Blueprint, Position};
use neurarch_components::population::group::Group;
use neurarch_components::state::LocalMetadata;
use neurarch_kernels::ir::trace::panic_message;

/// A hook of saving or loading failed, or panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {kind} {number}: {message}")]
pub struct StateHookError {
    /// Dotted path of the module; the type's name for a root.
    pub path: String,
    /// Which kind of hook.
    pub kind: HookKind,
    /// Its place among those of the kind that are called for the module.
    pub number: usize,
    /// What it said.
    pub message: String,
}

/// What a module type does itself when it is saved or loaded panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct StateModuleError {
    /// Dotted path of the module; the type's name for a root.
    pub path: String,
    /// Which method, and what it said.
    pub message: String,
}

/// Runs a method of the module at a position: a panic becomes an error.
pub(super) fn contained(
    of: &Position,
    method: &str,
    run: impl FnOnce(),
) -> Result<(), StateModuleError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| StateModuleError {
        path: if of.path.is_empty() { of.module.type_name().to_owned() } else { of.path.clone() },
        message: format!("{method} {}", panic_message(&*panic)),
    })
}

/// The kinds that are called here.
const KINDS: [HookKind; 4] = [
    HookKind::StateDictPre,
    HookKind::StateDictPost,
    HookKind::LoadStateDictPre,
    HookKind::LoadStateDictPost,
];

/// The hooks that are called for some models of a group, as they are when saving or loading begins.
pub(super) struct StateHooks<'w> {
    blueprint: &'w Blueprint,
    global: Option<&'w Hooks>,
    population: Option<&'w PopulationHooks>,
    /// The group, and the place of the one model in it.
    own: Option<(&'w Group, usize)>,
    world: &'w World,
}

impl<'w> StateHooks<'w> {
    /// Finds the hooks for the member at `own` of a group, or for many at once, without their own ones.
    pub(super) fn of(
        world: &'w World,
        population: Entity,
        blueprint: &'w Blueprint,
        group: &'w Group,
        own: Option<usize>,
    ) -> Self {
        let global = world.get_resource::<GlobalHooks>().map(|hooks| &hooks.0);
        StateHooks {
            blueprint,
            global: global.filter(|hooks| hooks.have(&KINDS)),
            population: world.get::<PopulationHooks>(population).filter(|of| !of.is_empty()),
            own: own.map(|member| (group, member)),
            world,
        }
    }

    /// Calls the hooks of a kind for a position; `call` hands each function what it is to see.
    pub(super) fn call(
        &self,
        position: usize,
        kind: HookKind,
        prefix: &str,
        metadata: &LocalMetadata,
        mut call: impl FnMut(&mut Callback, &StateAt<'_>) -> Result<(), HookError>,
    ) -> Result<(), StateHookError> {
        let of = &self.blueprint.positions[position];
        let entity = self.own.map(|(group, member)| group.modules[position][member]);
        let own = entity.and_then(|entity| self.world.get::<Hooks>(entity));
        let of_all = self.population.and_then(|hooks| hooks.at(&of.path));
        let lists = [self.global, of_all, own].into_iter().flatten();
        let hooks: Vec<Hook> = lists.flat_map(|hooks| hooks.list(kind)).collect();
        let (path, module) = (of.path.as_str(), of.module.type_name());
        let version = metadata.version;
        let at = StateAt { path, module, entity, prefix, version, metadata };
        for (number, hook) in hooks.iter().enumerate() {
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut callback = hook.callback.lock().unwrap_or_else(PoisonError::into_inner);
                call(&mut callback, &at)
            }));
            let result = result.unwrap_or_else(|panic| Err(panic_message(&*panic).into()));
            result.map_err(|error| StateHookError {
                path: if path.is_empty() { module.to_owned() } else { path.to_owned() },
                kind,
                number,
                message: error.to_string(),
            })?;
        }
        Ok(())
    }
}

/// Returns whether a member of a group has hooks of its own that are called when it is loaded.
pub(super) fn has_own(world: &World, group: &Group, member: usize) -> bool {
    let modules = group.modules.iter().map(|modules| modules[member]);
    let mut hooks = modules.filter_map(|module| world.get::<Hooks>(module));
    hooks.any(|hooks| hooks.have(&KINDS))
}
