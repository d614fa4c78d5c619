//! Looks for models that changed without a word: by tables and their numbers of entities, and by ticks of `Children`.

use std::collections::HashMap;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::ComponentId;
use bevy_ecs::entity::EntityHashSet;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::{Table, TableId};
use neurarch_components::column::Columns;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Columned, Model};

use crate::storage::bind::changed_since;
use crate::storage::write_detector::is_long_ago;
use crate::structure::membership::{Known, is_member, place};
use crate::structure::root::root_of;

/// What signing remembers of a population from one time to the next; a component of its entity.
#[derive(Component, Debug, Default)]
pub struct Signed {
    /// When the children were last looked at.
    looked: Option<Tick>,
    groups: Vec<SeenGroup>,
}

/// Where the modules of a group lay when they were last looked for.
#[derive(Debug)]
struct SeenGroup {
    /// The number of the first position, which no other group has.
    number: u32,
    positions: Vec<SeenPosition>,
}

/// Where the modules of a position lay that had all that they need.
#[derive(Debug)]
struct SeenPosition {
    tables: Vec<Seen>,
    /// How many entities the tables have that are no modules of the position, and do not await signing: others with its
    /// markers.
    others: usize,
}

/// A table in which modules lie.
#[derive(Clone, Copy, Debug)]
struct Seen {
    table: TableId,
    has_children: bool,
}

/// Says that everything that happened so far is known: after models were spawned.
pub(crate) fn look_away(world: &mut World, population: Entity) {
    let now = world.increment_change_tick();
    if let Some(mut signed) = world.get_mut::<Signed>(population) {
        signed.looked = Some(now);
    }
}

impl Signed {
    /// Returns when the children were last looked at.
    pub(crate) fn looked(&self) -> Option<Tick> {
        self.looked
    }

    /// Lists the modules whose children somebody wrote to after `last`, in the tables where they lay.
    fn parents_changed(
        &self,
        world: &World,
        (last, now): (Tick, Tick),
    ) -> impl Iterator<Item = Entity> {
        let positions = self.groups.iter().flat_map(|group| &group.positions);
        let parents = positions.flat_map(|at| &at.tables).filter(|seen| seen.has_children);
        let children = world.component_id::<Children>();
        let of_table = move |seen: &Seen| changed_since(world, seen.table, children?, last, now);
        parents.filter_map(of_table).flatten()
    }

    /// Takes what is remembered of a population out of the world.
    pub(super) fn take(world: &mut World, population: Entity) -> Signed {
        let known = world.get_mut::<Signed>(population);
        known.map(|mut signed| std::mem::take(&mut *signed)).unwrap_or_default()
    }

    /// Puts it back: what is changed from now on was not seen.
    pub(super) fn put_back(self, world: &mut World, population: Entity) {
        world.increment_change_tick();
        if let Ok(mut entity) = world.get_entity_mut(population) {
            match entity.get_mut::<Signed>() {
                Some(mut known) => *known = self,
                None => drop(entity.insert(self)),
            }
        }
    }
}

/// How many entities of each table, by its number, await signing: copies of modules have the markers of their
/// originals, and are in no group yet.
#[derive(Debug, Default)]
struct Waiting(HashMap<u32, usize>);

impl Waiting {
    /// Counts the modules that signing was told of, and those of models that wait to be signed again.
    fn of(world: &World, population: &Population) -> Waiting {
        let mut seen = EntityHashSet::default();
        let mut entities = population.unsigned().to_vec();
        let mut waiting = Waiting::default();
        while let Some(entity) = entities.pop() {
            if seen.insert(entity) {
                entities.extend(world.get::<Children>(entity).into_iter().flatten());
                waiting.count(world, population, entity);
            }
        }
        let told = world.get_resource::<ModuleTypes>().map_or(&[][..], ModuleTypes::changed);
        for entity in told.iter().map(|change| change.entity) {
            if seen.insert(entity) {
                waiting.count(world, population, entity);
            }
        }
        waiting
    }

    fn count(&mut self, world: &World, population: &Population, entity: Entity) {
        let columned = world.get::<Columned>(entity);
        let contents = columned.map(Columned::contents).filter(|contents| contents.number != 0);
        let Some(contents) = contents else { return };
        let is_listed = || {
            let (root, _) = root_of(world, entity)?;
            let (group, member) = place(population, root, world.get::<Model>(root)?)?;
            let modules = population.groups()[group].modules.get(contents.position)?;
            Some(modules.get(member) == Some(&entity))
        };
        if is_listed() != Some(true)
            && let Ok(location) = world.entities().get_spawned(entity)
        {
            *self.0.entry(location.table_id.as_u32()).or_default() += 1;
        }
    }

    fn in_table(&self, table: TableId) -> usize {
        self.0.get(&table.as_u32()).copied().unwrap_or_default()
    }
}

/// Finds the models whose modules lost or got children, whose children are in another order, or whose
/// modules lost what makes them modules of this population.
pub(super) fn look(
    world: &World,
    population: Entity,
    signed: &mut Signed,
    roots: &mut Vec<Entity>,
) {
    let now = world.read_change_tick();
    let Some(found) = world.get::<Population>(population) else { return };
    let waiting = Waiting::of(world, found);
    signed.groups.truncate(found.groups().len());
    for (place, group) in found.groups().iter().enumerate() {
        // Groups keep their order, and some are taken out.
        let mut after = signed.groups.iter().skip(place);
        let known = after.position(|seen| seen.is_of(group)).map(|after| place + after);
        match known {
            Some(known) if signed.groups[known].is_right(world, group, &waiting) => {
                signed.groups.swap(place, known);
            }
            _ => {
                let seen = see(world, group, &waiting, roots);
                match known {
                    Some(known) => {
                        signed.groups[known] = seen;
                        signed.groups.swap(place, known);
                    }
                    None => signed.groups.insert(place.min(signed.groups.len()), seen),
                }
            }
        }
    }
    signed.groups.truncate(found.groups().len());
    let last = signed.looked.unwrap_or(Tick::new(now.get().wrapping_sub(Tick::MAX.get())));
    let root = |parent: Entity| {
        let (root, of) = root_of(world, parent)?;
        (of == population && is_member(world, root)).then_some(root)
    };
    roots.extend(signed.parents_changed(world, (last, now)).filter_map(root));
    signed.looked = Some(now);
}

/// Returns whether there is nothing to look at, which costs a comparison for each table and one for each module with
/// children: signing was told of nobody, nobody waits to be signed, all modules lie where they lay, and nobody wrote to
/// their children.
pub(super) fn is_quiet(world: &World, population: Entity, known: Known<'_>) -> bool {
    let Known { population: found, types, .. } = known;
    let Some(signed) = world.get::<Signed>(population) else { return false };
    let (Some(looked), now) = (signed.looked, world.read_change_tick()) else { return false };
    let (groups, waiting) = (found.groups(), Waiting::default());
    let mut all = signed.groups.iter().zip(groups);
    found.is_settled()
        && types.changed().is_empty()
        && signed.groups.len() == groups.len()
        && all.all(|(seen, group)| seen.is_of(group) && seen.is_right(world, group, &waiting))
        && !is_long_ago(looked, now)
        && signed.parents_changed(world, (looked, now)).next().is_none()
}

impl SeenGroup {
    /// Returns whether this is about that group.
    fn is_of(&self, group: &Group) -> bool {
        group.contents.first().is_some_and(|at| at.number == self.number)
    }

    /// Returns whether the modules of the group lie where they lay, as far as numbers of entities tell: who comes by
    /// spawning or signing, or goes with its model, changes as many members as rows.
    fn is_right(&self, world: &World, group: &Group, waiting: &Waiting) -> bool {
        let positions = self.positions.iter().zip(&group.modules);
        self.positions.len() == group.modules.len()
            && positions.into_iter().all(|(at, modules)| {
                at.count(world, waiting).is_some_and(|count| count == modules.len() + at.others)
            })
    }
}

impl SeenPosition {
    /// Counts the entities of the tables that do not await signing.
    fn count(&self, world: &World, waiting: &Waiting) -> Option<usize> {
        let tables = &world.storages().tables;
        let counts = self.tables.iter().map(|seen| {
            let count = tables.get(seen.table)?.entity_count() as usize;
            count.checked_sub(waiting.in_table(seen.table))
        });
        counts.sum()
    }
}

/// Lists the tables that a group's modules lie in, and the roots of modules that are not as they were.
fn see(world: &World, group: &Group, waiting: &Waiting, roots: &mut Vec<Entity>) -> SeenGroup {
    let number = group.contents.first().map_or(0, |contents| contents.number);
    let children = world.component_id::<Children>();
    let columned = world.component_id::<Columned>();
    let blueprint = world.resource::<Blueprints>().get(group.blueprint);
    let at = blueprint.into_iter().flat_map(|blueprint| &blueprint.positions);
    let positions = at.zip(&group.contents).zip(&group.modules).map(|((at, contents), modules)| {
        let has =
            |table: &Table, id: Option<ComponentId>| id.is_some_and(|id| table.has_column(id));
        let is_parent = !at.children.is_empty();
        let mut tables: Vec<(Seen, bool)> = Vec::new();
        let mut fits = 0;
        for (&module, &root) in modules.iter().zip(&group.modules[0]) {
            let Ok(location) = world.entities().get_spawned(module) else {
                roots.push(root);
                continue;
            };
            let id = location.table_id;
            let known = tables.iter().rev().find(|(seen, _)| seen.table == id);
            let (_, is_fit) = known.copied().unwrap_or_else(|| {
                let table = world.storages().tables.get(id);
                let has_children = table.is_some_and(|table| has(table, children));
                let is_fit = table.is_some_and(|table| {
                    let mut columns = contents.keys().map(|key| Columns::find(world, key));
                    columns.all(|id| has(table, id))
                        && has(table, columned)
                        && (has_children || !is_parent)
                });
                tables.push((Seen { table: id, has_children }, is_fit));
                tables[tables.len() - 1]
            });
            match is_fit {
                true => fits += 1,
                false => roots.push(root),
            }
        }
        // Who comes to a table that does not fit is missed in the others: another that leaves it must not hide that.
        let tables = tables.into_iter().filter(|&(_, is_fit)| is_fit).map(|(seen, _)| seen);
        let mut seen = SeenPosition { tables: tables.collect(), others: 0 };
        seen.others = seen.count(world, waiting).unwrap_or(0).saturating_sub(fits);
        seen
    });
    SeenGroup { number, positions: positions.collect() }
}

#[cfg(test)]
mod tests {
    use neurarch_components::layers::{Linear, Sequential, Tanh};
    use neurarch_kernels::ir::dtype::Dtype;

    use super::*;
    use crate::structure::membership::check;
    use crate::structure::sign::refresh;
    use crate::structure::spawn::spawn_population;

    #[test]
    fn signing_is_quiet_until_something_happens_and_looks_again_before_ticks_start_over() {
        let mut world = World::new();
        let net = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
        let population = spawn_population(&mut world, &net, 3, 3, 1, Dtype::F32).unwrap();
        let root = world.get::<Population>(population).unwrap().models()[1];
        let is_quiet = |world: &World| {
            let known = check(world, population).unwrap();
            super::is_quiet(world, population, known)
        };
        let looked = |world: &World| world.get::<Signed>(population).and_then(Signed::looked);
        refresh(&mut world, population).unwrap();
        assert!(is_quiet(&world));
        let before = looked(&world);
        refresh(&mut world, population).unwrap();
        assert_eq!(looked(&world), before, "nothing was looked at");

        let edits: [fn(&mut World, Entity); 3] = [
            |world, root| world.get_mut::<Children>(root).unwrap().swap(0, 1),
            |world, root| {
                let linear = world.get::<Children>(root).unwrap()[1];
                world.entity_mut(linear).insert(Linear::new(2, 3));
            },
            |world, root| {
                world.spawn((Tanh, ChildOf(root)));
            },
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            edit(&mut world, root);
            assert!(!is_quiet(&world), "edit {number}");
            // The first one moves the model to another group, the second one sees where its modules lie now.
            (0..2).for_each(|_| refresh(&mut world, population).unwrap());
            assert!(is_quiet(&world), "edit {number}");
        }

        let now = world.read_change_tick();
        let long_ago = Tick::new(now.get().wrapping_sub(1 << 30));
        world.get_mut::<Signed>(population).unwrap().looked = Some(long_ago);
        assert!(!is_quiet(&world));
        refresh(&mut world, population).unwrap();
        assert_ne!(looked(&world), Some(long_ago));
        assert!(is_quiet(&world));
    }
}
