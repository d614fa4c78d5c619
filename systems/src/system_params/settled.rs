//! [`settled`]: finds a module for whoever reads with `&World`, unless its model was edited since it was last settled.
//!
//! Signing may change the world and reading may not. So this looks for what signing would look at: what was told of
//! modules, and their children. A model with such a change is signed without being changed. If it would get other
//! parameters, that is an error in place of old numbers.

use bevy_ecs::change_detection::Tick;
use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Columned, Model, ModuleName, NOT_A_MEMBER};

use crate::edit::lookup::named_children;
use crate::errors::AccessError;
use crate::structure::membership;
use crate::structure::membership::Known;
use crate::structure::root::root_of;
use crate::structure::sign;
use crate::structure::sign::Signed;
use crate::structure::spot;
use crate::structure::spot::Spot;
use crate::structure::spot::owner;

/// Finds a module in its population. What came of other models meanwhile does not matter.
///
/// # Errors
///
/// [`AccessError::NotAModule`], or [`AccessError::Unsettled`] if a module of its model was edited.
pub(crate) fn settled(world: &World, module: Entity) -> Result<Spot, AccessError> {
    let not_a_module = || AccessError::NotAModule(module);
    let (root, population) = root_of(world, owner(world, module)).ok_or_else(not_a_module)?;
    let known = membership::check_resources(world, population)?;
    let Some(&Model { index, .. }) = world.get::<Model>(root) else { return Err(not_a_module()) };
    if index == NOT_A_MEMBER {
        return Err(not_a_module());
    }
    let place = spot::place(world, root).ok();
    if let Some((group, ..)) = place {
        membership::check_group(world, population, known.blueprints, group)?;
    }
    let edited =
        awaits_signing(world, known, root).map(|entity| path_of(world, entity)).or_else(|| {
            let (group, member, blueprint) = place?;
            with_other_children(world, population, (group, member, blueprint))
        });
    if let Some(path) = edited
        && sign::would_change(world, population, root)
    {
        return Err(AccessError::Unsettled { index, path });
    }
    spot::find(world, module).map_err(|_| not_a_module())
}

/// Finds a module of a model that signing was told of.
fn awaits_signing(world: &World, known: Known<'_>, root: Entity) -> Option<Entity> {
    if known.population.unsigned().contains(&root) {
        return Some(root);
    }
    let mut told = known.types.changed().iter().map(|change| change.entity);
    told.find(|&entity| root_of(world, entity).is_some_and(|(of, _)| of == root))
}

/// Returns the path of a module of a model that got, lost or sorted children since signing looked, or that is gone.
fn with_other_children(
    world: &World,
    population: Entity,
    (group, member, blueprint): (&Group, usize, &Blueprint),
) -> Option<String> {
    let now = world.read_change_tick();
    let looked = world.get::<Signed>(population).and_then(Signed::looked);
    let looked = looked.unwrap_or(Tick::new(now.get().wrapping_sub(Tick::MAX.get())));
    for (at, modules) in blueprint.positions.iter().zip(&group.modules) {
        let Ok(entity) = world.get_entity(modules[member]) else {
            let path = if at.path.is_empty() { at.module.type_name() } else { &at.path };
            return Some(path.to_owned());
        };
        let are_same = match entity.get_change_ticks::<Children>() {
            Some(ticks) => !ticks.is_changed(looked, now),
            None => at.children.is_empty(),
        };
        if !(are_same && entity.contains::<Columned>()) {
            return Some(path_of(world, modules[member]));
        }
    }
    None
}

/// Returns the dotted path of a module as the tree is now; the type's name for a root.
fn path_of(world: &World, entity: Entity) -> String {
    let mut names = Vec::new();
    let mut at = entity;
    while world.get::<Model>(at).is_none()
        && let Some(parent) = world.get::<ChildOf>(at).map(ChildOf::parent)
    {
        let name = world.get::<ModuleName>(at).map(|name| name.0.to_string());
        let place = || named_children(world, parent).find(|(_, child)| child.entity == at);
        names.extend(name.or_else(|| place().map(|(name, _)| name.into_owned())));
        at = parent;
    }
    if !names.is_empty() {
        names.reverse();
        return names.join(".");
    }
    let types = world.get_resource::<ModuleTypes>();
    let module = types.and_then(|types| types.module(world.get_entity(at).ok()?));
    module.map_or("Module", |module| module.type_name()).to_owned()
}
