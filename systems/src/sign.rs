//! Signing: the entity tree of a model becomes its blueprint, again after each change of its structure.
//!
//! What changed is known from lifecycle hooks of the layer components and of `Registered`, from the tables that the modules lie
//! in, and from the change ticks of `Children` (whose order fires nothing). A model that changed moves to
//! the group of its new blueprint; its neighbors stay where they are.

use std::collections::HashMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{Blueprint, Blueprints, TieError};
use neurarch_components::column::{ColumnKey, Columns, row};
use neurarch_components::containers::MAX_DEPTH;
use neurarch_components::population::{Group, Population};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::shared::SharedTensors;
use neurarch_components::tree::{Columned, Contents, Model, NOT_A_MEMBER};
use neurarch_kernels::program::Role;

use crate::access;
use crate::bind::{BindError, KEEPER};
use crate::hooks;
use crate::init::{self, Draw, Fresh};
use crate::live::{self, Live};
use crate::refit::{kept_companions, refit, remap_modes, strip_markers};
use crate::room::{self, RoomError};

mod look;

pub use look::Signed;
use look::look;
pub(crate) use look::look_away;

/// Why a model's tree is not a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The entity is no population.
    #[error("{0} is not a population")]
    NotAPopulation(Entity),
    /// The root has no layer component.
    #[error("model {index}: its root has no module component")]
    NoModule {
        /// The model's index.
        index: u32,
    },
    /// A child's name is empty, contains a dot, or is taken; torch's words.
    #[error("model {index}, {path}: {message}")]
    Name {
        /// The model's index.
        index: u32,
        /// Dotted path of the parent.
        path: String,
        /// What is wrong with the name.
        message: String,
    },
    /// A tie names what is no part of the model, or has another type.
    #[error("model {index}, {0}", .error)]
    Tie {
        /// The model's index.
        index: u32,
        /// What is tied, and why it cannot be.
        error: TieError,
    },
    /// A module is below itself.
    #[error("model {index}: its root is a child of {parent}, which is below it")]
    Cycle {
        /// The model's index.
        index: u32,
        /// The entity that has the root as its child.
        parent: Entity,
    },
    /// Modules are nested deeper than a model may be.
    #[error("model {index}, {path}: expected modules nested at most {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The model's index.
        index: u32,
        /// Dotted path of the module that is too deep.
        path: String,
    },
    /// A component that neurarch keeps was removed from a module.
    #[error("model {index}, {path}: its {component} was removed")]
    Removed {
        /// The model's index.
        index: u32,
        /// Dotted path of the module.
        path: String,
        /// What is missing.
        component: String,
    },
    /// The column of what a population's models share was removed from its entity.
    #[error("{population}, {name}: its {role} was removed")]
    SharedRemoved {
        /// The population's entity.
        population: Entity,
        /// The dotted name of what is shared.
        name: String,
        /// What the column is for.
        role: Role,
    },
    /// Rows of a model cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A resource that neurarch keeps was removed from the world, or replaced by another.
    #[error(
        "the resource {resource} that {population} was spawned with is not in the world any more"
    )]
    Missing {
        /// The population's entity.
        population: Entity,
        /// The resource's type.
        resource: &'static str,
    },
    /// All blueprints in use have more than 2²⁴ modules together.
    #[error("expected fewer than 16777216 modules in all blueprints together")]
    TooManyModules,
    /// A parameter or buffer of a model that was changed is too large for memory.
    #[error(transparent)]
    Room(#[from] RoomError),
}

/// Signs the models of a population that changed, and gives parameters that are new their first numbers.
/// Cheap if none did: a few comparisons for each table, and one for each module with children.
///
/// # Errors
///
/// [`SignError`] of the first model that is none; it stays as it was, and is signed again next time. The
/// others are signed.
pub fn refresh(world: &mut World, population: Entity) -> Result<(), SignError> {
    refresh_drawing(world, population, Draw::First)
}

/// [`refresh`], which says how what is new draws its first numbers.
pub(crate) fn refresh_drawing(
    world: &mut World,
    population: Entity,
    draw: Draw,
) -> Result<(), SignError> {
    let is_stale = check(world, population)?.is_stale();
    let mut roots = Vec::new();
    take_changes(world, population, &mut roots);
    if is_stale {
        regroup(world, population);
    }
    look(world, population, &mut roots);
    if let Some(found) = world.get::<Population>(population)
        && !found.is_settled()
        && let Some(mut found) = world.get_mut::<Population>(population)
    {
        roots.extend(found.take_unsigned(KEEPER));
    }
    if roots.is_empty() { Ok(()) } else { sign_all(world, population, roots, draw) }
}

/// Finds a population, with the resources that its groups speak of: whatever is done with it begins here, so all that
/// follows may take these for granted.
fn check(world: &World, population: Entity) -> Result<&Population, SignError> {
    let found = world.get::<Population>(population);
    let found = found.filter(|found| found.is_of(world.id(), population));
    let found = found.ok_or(SignError::NotAPopulation(population))?;
    let missing = |resource| SignError::Missing { population, resource };
    let blueprints = world.get_resource::<Blueprints>().ok_or(missing("Blueprints"))?;
    if !found.groups().iter().all(|group| blueprints.holds(group)) {
        return Err(missing("Blueprints"));
    }
    world.get_resource::<ModuleTypes>().ok_or(missing("ModuleTypes"))?;
    Columns::of(world).filter(|columns| found.is_in(columns)).ok_or(missing("Columns"))?;
    for shared in found.groups().iter().flat_map(Group::shared) {
        let tensors = world.get::<SharedTensors>(shared.owner).ok_or(missing("SharedTensors"))?;
        let of = tensors.get(shared.index).ok_or(missing("SharedTensors"))?;
        if row(world, shared.owner, shared.key(of.role, &of.ty)).is_none() {
            let (name, role) = (of.name.clone(), of.role);
            return Err(SignError::SharedRemoved { population, name, role });
        }
    }
    Ok(found)
}

/// Takes what was told of modules of this population.
fn take_changes(world: &mut World, population: Entity, roots: &mut Vec<Entity>) {
    let Some(mut types) = world.get_resource_mut::<ModuleTypes>() else { return };
    if types.changed().is_empty() {
        return;
    }
    let mut changed = std::mem::take(types.changed_mut(KEEPER));
    let mut inserted = HashMap::new();
    changed.retain(|change| match root_of(world, change.entity) {
        Some((root, of)) if of == population && is_member(world, root) => {
            roots.push(root);
            if let Some(id) = change.inserted {
                inserted.insert(change.entity, id);
            }
            false
        }
        found => found.is_some(),
    });
    // One module, one layer component: the one that was inserted last.
    for (&entity, &last) in &inserted {
        let types = world.resource::<ModuleTypes>();
        let Ok(found) = world.get_entity(entity) else { continue };
        let others = found.archetype().components().iter().copied();
        let others: Vec<_> = others.filter(|&id| id != last && types.contains(id)).collect();
        if !others.is_empty() && found.contains_id(last) {
            world.entity_mut(entity).remove_by_ids(&others);
        }
    }
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        *types.changed_mut(KEEPER) = changed;
    }
}

/// Walks up to the model's root; gives it and its population.
pub(crate) fn root_of(world: &World, entity: Entity) -> Option<(Entity, Entity)> {
    // A cycle that does not go through `entity` comes back to one of these, which are ever farther apart.
    let (mut at, mut mark) = (entity, entity);
    let (mut steps, mut next_mark) = (0_usize, 1);
    loop {
        if let Some(model) = world.get::<Model>(at) {
            return Some((at, model.population));
        }
        at = world.get::<ChildOf>(at)?.parent();
        steps += 1;
        if at == mark {
            return None;
        }
        if steps == next_mark {
            (mark, next_mark) = (at, 2 * next_mark);
        }
    }
}

/// Says whether a model is put together: an observer of the host's may ask while it is not.
fn is_member(world: &World, root: Entity) -> bool {
    world.get::<Model>(root).is_some_and(|model| model.index != NOT_A_MEMBER)
}

/// Lists the members of each group anew, after models left a population of several groups.
fn regroup(world: &mut World, population: Entity) {
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

/// Who leaves which group (its place in the list), and who joins.
#[derive(Default)]
struct Moves {
    left: HashMap<usize, Vec<usize>>,
    joined: HashMap<usize, Vec<(u32, Vec<Entity>)>>,
    /// What has yet to be given its first numbers.
    fresh: Vec<Fresh>,
}

fn sign_all(
    world: &mut World,
    population: Entity,
    mut roots: Vec<Entity>,
    draw: Draw,
) -> Result<(), SignError> {
    roots.sort_unstable_by_key(|&root| (world.get::<Model>(root).map(|model| model.index), root));
    roots.dedup();
    let mut moves = Moves::default();
    let mut result = Ok(());
    for root in roots {
        if let Err(error) = sign(world, population, root, &mut moves) {
            result = result.and(Err(error));
            if let Some(mut found) = world.get_mut::<Population>(population) {
                found.defer(root, KEEPER);
            }
        }
    }
    if let Some(mut found) = world.get_mut::<Population>(population)
        && !(moves.left.is_empty() && moves.joined.is_empty())
    {
        for (number, group) in found.groups_mut(KEEPER).iter_mut().enumerate() {
            let mut left = moves.left.remove(&number).unwrap_or_default();
            let joined = moves.joined.remove(&number).unwrap_or_default();
            if !(left.is_empty() && joined.is_empty()) {
                left.sort_unstable();
                group.edit(&left, joined);
            }
        }
        drop_empty_groups(world, population);
        result = result
            .and(init::reset_fresh(world, population, &moves.fresh, draw).map_err(Into::into));
    }
    result
}

/// Signs one model; if its structure or its entities changed, it moves to the group of its blueprint.
fn sign(
    world: &mut World,
    population: Entity,
    root: Entity,
    moves: &mut Moves,
) -> Result<(), SignError> {
    let Some(&model) = world.get::<Model>(root) else { return Ok(()) };
    let Live { blueprint, entities } = live::read(world, root, &model)?;
    hooks::mark(world, root, &entities);
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let place = found.groups().iter().enumerate().find_map(|(number, group)| {
        let is_his = group.blueprint == model.blueprint;
        let member = is_his.then(|| group.members.binary_search(&model.index).ok())??;
        (group.modules[0][member] == root).then_some((number, member))
    });
    let before: Vec<(Entity, Arc<Contents>)> = place.map_or(Vec::new(), |(group, member)| {
        let group = &found.groups()[group];
        let modules = group.modules.iter().map(|modules| modules[member]);
        modules.zip(group.contents.iter().cloned()).collect()
    });
    check_columns(world, model.index, &blueprint, &entities, &before)?;
    let blueprints = world.resource::<Blueprints>();
    let known = blueprints.find(&blueprint);
    let known = found.groups().iter().position(|group| Some(group.blueprint) == known);
    if let (Some((group, member)), Some(known)) = (place, known)
        && group == known
        && is_settled(world, &found.groups()[group], member, &entities)
    {
        return Ok(());
    }
    let number = match known {
        Some(number) => number,
        None => open_group(world, population, blueprint)?,
    };
    make_room(world, population, number, &entities, moves);
    let Some(found) = world.get::<Population>(population) else { return Ok(()) };
    let group = &found.groups()[number];
    let (id, contents) = (group.blueprint, group.contents.clone());
    let old: Vec<Option<Arc<Contents>>> = entities
        .iter()
        .map(|&entity| {
            let was_here = place.is_none() || before.iter().any(|&(other, _)| other == entity);
            let columned = world.get::<Columned>(entity).filter(|_| was_here);
            columned.map(|columned| columned.contents().clone())
        })
        .collect();
    for (position, (&entity, to)) in entities.iter().zip(&contents).enumerate() {
        let new = refit(world, entity, to).into_iter();
        moves.fresh.extend(new.map(|(role, index)| Fresh { root, position, role, index }));
    }
    for (gone, contents) in before.iter().filter(|(gone, _)| !entities.contains(gone)) {
        strip_markers(world, *gone, contents.number);
    }
    remap_modes(world, root, &old, &contents);
    if let Some(mut model) = world.get_mut::<Model>(root) {
        model.blueprint = id;
    }
    if let Some((group, member)) = place {
        moves.left.entry(group).or_default().push(member);
    }
    moves.joined.entry(number).or_default().push((model.index, entities));
    Ok(())
}

/// Checks that the modules of a tree have what those that were in a model before are known to have. `before` lists the
/// entities of the model as it was.
fn check_columns(
    world: &World,
    index: u32,
    blueprint: &Blueprint,
    entities: &[Entity],
    before: &[(Entity, Arc<Contents>)],
) -> Result<(), SignError> {
    for (position, &entity) in entities.iter().enumerate() {
        let removed = |component: String| {
            let at = &blueprint.positions[position];
            let path = if at.path.is_empty() { at.module.type_name() } else { &at.path };
            SignError::Removed { index, path: path.to_owned(), component }
        };
        let Some(columned) = world.get::<Columned>(entity) else {
            match before.iter().any(|&(known, _)| known == entity) {
                true => return Err(removed("Columned".to_owned())),
                false => continue,
            }
        };
        let contents = columned.contents();
        for (role, place, ty) in contents.columns() {
            if row(world, entity, ColumnKey::new(role, place, &ty)).is_none() {
                let among =
                    if role == Role::Buffer { &contents.buffers } else { &contents.parameters };
                let name = among.get(place).map_or("", |of| of.name.as_str());
                return Err(removed(format!("{role} of '{name}'")));
            }
        }
    }
    Ok(())
}

/// Gives a group the companions that the parameters of a model bring along: its own models may not have learned yet.
fn make_room(
    world: &mut World,
    population: Entity,
    number: usize,
    entities: &[Entity],
    moves: &Moves,
) {
    let Some(found) = world.get::<Population>(population) else { return };
    let positions = entities.iter().zip(&found.groups()[number].contents).enumerate();
    let brought = positions.flat_map(|(position, (&entity, to))| {
        let from = world.get::<Columned>(entity);
        let kept = from.map_or(Vec::new(), |from| kept_companions(from.contents(), to));
        kept.into_iter().map(move |companion| (position, companion))
    });
    let is_known = |&(_, (role, _)): &(usize, (Role, usize))| found.companions().contains(&role);
    let brought: Vec<_> = brought.filter(is_known).collect();
    let joining = moves.joined.get(&number).map_or(&[][..], Vec::as_slice);
    access::widen(world, population, number, joining, &brought);
}

/// Says whether a member's entities are those of the group's lists, and their columns as they should be.
fn is_settled(world: &World, group: &Group, member: usize, entities: &[Entity]) -> bool {
    let positions = group.modules.iter().zip(&group.contents).zip(entities);
    positions.into_iter().all(|((modules, contents), &entity)| {
        let columned = world.get::<Columned>(entity);
        modules[member] == entity
            && columned.is_some_and(|columned| Arc::ptr_eq(columned.contents(), contents))
    })
}

fn open_group(
    world: &mut World,
    population: Entity,
    blueprint: Blueprint,
) -> Result<usize, SignError> {
    room::check(&blueprint, 1)?;
    let found = world.get::<Population>(population);
    let roles = found.map(|found| found.companions().to_vec()).unwrap_or_default();
    let group = world.resource_mut::<Blueprints>().open_group(blueprint, &roles, KEEPER);
    let group = group.ok_or(SignError::TooManyModules)?;
    let found = world.get_mut::<Population>(population);
    let mut found = found.ok_or(SignError::NotAPopulation(population))?;
    found.groups_mut(KEEPER).push(group);
    Ok(found.groups().len() - 1)
}
