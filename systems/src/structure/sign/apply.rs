//! [`apply`]: carries out what signing found.

use std::collections::HashMap;

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registry::{Change, ModuleTypes};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::Model;

use super::change::{ChangeSet, Destination, Move, Told};
use crate::draw;
use crate::draw::Draw;
use crate::draw::Fresh;
use crate::errors::SignError;
use crate::storage::bind::KEEPER;
use crate::storage::widen;
use crate::structure::refit::{refit, remap_modes, strip_markers};

/// Carries out what [`sign`](super::change::sign) found in a population. What was refused waits to be signed again.
///
/// # Errors
///
/// [`SignError`] of the first model that is none.
pub(super) fn apply(
    world: &mut World,
    population: Entity,
    changes: ChangeSet,
    draw: Draw,
) -> Result<(), SignError> {
    let ChangeSet { told, looked_at, hooked, opened, columns, moves, mut refused } = changes;
    forget(world, told);
    if looked_at == 0 {
        return Ok(());
    }
    if let Some(mut found) = world.get_mut::<Population>(population)
        && !found.unsigned().is_empty()
    {
        found.take_unsigned(KEEPER);
    }
    for root in hooked {
        if let Some(mut mode) = world.get_mut::<Mode>(root) {
            mode.hooked = true;
        }
    }
    let opened = opened.into_iter().map(|blueprint| {
        let found = world.get::<Population>(population)?;
        let roles = found.companions().to_vec();
        let group = world.resource_mut::<Blueprints>().open_group(blueprint, &roles, KEEPER)?;
        let mut found = world.get_mut::<Population>(population)?;
        let groups = found.groups_mut(KEEPER);
        groups.push(group);
        Some(groups.len() - 1)
    });
    let opened: Vec<Option<usize>> = opened.collect();
    for (group, companions) in by_group(columns) {
        widen::widen(world, population, group, &companions);
    }
    let mut edits = Edits::default();
    let mut fresh = Vec::new();
    for change in moves {
        let to = match change.to {
            Destination::Group(number) => Some(number),
            Destination::Opened(place) => opened[place],
        };
        match to {
            Some(to) => carry(world, population, change, to, &mut edits, &mut fresh),
            None => refused.push((change.root, SignError::TooManyModules)),
        }
    }
    let mut result = Ok(());
    for (root, error) in refused {
        result = result.and(Err(error));
        if let Some(mut found) = world.get_mut::<Population>(population) {
            found.defer(root, KEEPER);
        }
    }
    if !edits.0.is_empty() {
        edits.apply(world, population);
        result = result.and(draw::reset_fresh(world, population, &fresh, draw).map_err(Into::into));
    }
    result
}

/// Forgets what was told of modules and seen, and takes off layer components that others took the place of.
fn forget(world: &mut World, told: Told) {
    let Told { seen, others, replaced, .. } = told;
    if seen == 0 {
        return;
    }
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        let changed = types.changed_mut(KEEPER);
        changed.splice(..seen.min(changed.len()), others);
    }
    for (entity, ids) in replaced {
        let told = |world: &World| world.get_resource::<ModuleTypes>().map(|it| it.changed().len());
        let before = told(world).unwrap_or_default();
        if let Ok(mut found) = world.get_entity_mut(entity) {
            found.remove_by_ids(&ids);
        }
        if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
            let own = Change { entity, inserted: None };
            let mut place = 0;
            types.changed_mut(KEEPER).retain(|change| {
                place += 1;
                place <= before || *change != own
            });
        }
    }
}

/// Sorts what is to be added to groups by the groups.
fn by_group<T>(mut columns: Vec<(usize, T)>) -> Vec<(usize, Vec<T>)> {
    columns.sort_by_key(|&(group, _)| group);
    let mut sorted: Vec<(usize, Vec<T>)> = Vec::new();
    for (group, column) in columns {
        match sorted.last_mut() {
            Some((last, of)) if *last == group => of.push(column),
            _ => sorted.push((group, vec![column])),
        }
    }
    sorted
}

/// Who leaves which group (its place in the list), and who joins: an index and the entities of its modules.
type Edit = (Vec<usize>, Vec<(u32, Vec<Entity>)>);

/// The edits of groups, by their places in the population's list.
#[derive(Default)]
struct Edits(HashMap<usize, Edit>);

impl Edits {
    fn apply(mut self, world: &mut World, population: Entity) {
        let Some(mut found) = world.get_mut::<Population>(population) else { return };
        for (number, group) in found.groups_mut(KEEPER).iter_mut().enumerate() {
            if let Some((mut left, joined)) = self.0.remove(&number) {
                left.sort_unstable();
                group.edit(&left, joined);
            }
        }
        drop_empty_groups(world, population);
    }
}

/// Gives the entities of a model the columns of the group that it joins.
fn carry(
    world: &mut World,
    population: Entity,
    change: Move,
    to: usize,
    edits: &mut Edits,
    fresh: &mut Vec<Fresh>,
) {
    let Move { root, index, from, entities, old, gone, .. } = change;
    let Some(found) = world.get::<Population>(population) else { return };
    let group = &found.groups()[to];
    let (id, contents) = (group.blueprint, group.contents.clone());
    for (position, (&entity, to)) in entities.iter().zip(&contents).enumerate() {
        let new = refit(world, entity, to).into_iter();
        fresh.extend(new.map(|(role, index)| Fresh { root, position, role, index }));
    }
    for (entity, number) in gone {
        strip_markers(world, entity, number);
    }
    remap_modes(world, root, &old, &contents);
    if let Some(mut model) = world.get_mut::<Model>(root) {
        model.blueprint = id;
    }
    if let Some((group, member)) = from {
        edits.0.entry(group).or_default().0.push(member);
    }
    edits.0.entry(to).or_default().1.push((index, entities));
}

/// Lists the members of each group anew, after models left a population of several groups.
pub(super) fn regroup(world: &mut World, population: Entity) {
    let Some(found) = world.get::<Population>(population) else { return };
    let index_of = |root: &Entity| {
        let index = world.get::<Model>(*root)?.index;
        (found.models().get(index as usize) == Some(root)).then_some(index)
    };
    let edits: Vec<_> = found
        .groups()
        .iter()
        .map(|group| {
            let places = 0..group.members.len();
            let moved = places
                .filter(|&place| index_of(&group.modules[0][place]) != Some(group.members[place]));
            let moved: Vec<_> = moved.collect();
            let joined = moved.iter().filter_map(|&place| {
                let modules = group.modules.iter().map(|modules| modules[place]);
                Some((index_of(&group.modules[0][place])?, modules.collect()))
            });
            let joined = joined.collect();
            (moved, joined)
        })
        .collect();
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    for (group, (out, joined)) in found.groups_mut(KEEPER).iter_mut().zip(edits) {
        group.edit(&out, joined);
    }
    found.settle(KEEPER);
    drop_empty_groups(world, population);
}

/// Gives up groups without members, but the last one: it says what a new model looks like.
fn drop_empty_groups(world: &mut World, population: Entity) {
    let Some(found) = world.get::<Population>(population) else { return };
    if found.groups().iter().all(|group| !group.members.is_empty()) {
        return;
    }
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    let groups = found.groups_mut(KEEPER);
    let mut dropped = Vec::new();
    while groups.len() > 1
        && let Some(empty) = groups.iter().position(|group| group.members.is_empty())
    {
        dropped.push(groups.remove(empty));
    }
    let mut blueprints = world.resource_mut::<Blueprints>();
    dropped.iter().for_each(|group| blueprints.release_group(group, KEEPER));
}
