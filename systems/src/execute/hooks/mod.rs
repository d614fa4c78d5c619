//! Hooks: registering them, and calling them at the edges of module calls.
//!
//! A pass of models with equal hooks is computed by a plan that also gives what they see (`observe`), and they are called
//! afterwards, model by model (`teller`): hooks that only look cost little. One that changes something has the model's pass
//! made again, op by op (`eager`), where it is not called a second time.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::hook::{
    Callback, GlobalHooks, HookOptions, Hooks, PopulationHooks, RemovableHandle,
};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::population::group::Group;

mod answer;
mod memory;
pub(crate) mod observe;
mod passed;
mod runner;
mod target;
mod teller;

use crate::compile::script::Kinds;
pub use crate::structure::target::Target;
pub(crate) use answer::{Again, Past};
pub(crate) use memory::Memory;
pub(crate) use passed::Passed;
pub(crate) use runner::{CallHooks, Runner};
pub use target::RegisterHookError;

/// Registers a hook. One of a parameter that is tied, or of a module under its second name, is the owner's.
///
/// # Errors
///
/// [`RegisterHookError`]: no model has such a module or parameter, so that the hook would never be called.
///
/// Source: the `register_*_hook` methods of `torch.nn.Module`.
pub fn register(
    world: &mut World,
    target: impl Into<Target>,
    callback: Callback,
    options: HookOptions,
) -> Result<RemovableHandle, RegisterHookError> {
    let (target, callback) = target::resolve(world, target.into(), callback)?;
    target::check_mixed(world, &target, callback.kind())?;
    Ok(match target {
        Target::All => {
            let mut hooks = world.get_resource_or_init::<GlobalHooks>();
            hooks.0.register(callback, options)
        }
        Target::Population(population, path) => {
            let hooks = world.get_mut::<PopulationHooks>(population);
            let mut hooks = hooks.map(|mut hooks| std::mem::take(&mut *hooks)).unwrap_or_default();
            let handle = hooks.at_mut(&path).register(callback, options);
            world.entity_mut(population).insert(hooks);
            handle
        }
        Target::Module(module) => {
            let known = world.get::<Hooks>(module).map(Hooks::share);
            let mut hooks = known.unwrap_or_default();
            let handle = hooks.register(callback, options);
            world.entity_mut(module).insert(hooks);
            handle
        }
    })
}

/// The hooks of every module and of a population, if any watch passes, as they are when one begins.
#[derive(Default)]
pub(crate) struct OuterHooks {
    global: Hooks,
    population: PopulationHooks,
}

/// The same lists once more: handles must reach them while hooks run.
impl Clone for OuterHooks {
    fn clone(&self) -> Self {
        OuterHooks { global: self.global.share(), population: self.population.share() }
    }
}

impl OuterHooks {
    /// Returns whether all of them only look, as their type says.
    pub(crate) fn only_look(&self) -> bool {
        self.global.only_look() && self.population.0.iter().all(|(_, hooks)| hooks.only_look())
    }

    /// Returns them; `None` if there are none.
    pub(crate) fn of(world: &World, population: Entity) -> Option<OuterHooks> {
        let global = world.get_resource::<GlobalHooks>().filter(|hooks| hooks.0.watch_passes());
        let of_all = world.get::<PopulationHooks>(population).filter(|hooks| hooks.watch_passes());
        if global.is_none() && of_all.is_none() {
            return None;
        }
        // Handles must reach the lists themselves.
        Some(OuterHooks {
            global: global.map(|hooks| hooks.0.share()).unwrap_or_default(),
            population: of_all.map(PopulationHooks::share).unwrap_or_default(),
        })
    }
}

/// What hooks a model has of its own, of those that watch it run. Models with equal ones share a cohort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnHooks {
    /// Their kinds at each position.
    pub(crate) kinds: Vec<Kinds>,
    /// Whether all of them only look, as their type says.
    pub(crate) only_look: bool,
}

impl OwnHooks {
    /// Looks at the hooks of the model at `place`.
    pub(crate) fn of(world: &World, group: &Group, place: usize) -> Self {
        let mut own = OwnHooks { kinds: Vec::with_capacity(group.modules.len()), only_look: true };
        for modules in &group.modules {
            let mut kinds = Kinds::default();
            if let Some(hooks) = world.get::<Hooks>(modules[place]) {
                hooks.kinds().into_iter().for_each(|kind| kinds.insert(kind));
                own.only_look &= hooks.only_look();
            }
            own.kinds.push(kinds);
        }
        own
    }

    /// Returns whether a model that has such hooks still has any; its mode may say so when the last one is gone.
    pub(crate) fn is_there(&self, world: &World, group: &Group, place: usize) -> bool {
        self.kinds.iter().zip(&group.modules).any(|(kinds, modules)| {
            let hooks = || world.get::<Hooks>(modules[place]);
            !kinds.is_empty() && hooks().is_some_and(Hooks::watch_passes)
        })
    }
}

/// Lists the kinds of hooks of passes at each position of a model: those of all modules, of the population, and of
/// the model at `own`, if it has some of its own.
pub(crate) fn watched(
    world: &World,
    blueprint: &Arc<Blueprint>,
    shared: Option<&OuterHooks>,
    group: &Group,
    own: Option<usize>,
) -> Vec<Kinds> {
    let at = |position: usize| {
        let path = &blueprint.positions[position].path;
        let of_all = shared.map(|shared| &shared.global);
        let of_population = shared.and_then(|shared| shared.population.at(path));
        let of_model = own.and_then(|place| world.get::<Hooks>(group.modules[position][place]));
        let mut kinds = Kinds::default();
        for kind in [of_all, of_population, of_model].into_iter().flatten().flat_map(Hooks::kinds) {
            kinds.insert(kind);
        }
        kinds
    };
    (0..blueprint.positions.len()).map(at).collect()
}
