//! [`Live`]: the entity tree of a model, read as a blueprint.

use std::collections::HashMap;

use bevy_ecs::component::ComponentId;
use bevy_ecs::entity::EntityHashSet;
use bevy_ecs::prelude::*;
use neurarch_components::containers::MAX_DEPTH;
use neurarch_components::layers::Identity;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::dtypes::Dtypes;
use neurarch_components::module::names::{Kind, wrong_name};
use neurarch_components::module::registered::Registered;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::parametrizations::{RegisteredAgain, WeightNormed};
use neurarch_components::population::Population;
use neurarch_components::population::tie::SharedModule;
use neurarch_components::population::tree::{Model, ModuleName};

use crate::errors::SignError;
use crate::structure::ties;

/// The live tree of a model, read once.
pub(crate) struct Live {
    pub(crate) blueprint: Blueprint,
    /// By position.
    pub(crate) entities: Vec<Entity>,
}

/// Reads the tree below `root`. Entities that are no modules, and other models, are not part of it, nor are those
/// that say that they have another parent, or are there already; a module without a name is named by its place, as
/// `Sequential` does. Of several layer components a module's is the one in `last`.
pub(crate) fn read(
    world: &World,
    root: Entity,
    model: &Model,
    last: &HashMap<Entity, ComponentId>,
) -> Result<Live, SignError> {
    let index = model.index;
    let dtype = world.get::<Population>(model.population).map(Population::dtype);
    let (Some(dtype), Some(types)) = (dtype, world.get_resource::<ModuleTypes>()) else {
        return Err(SignError::NoModule { index });
    };
    let mut live = Live { blueprint: Blueprint { positions: Vec::new() }, entities: Vec::new() };
    let mut waiting = vec![(root, None::<usize>)];
    let mut depths: Vec<usize> = Vec::new();
    let mut seen = EntityHashSet::default();
    while let Some((entity, parent)) = waiting.pop() {
        let Ok(entity_ref) = world.get_entity(entity) else { continue };
        let shared = entity_ref.get::<SharedModule>();
        let given = last.get(&entity).and_then(|&id| types.module_of(entity_ref, id));
        let own = given.or_else(|| types.module(entity_ref));
        let Some(module) = own.or(shared.and(Some(&Identity as _))) else {
            continue;
        };
        if entity == root && parent.is_some() {
            let parent = live.entities[parent.unwrap_or_default()];
            return Err(SignError::Cycle { index, parent });
        }
        let is_below = |parent: usize| {
            let own = entity_ref.get::<ChildOf>().map(ChildOf::parent);
            own == live.entities.get(parent).copied() && !entity_ref.contains::<Model>()
        };
        if parent.is_some_and(|parent| !is_below(parent)) || !seen.insert(entity) {
            continue;
        }
        let (name, path) = match parent {
            None => (String::new(), String::new()),
            Some(parent) => {
                let name = entity_ref.get::<ModuleName>().map(|name| name.0.to_string());
                let place = live.blueprint.positions[parent].children.len();
                let name = name.unwrap_or_else(|| place.to_string());
                check_name(&live.blueprint, parent, &name, index)?;
                let path = live.blueprint.path_below(parent, &name);
                (name, path)
            }
        };
        let depth = parent.map_or(1, |parent| depths[parent] + 1);
        if depth > MAX_DEPTH {
            return Err(SignError::TooDeep { index, path });
        }
        depths.push(depth);
        let position = live.blueprint.push(module, dtype, name, path, parent);
        let at = &mut live.blueprint.positions[position];
        match (entity_ref.get::<Registered>(), entity_ref.get::<Dtypes>()) {
            (Some(registered), _) => registered.apply(at),
            (None, Some(dtypes)) => dtypes.apply(at),
            (None, None) => {}
        }
        if let Some(parent) = parent {
            live.blueprint.positions[parent].children.push(position);
        }
        live.entities.push(entity);
        let first = waiting.len();
        let children =
            entity_ref.get::<Children>().into_iter().flat_map(|children| children.iter());
        waiting.extend(children.map(|child| (child, Some(position))));
        waiting[first..].reverse();
    }
    if live.entities.is_empty() {
        return Err(SignError::NoModule { index });
    }
    for (at, &entity) in live.blueprint.positions.iter_mut().zip(&live.entities) {
        if let Some(again) = world.get::<RegisteredAgain>(entity) {
            at.parameters.sort_by_key(|parameter| again.place(&parameter.name));
            at.buffers.sort_by_key(|buffer| again.place(&buffer.name));
        }
    }
    for (position, &entity) in live.entities.iter().enumerate() {
        if let Some(normed) = world.get::<WeightNormed>(entity) {
            live.blueprint.split_weight_normed(position, normed);
        }
    }
    live.blueprint.drop_parametrized();
    let Live { blueprint, entities } = &mut live;
    ties::resolve(world, blueprint, entities).map_err(|error| SignError::Tie { index, error })?;
    Ok(live)
}

fn check_name(
    blueprint: &Blueprint,
    parent: usize,
    name: &str,
    index: u32,
) -> Result<(), SignError> {
    let at = &blueprint.positions[parent];
    let own = at.parameters.iter().chain(&at.buffers).map(|parameter| parameter.name.as_str());
    let siblings = at.children.iter().map(|&child| blueprint.positions[child].name.as_str());
    let nones = at.nones.iter().map(String::as_str);
    let taken: Vec<_> = own.chain(nones).chain(siblings).collect();
    match wrong_name(Kind::Module, at.module.type_name(), name, |name| taken.contains(&name)) {
        None => Ok(()),
        Some(message) => {
            let path = if at.path.is_empty() { at.module.type_name() } else { &at.path };
            Err(SignError::Name { index, path: path.to_owned(), message })
        }
    }
}
