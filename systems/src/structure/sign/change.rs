//! [`sign`]: looks at the models that changed, and says what is to be done about them.

use std::collections::HashMap;
use std::sync::Arc;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use neurarch_components::column::row;
use neurarch_components::hook::Hooks;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registry::{Change, ModuleTypes};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Columned, Model};
use neurarch_kernels::ir::program::Role;

use super::look::{Signed, look};
use crate::errors::{SignError, room};
use crate::structure::live;
use crate::structure::live::Live;
use crate::structure::membership::{is_member, place};
use crate::structure::refit::kept_companions;
use crate::structure::root::root_of;

/// What is to be done about the models of a population that changed: [`apply`](super::apply::apply) does it.
#[derive(Debug, Default)]
pub(super) struct ChangeSet {
    /// What was told of modules and seen here, and how much of it is not this population's affair.
    pub(super) told: Told,
    /// The roots that were looked at.
    pub(super) looked_at: usize,
    /// Roots of models that run apart from now on: modules of theirs have hooks that watch them run.
    pub(super) hooked: Vec<Entity>,
    /// Structures that no model of the population had before.
    pub(super) opened: Vec<Blueprint>,
    /// Companions that members of a group need for others to join, by the group's place in the list.
    pub(super) columns: Vec<(usize, Companion)>,
    /// Who leaves which group, and who joins which.
    pub(super) moves: Vec<Move>,
    /// Roots of what is no model, and why.
    pub(super) refused: Vec<(Entity, SignError)>,
}

/// A position, and a companion there: its role, and the place of the parameter that has it.
pub(super) type Companion = (usize, (Role, usize));

/// What was told of modules.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How many changes were on the list.
    pub(super) seen: usize,
    /// Those of them that are about others than members of the population.
    pub(super) others: Vec<Change>,
    /// Layer components that lose their place to one that came later: one module, one layer component.
    pub(super) replaced: Vec<(Entity, Vec<ComponentId>)>,
    /// The layer component that a module was given last.
    last: HashMap<Entity, ComponentId>,
}

/// A model that moves to a group, or gets other entities in its own.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) root: Entity,
    pub(super) index: u32,
    /// The group that it leaves, and its place there.
    pub(super) from: Option<(usize, usize)>,
    pub(super) to: Destination,
    /// By position of the group that it joins.
    pub(super) entities: Vec<Entity>,
    /// What these held before, if they were part of the model.
    pub(super) old: Vec<Option<Arc<Contents>>>,
    /// Entities that are part of the model no more, and the numbers of their positions.
    pub(super) gone: Vec<(Entity, u32)>,
}

/// The group that a model joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// One that the population has.
    Group(usize),
    /// One of a structure that is opened.
    Opened(usize),
}

/// What signing one model after the other needs.
struct Signer<'w> {
    world: &'w World,
    population: &'w Population,
    blueprints: &'w Blueprints,
    /// The places of structures in [`ChangeSet::opened`], by their hash.
    opened: HashMap<u64, Vec<usize>>,
    changes: ChangeSet,
}

/// Finds what changed in a population, whose resources are known to be there and whose groups follow its models. The
/// world stays as it is; `signed` says afterwards that everything so far was seen.
pub(super) fn sign(world: &World, population: Entity, signed: &mut Signed) -> ChangeSet {
    let mut roots = Vec::new();
    let told = told(world, population, &mut roots);
    let mut changes = ChangeSet { told, ..ChangeSet::default() };
    let found = world.get::<Population>(population);
    let (Some(found), Some(blueprints)) = (found, world.get_resource::<Blueprints>()) else {
        return changes;
    };
    look(world, population, signed, &mut roots);
    roots.extend(found.unsigned());
    if roots.is_empty() {
        return changes;
    }
    roots.sort_unstable_by_key(|&root| (world.get::<Model>(root).map(|model| model.index), root));
    roots.dedup();
    changes.looked_at = roots.len();
    let opened = HashMap::new();
    let mut signer = Signer { world, population: found, blueprints, opened, changes };
    for root in roots {
        if let Err(error) = signer.sign(root) {
            signer.changes.refused.push((root, error));
        }
    }
    signer.changes
}

/// Returns whether signing would give a model other entities or other parameters than it has, or find that it is none.
pub(crate) fn would_change(world: &World, population: Entity, root: Entity) -> bool {
    let found = world.get::<Population>(population);
    let (Some(found), Some(blueprints)) = (found, world.get_resource::<Blueprints>()) else {
        return true;
    };
    let told = told(world, population, &mut Vec::new());
    let changes = ChangeSet { told, ..ChangeSet::default() };
    let opened = HashMap::new();
    let mut signer = Signer { world, population: found, blueprints, opened, changes };
    signer.sign(root).is_err() || !signer.changes.moves.is_empty()
}

/// Reads what was told of modules of this population, and lists their roots.
fn told(world: &World, population: Entity, roots: &mut Vec<Entity>) -> Told {
    let mut told = Told::default();
    let Some(types) = world.get_resource::<ModuleTypes>() else { return told };
    told.seen = types.changed().len();
    for &change in types.changed() {
        match root_of(world, change.entity) {
            Some((root, of)) if of == population && is_member(world, root) => {
                roots.push(root);
                if let Some(id) = change.inserted {
                    told.last.insert(change.entity, id);
                }
            }
            Some(_) => told.others.push(change),
            None => {}
        }
    }
    for (&entity, &last) in &told.last {
        let Ok(found) = world.get_entity(entity) else { continue };
        let others = found.archetype().components().iter().copied();
        let others: Vec<_> = others.filter(|&id| id != last && types.contains(id)).collect();
        if !others.is_empty() && found.contains_id(last) {
            told.replaced.push((entity, others));
        }
    }
    told
}

impl Signer<'_> {
    /// Signs one model: if its structure or its entities changed, it is to move to the group of its blueprint.
    fn sign(&mut self, root: Entity) -> Result<(), SignError> {
        let Signer { world, population: found, .. } = *self;
        let Some(&model) = world.get::<Model>(root) else { return Ok(()) };
        let Live { blueprint, entities } =
            live::read(world, root, &model, &self.changes.told.last)?;
        self.mark_hooked(root, &entities);
        let place = place(found, root, &model);
        let before: Vec<(Entity, u32)> = place.map_or(Vec::new(), |(group, member)| {
            let group = &found.groups()[group];
            let modules = group.modules.iter().map(|modules| modules[member]);
            modules.zip(group.contents.iter().map(|contents| contents.number)).collect()
        });
        check_columns(world, model.index, &blueprint, &entities, &before)?;
        let known = self.blueprints.find(&blueprint);
        let known = found.groups().iter().position(|group| Some(group.blueprint) == known);
        if let (Some((group, member)), Some(known)) = (place, known)
            && group == known
            && is_settled(world, &found.groups()[group], member, &entities)
        {
            return Ok(());
        }
        let to = match known {
            Some(number) => {
                self.make_room(number, &entities);
                Destination::Group(number)
            }
            // It has all companions that parameters of the population have.
            None => Destination::Opened(self.open(blueprint)?),
        };
        let old = entities.iter().map(|&entity| {
            let was_here = place.is_none() || before.iter().any(|&(other, _)| other == entity);
            let columned = world.get::<Columned>(entity).filter(|_| was_here);
            columned.map(|columned| columned.contents().clone())
        });
        let old = old.collect();
        let gone = before.into_iter().filter(|(gone, _)| !entities.contains(gone)).collect();
        let index = model.index;
        self.changes.moves.push(Move { root, index, from: place, to, entities, old, gone });
        Ok(())
    }

    /// Has a model run apart if a module of it has hooks that watch it run.
    fn mark_hooked(&mut self, root: Entity, modules: &[Entity]) {
        let mut hooks = modules.iter().filter_map(|&module| self.world.get::<Hooks>(module));
        if hooks.any(Hooks::watch_passes)
            && self.world.get::<Mode>(root).is_some_and(|mode| !mode.hooked)
        {
            self.changes.hooked.push(root);
        }
    }

    /// Gives a group the companions that the parameters of a model bring along: its own models may not have learned
    /// yet.
    fn make_room(&mut self, number: usize, entities: &[Entity]) {
        let contents = &self.population.groups()[number].contents;
        for (position, (&entity, to)) in entities.iter().zip(contents).enumerate() {
            let Some(from) = self.world.get::<Columned>(entity) else { continue };
            for companion in kept_companions(from.contents(), to) {
                let column = (number, (position, companion));
                if self.population.companions().contains(&companion.0)
                    && !to.companions.contains(&companion)
                    && !self.changes.columns.contains(&column)
                {
                    self.changes.columns.push(column);
                }
            }
        }
    }

    /// Finds a structure among those that are opened, or opens it.
    fn open(&mut self, blueprint: Blueprint) -> Result<usize, SignError> {
        let opened = &mut self.changes.opened;
        let alike = self.opened.entry(blueprint.shape_hash()).or_default();
        if let Some(&known) = alike.iter().find(|&&known| opened[known].is_like(&blueprint)) {
            return Ok(known);
        }
        room::check(&blueprint, 1)?;
        alike.push(opened.len());
        opened.push(blueprint);
        Ok(opened.len() - 1)
    }
}

/// Checks that the modules of a tree have what those that were in a model before are known to have. `before` lists the
/// entities of the model as it was.
fn check_columns(
    world: &World,
    index: u32,
    blueprint: &Blueprint,
    entities: &[Entity],
    before: &[(Entity, u32)],
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
        for (role, place, _) in contents.columns() {
            if row(world, entity, contents.key(role, place)).is_none() {
                let among =
                    if role == Role::Buffer { &contents.buffers } else { &contents.parameters };
                let name = among.get(place).map_or("", |of| of.name.as_str());
                return Err(removed(format!("{role} of '{name}'")));
            }
        }
    }
    Ok(())
}

/// Returns whether a member's entities are those of the group's lists, and their columns as they should be.
fn is_settled(world: &World, group: &Group, member: usize, entities: &[Entity]) -> bool {
    let positions = group.modules.iter().zip(&group.contents).zip(entities);
    positions.into_iter().all(|((modules, contents), &entity)| {
        let columned = world.get::<Columned>(entity);
        modules[member] == entity
            && columned.is_some_and(|columned| Arc::ptr_eq(columned.contents(), contents))
    })
}

#[cfg(test)]
mod tests {
    use neurarch_components::layers::{Linear, Sequential, Tanh};
    use neurarch_kernels::ir::dtype::Dtype;
    use neurarch_kernels::ir::program::Slot;

    use super::*;
    use crate::draw::Draw;
    use crate::structure::sign::apply::apply;
    use crate::structure::{columns, spawn};

    fn spawn(world: &mut World) -> (Entity, Vec<Entity>) {
        let net = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
        let population = spawn::spawn_population(world, &net, 4, 4, 1, Dtype::F32).unwrap();
        (population, world.get::<Population>(population).unwrap().models().to_vec())
    }

    fn below(world: &World, root: Entity, place: usize) -> Entity {
        world.get::<Children>(root).unwrap()[place]
    }

    fn look(world: &mut World, population: Entity) -> ChangeSet {
        let mut signed = Signed::take(world, population);
        let changes = sign(world, population, &mut signed);
        signed.put_back(world, population);
        changes
    }

    fn groups(world: &World, population: Entity) -> Vec<(Vec<u32>, Vec<Vec<Entity>>)> {
        let groups = world.get::<Population>(population).unwrap().groups();
        groups.iter().map(|group| (group.members.clone(), group.modules.clone())).collect()
    }

    #[test]
    fn a_change_set_says_who_goes_where_and_nothing_goes_before_it_is_applied() {
        let mut world = World::new();
        let (population, roots) = spawn(&mut world);
        assert!(look(&mut world, population).moves.is_empty());
        let head = Linear::new(3, 1).without_bias();
        for &root in &roots[1..3] {
            let module = below(&world, root, 2);
            world.entity_mut(module).insert(head);
        }
        world.get_mut::<Children>(roots[3]).unwrap().swap(0, 1);
        let module = below(&world, roots[0], 2);
        world.entity_mut(module).insert(Linear::new(3, 1));
        let (before, entities) = (groups(&world, population), world.entities().len());
        let archetypes = world.archetypes().len();
        assert!(would_change(&world, population, roots[3]));
        assert!(!would_change(&world, population, roots[0]));
        let changes = look(&mut world, population);
        assert_eq!(groups(&world, population), before);
        assert_eq!((world.entities().len(), world.archetypes().len()), (entities, archetypes));
        assert_eq!(changes.opened.len(), 2, "one structure of two models, and one of another");
        let moves = changes.moves.iter().map(|change| (change.index, change.from, change.to));
        let expected = [
            (1, Some((0, 1)), Destination::Opened(0)),
            (2, Some((0, 2)), Destination::Opened(0)),
            (3, Some((0, 3)), Destination::Opened(1)),
        ];
        assert!(moves.eq(expected));
        assert!(changes.moves.iter().all(|change| change.gone.is_empty()));
        assert!(changes.columns.is_empty() && changes.refused.is_empty());
        apply(&mut world, population, changes, Draw::First).unwrap();
        let members = groups(&world, population).into_iter().map(|(members, _)| members);
        assert!(members.eq([vec![0], vec![1, 2], vec![3]]));
        assert!(roots.iter().all(|&root| !would_change(&world, population, root)));
        assert_eq!(look(&mut world, population).looked_at, 0);
    }

    #[test]
    fn a_group_gets_the_columns_that_a_model_brings_and_the_model_keeps_its_numbers() {
        let mut world = World::new();
        let (population, roots) = spawn(&mut world);
        let edit = |world: &mut World, root: Entity| {
            let module = below(world, root, 1);
            world.entity_mut(module).remove::<Tanh>();
            look(world, population)
        };
        let changes = edit(&mut world, roots[1]);
        apply(&mut world, population, changes, Draw::First).unwrap();
        // The first group learns, the other one does not.
        let (group, member, blueprint) = crate::structure::spot::place(&world, roots[0]).unwrap();
        let weight = blueprint.parameter(1, "weight").unwrap();
        let slot = Slot { role: Role::Gradient, ..weight };
        let (entity, key) = group.home(&slot, member);
        assert!(columns::add_columns(&mut world, population, 0, std::slice::from_ref(&slot)));
        neurarch_components::column::row_mut(&mut world, entity, key).unwrap().fill(7);
        let changes = edit(&mut world, roots[0]);
        assert!(changes.opened.is_empty());
        assert_eq!(changes.columns, [(1, (1, (Role::Gradient, 0)))]);
        let other = below(&world, roots[1], 0);
        assert!(row(&world, other, key).is_none());
        apply(&mut world, population, changes, Draw::First).unwrap();
        assert!(row(&world, other, key).unwrap().iter().all(|&byte| byte == 0));
        let numbers = &row(&world, entity, key).unwrap()[..slot.ty.size_bytes()];
        assert!(numbers.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn what_is_no_model_is_refused_and_waits() {
        let mut world = World::new();
        let (population, roots) = spawn(&mut world);
        let module = below(&world, roots[2], 0);
        world.entity_mut(module).remove::<Columned>();
        let changes = look(&mut world, population);
        assert_eq!(changes.refused.len(), 1);
        assert!(changes.moves.is_empty() && would_change(&world, population, roots[2]));
        let error = apply(&mut world, population, changes, Draw::First).unwrap_err();
        assert_eq!(error.to_string(), "model 2, 0: its Columned was removed");
        assert_eq!(world.get::<Population>(population).unwrap().unsigned(), [roots[2]]);
        assert_eq!(look(&mut world, population).looked_at, 1);
    }
}
