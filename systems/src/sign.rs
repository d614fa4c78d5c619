//! Signing: the entity tree of a model becomes its blueprint, again after each change of its structure.
//!
//! What changed is known from observers of the layer components and from the change ticks of `Children`
//! (whose order fires nothing). A model that changed moves to the group of its new blueprint; its neighbours
//! stay where they are.

use std::collections::{BTreeSet, HashMap};

use bevy_ecs::change_detection::{DetectChanges, Tick};
use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{Blueprint, Blueprints};
use neurarch_components::column::{ColumnKey, Columns, Zeros, insert_zeroed, row, row_mut};
use neurarch_components::population::{Group, Population};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tree::{Model, ModuleName};
use neurarch_kernels::program::Role;

use crate::init;
use crate::spawn::columns_of;

/// Why a model's tree is not a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The entity is no population.
    #[error("{0} is not a population")]
    NotAPopulation(Entity),
    /// The root has no layer component.
    #[error("model {index}: its root has no module component any more")]
    NoModule {
        /// The model's index.
        index: u32,
    },
}

/// A parameter or buffer that a change of structure made new: its numbers are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// The model's root.
    pub root: Entity,
    /// The module's place in the new blueprint.
    pub position: usize,
    /// Parameters and buffers that it had before: role and place.
    pub kept: Vec<(Role, usize)>,
}

/// What signing remembers from one time to the next.
#[derive(Component, Debug, Default)]
pub struct Signed {
    /// When the order of children was last looked at.
    children: Option<Tick>,
    /// Modules whose parameters have yet to be given their first numbers.
    pub fresh: Vec<Fresh>,
}

/// Signs the models of a population that changed. Cheap if none did.
///
/// # Errors
///
/// [`SignError`]; models that were signed before the error stay signed.
pub fn refresh(world: &mut World, population: Entity) -> Result<(), SignError> {
    let Some(mut found) = world.get_mut::<Population>(population) else {
        return Err(SignError::NotAPopulation(population));
    };
    let mut changed: BTreeSet<Entity> = BTreeSet::new();
    if !found.is_settled() {
        changed.extend(found.take_unsigned());
        found.settle();
        regroup(world, population);
    }
    changed.extend(changed_roots(world, population));
    for root in changed {
        sign(world, population, root)?;
    }
    init::reset_fresh(world, population);
    Ok(())
}

/// Finds the models of a population whose structure may have changed since the last time.
fn changed_roots(world: &mut World, population: Entity) -> Vec<Entity> {
    let now = world.change_tick();
    let last = world.get::<Signed>(population).and_then(|signed| signed.children);
    let mut touched = world
        .get_resource_mut::<ModuleTypes>()
        .map(|mut types| std::mem::take(&mut types.changed))
        .unwrap_or_default();
    let mut mine = Vec::new();
    touched.retain(|&entity| match root_of(world, entity) {
        Some((root, of)) if of == population => {
            mine.push(root);
            false
        }
        Some(_) => true,
        None => false,
    });
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        types.changed = touched;
    }
    if let Some(last) = last {
        let mut parents = world.query::<(Entity, Ref<Children>)>();
        let is_new = |children: &Ref<Children>| children.last_changed().is_newer_than(last, now);
        let moved: Vec<_> = parents
            .iter(world)
            .filter(|(_, children)| is_new(children))
            .map(|(entity, _)| entity)
            .collect();
        let roots = moved.into_iter().filter_map(|entity| root_of(world, entity));
        mine.extend(roots.filter(|(_, of)| *of == population).map(|(root, _)| root));
    }
    let mut entity = world.entity_mut(population);
    match entity.get_mut::<Signed>() {
        Some(mut signed) => signed.children = Some(now),
        None => {
            entity.insert(Signed { children: Some(now), fresh: Vec::new() });
        }
    }
    world.increment_change_tick();
    mine
}

/// Walks up to the model's root; gives it and its population.
pub(crate) fn root_of(world: &World, entity: Entity) -> Option<(Entity, Entity)> {
    let mut entity = entity;
    loop {
        if let Some(model) = world.get::<Model>(entity) {
            return Some((entity, model.population));
        }
        entity = world.get::<ChildOf>(entity)?.parent();
    }
}

/// Lists the members of each group anew, after models left a population of several groups.
fn regroup(world: &mut World, population: Entity) {
    let Some(found) = world.get::<Population>(population) else {
        return;
    };
    let place: HashMap<Entity, u32> =
        (0..).zip(found.models()).map(|(i, &root)| (root, i)).collect();
    let Some(mut found) = world.get_mut::<Population>(population) else {
        return;
    };
    for group in found.groups_mut() {
        let roots = group.modules.first().cloned().unwrap_or_default();
        let mut kept: Vec<(u32, usize)> = roots
            .iter()
            .enumerate()
            .filter_map(|(member, root)| Some((*place.get(root)?, member)))
            .collect();
        kept.sort_unstable();
        group.members = kept.iter().map(|&(index, _)| index).collect();
        for modules in &mut group.modules {
            *modules = kept.iter().map(|&(_, member)| modules[member]).collect();
        }
    }
    drop_empty_groups(world, population);
}

/// Gives up groups without members, but the last one: it says what a new model looks like.
fn drop_empty_groups(world: &mut World, population: Entity) {
    let Some(mut found) = world.get_mut::<Population>(population) else {
        return;
    };
    let mut dropped = Vec::new();
    let groups = found.groups_mut();
    while groups.len() > 1
        && let Some(empty) = groups.iter().position(|group| group.members.is_empty())
    {
        dropped.push(groups.remove(empty));
    }
    let mut blueprints = world.resource_mut::<Blueprints>();
    for group in dropped {
        blueprints.release(group.blueprint);
        blueprints.give_markers(&group.markers);
    }
}

/// The live tree of a model, read once.
struct Live {
    blueprint: Blueprint,
    entities: Vec<Entity>,
}

fn read(world: &World, root: Entity, population: Entity) -> Option<Live> {
    let dtype = world.get::<Population>(population)?.dtype;
    let types = world.get_resource::<ModuleTypes>()?;
    let mut live = Live { blueprint: Blueprint { positions: Vec::new() }, entities: Vec::new() };
    let mut waiting = vec![(root, None::<usize>)];
    while let Some((entity, parent)) = waiting.pop() {
        let entity_ref = world.get_entity(entity).ok()?;
        let Some(module) = types.module(entity_ref) else {
            continue;
        };
        let name =
            entity_ref.get::<ModuleName>().map_or_else(String::new, |name| name.0.to_string());
        let path = match parent {
            None => String::new(),
            Some(parent) => live.blueprint.path_below(parent, &name),
        };
        let name = if parent.is_none() { String::new() } else { name };
        let position = live.blueprint.push(module, dtype, name, path, parent);
        if let Some(parent) = parent {
            live.blueprint.positions[parent].children.push(position);
        }
        live.entities.push(entity);
        let children =
            entity_ref.get::<Children>().into_iter().flat_map(|children| children.iter());
        let first = waiting.len();
        waiting.extend(children.map(|child| (child, Some(position))));
        waiting[first..].reverse();
    }
    (!live.entities.is_empty()).then_some(live)
}

/// Signs one model, and moves it to another group if its structure is another.
fn sign(world: &mut World, population: Entity, root: Entity) -> Result<(), SignError> {
    let Some(&model) = world.get::<Model>(root) else {
        return Ok(());
    };
    let Live { blueprint, entities } =
        read(world, root, population).ok_or(SignError::NoModule { index: model.index })?;
    let old = world.resource::<Blueprints>().get(model.blueprint).cloned();
    let in_group = |found: &Population| {
        let mut groups = found.groups().iter().enumerate();
        groups.find_map(|(number, group)| {
            let member = group.members.binary_search(&model.index).ok()?;
            (group.modules.first()?.get(member) == Some(&root)).then_some((number, member))
        })
    };
    let place = world.get::<Population>(population).and_then(in_group);
    if let Some((group, member)) = place
        && old.as_ref().is_some_and(|old| old.is_like(&blueprint))
    {
        // The same structure, perhaps of other entities: a child was replaced by one like it.
        let Some(found) = world.get::<Population>(population) else {
            return Ok(());
        };
        let group_ref = &found.groups()[group];
        let same =
            group_ref.modules.iter().zip(&entities).all(|(of, &entity)| of[member] == entity);
        if same {
            return Ok(());
        }
    }
    let old_entities = place.map(|(group, member)| take_member(world, population, group, member));
    let group = group_for(world, population, blueprint);
    let found = world.get::<Population>(population).expect("checked above");
    let Group { blueprint: id, markers, .. } = &found.groups()[group];
    let (id, markers) = (*id, markers.clone());
    let blueprint =
        world.resource::<Blueprints>().get(id).expect("a group holds its blueprint").clone();
    let mut zeros = Zeros::default();
    for (position, &entity) in entities.iter().enumerate() {
        let before =
            old_entities.as_ref().and_then(|old| old.iter().position(|&other| other == entity));
        let before = before.and_then(|position| Some(&old.as_ref()?.positions[position]));
        let at = &blueprint.positions[position];
        let wanted = columns_of(world, &blueprint, position);
        let unchanged = match before {
            Some(before) => before.parameters == at.parameters && before.buffers == at.buffers,
            None => has_columns(world, entity, &wanted),
        };
        let kept = if unchanged { Vec::new() } else { keep(world, entity, before, at) };
        let stale: Vec<ComponentId> = strip(world, entity, !unchanged);
        let markers = Columns::markers(world, markers[position]);
        let mut entity_mut = world.entity_mut(entity);
        entity_mut.remove_by_ids(&stale);
        let missing = if unchanged { &[][..] } else { &wanted[..] };
        insert_zeroed(&mut entity_mut, missing, &markers, &mut zeros);
        let kept_slots = kept.iter().map(|(key, _)| (key.role, key.index)).collect();
        for (key, bytes) in kept {
            let id = wanted.iter().find(|(_, wanted)| *wanted == key).map(|&(id, _)| id);
            if let Some(to) = id.and_then(|id| row_mut(&mut entity_mut, id, key)) {
                to.copy_from_slice(&bytes);
            }
        }
        if !unchanged && let Some(mut signed) = world.get_mut::<Signed>(population) {
            signed.fresh.push(Fresh { root, position, kept: kept_slots });
        }
    }
    let old_entities = old_entities.unwrap_or_default();
    for gone in old_entities.into_iter().filter(|entity| !entities.contains(entity)) {
        let stale = strip(world, gone, true);
        if let Ok(mut entity) = world.get_entity_mut(gone) {
            entity.remove_by_ids(&stale);
        }
    }
    add_member(world, population, group, model.index, &entities);
    if let Some(mut model) = world.get_mut::<Model>(root) {
        model.blueprint = id;
    }
    drop_empty_groups(world, population);
    Ok(())
}

fn has_columns(world: &World, entity: Entity, wanted: &[(ComponentId, ColumnKey)]) -> bool {
    world
        .get_entity(entity)
        .is_ok_and(|entity| wanted.iter().all(|&(id, _)| entity.contains_id(id)))
}

/// Copies the rows of parameters and buffers that stay what they were: same name, type and kind.
fn keep(
    world: &World,
    entity: Entity,
    before: Option<&neurarch_components::blueprint::Position>,
    at: &neurarch_components::blueprint::Position,
) -> Vec<(ColumnKey, Vec<u8>)> {
    let (Some(before), Ok(entity)) = (before, world.get_entity(entity)) else {
        return Vec::new();
    };
    let Some(columns) = world.get_resource::<Columns>() else {
        return Vec::new();
    };
    let kinds = [
        (Role::Parameter, &before.parameters, &at.parameters),
        (Role::Buffer, &before.buffers, &at.buffers),
    ];
    let mut kept = Vec::new();
    for (role, old, new) in kinds {
        for (index, parameter) in new.iter().enumerate() {
            let row_bytes = neurarch_components::column::row_bytes(parameter.ty.size_bytes());
            let same = old.iter().position(|old| old == parameter);
            let bytes = same.and_then(|old| {
                let key = ColumnKey { role, index: old, row_bytes };
                row(entity, columns.find(key)?, key).map(<[u8]>::to_vec)
            });
            kept.extend(bytes.map(|bytes| (ColumnKey { role, index, row_bytes }, bytes)));
        }
    }
    kept
}

/// Lists what has to go from an entity before it gets its new position: markers, and columns if `columns`.
fn strip(world: &World, entity: Entity, columns: bool) -> Vec<ComponentId> {
    let (Ok(entity), Some(known)) = (world.get_entity(entity), world.get_resource::<Columns>())
    else {
        return Vec::new();
    };
    let components = entity.archetype().components().iter().copied();
    components
        .filter(|&id| known.all_markers().contains(&id) || columns && known.key(id).is_some())
        .collect()
}

/// Finds the group of a blueprint in a population, or opens it.
fn group_for(world: &mut World, population: Entity, blueprint: Blueprint) -> usize {
    let n_positions = blueprint.positions.len();
    let mut blueprints = world.resource_mut::<Blueprints>();
    let id = blueprints.hold(blueprint);
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    if let Some(known) = groups.iter().position(|group| group.blueprint == id) {
        world.resource_mut::<Blueprints>().release(id);
        return known;
    }
    let markers = world.resource_mut::<Blueprints>().take_markers(n_positions);
    let group = Group {
        blueprint: id,
        markers,
        members: Vec::new(),
        modules: vec![Vec::new(); n_positions],
    };
    let mut found = world.get_mut::<Population>(population).expect("a population is signed");
    found.groups_mut().push(group);
    found.groups().len() - 1
}

/// Takes a member out of its group; gives its modules' entities.
fn take_member(world: &mut World, population: Entity, group: usize, member: usize) -> Vec<Entity> {
    let mut found = world.get_mut::<Population>(population).expect("a population is signed");
    let group = &mut found.groups_mut()[group];
    group.members.remove(member);
    group.modules.iter_mut().map(|modules| modules.remove(member)).collect()
}

fn add_member(world: &mut World, population: Entity, group: usize, index: u32, modules: &[Entity]) {
    let mut found = world.get_mut::<Population>(population).expect("a population is signed");
    let group = &mut found.groups_mut()[group];
    let member = group.members.partition_point(|&other| other < index);
    group.members.insert(member, index);
    for (of, &module) in group.modules.iter_mut().zip(modules) {
        of.insert(member, module);
    }
}
