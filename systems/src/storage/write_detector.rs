//! [`WriteDetector`]: whether somebody wrote to some columns of a group, or moved its entities, since they were
//! last looked at.
//!
//! Of a few members of a group their own rows are looked at, of all of it one mark a column.

use std::collections::HashMap;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use neurarch_components::population::group::Group;

use crate::errors::BindError;
use crate::storage::bind::{FEW, Placement};

/// Some columns of a group's positions, and when they were looked at. For all members, one comparison a column, and
/// one of the lists of entities a position, whatever the columns hold; for few, one a column and member.
///
/// A column without a summary tick (a component type that does not declare
/// `#[component(summary_tick)]`) counts as written to.
#[derive(Debug, Default)]
pub(crate) struct WriteDetector {
    positions: Vec<WatchedPosition>,
    looked: Option<Tick>,
}

#[derive(Debug)]
struct WatchedPosition {
    position: usize,
    whose: Whose,
    columns: Vec<ComponentId>,
}

/// Whose rows are watched.
#[derive(Debug)]
enum Whose {
    /// Those of all members of the group, which lie there.
    All(Placement),
    /// Those of these entities.
    Few(Vec<Entity>),
}

/// A look that is so many ticks ago counts as none: ticks start over in the end, and what was written since would seem to be
/// written before it.
const LONG_AGO: u32 = 1 << 30;

/// Returns whether a look at tick `looked` is too long ago to go by.
pub(crate) fn is_long_ago(looked: Tick, now: Tick) -> bool {
    now.get().wrapping_sub(looked.get()) >= LONG_AGO
}

impl WriteDetector {
    /// Finds out where the columns of all members lie; they have yet to be [looked at](WriteDetector::look).
    pub(crate) fn of(
        world: &World,
        group: &Group,
        columns: impl IntoIterator<Item = (usize, ComponentId)>,
    ) -> WriteDetector {
        let all = |position: usize| {
            let mut placement = Placement::default();
            // An entity that is gone makes the watch stale, which is right.
            let _ = placement.find(world, &group.modules[position]);
            Whose::All(placement)
        };
        WriteDetector::over(columns, all)
    }

    /// As [`of`](WriteDetector::of), for the members at some places of the group.
    pub(crate) fn of_members(
        world: &World,
        group: &Group,
        places: &[u32],
        columns: impl IntoIterator<Item = (usize, ComponentId)>,
    ) -> WriteDetector {
        if places.len() * FEW > group.members.len() {
            return WriteDetector::of(world, group, columns);
        }
        let few = |position: usize| {
            let modules = &group.modules[position];
            Whose::Few(places.iter().map(|&place| modules[place as usize]).collect())
        };
        WriteDetector::over(columns, few)
    }

    fn over(
        columns: impl IntoIterator<Item = (usize, ComponentId)>,
        whose: impl Fn(usize) -> Whose,
    ) -> WriteDetector {
        let mut positions: Vec<WatchedPosition> = Vec::new();
        let mut places = HashMap::new();
        for (position, column) in columns {
            let known = *places.entry(position).or_insert_with(|| {
                positions.push(WatchedPosition {
                    position,
                    whose: whose(position),
                    columns: Vec::new(),
                });
                positions.len() - 1
            });
            if !positions[known].columns.contains(&column) {
                positions[known].columns.push(column);
            }
        }
        WriteDetector { positions, looked: None }
    }

    /// Follows members that came, went or moved. Of a few, nothing is followed.
    ///
    /// # Errors
    ///
    /// If one was despawned.
    pub(crate) fn follow(&mut self, world: &World, group: &Group) -> Result<(), BindError> {
        self.positions.iter_mut().try_for_each(|watched| match &mut watched.whose {
            Whose::All(placement) => placement.update(world, &group.modules[watched.position]),
            Whose::Few(_) => Ok(()),
        })
    }

    /// Adds the places of members that were written to since the last look, some twice; says whether all are known: not
    /// if a few are watched, or a column is not there. The watch [follows](WriteDetector::follow) the members.
    pub(crate) fn written(&self, world: &World, places: &mut Vec<u32>) -> bool {
        let Some(looked) = self.looked else { return false };
        let since = (looked, world.read_change_tick());
        !is_long_ago(since.0, since.1)
            && self.positions.iter().all(|watched| match &watched.whose {
                Whose::All(placement) => {
                    let mut columns = watched.columns.iter();
                    columns.all(|&column| placement.written(world, column, since, places))
                }
                Whose::Few(_) => false,
            })
    }

    /// Says that everything written so far has been seen.
    pub(crate) fn look(&mut self, world: &mut World) {
        self.looked = Some(world.increment_change_tick());
    }

    /// [`look`](WriteDetector::look), unless it was never looked.
    pub(crate) fn look_again(&mut self, world: &mut World) {
        if self.looked.is_some() {
            self.look(world);
        }
    }

    /// Returns whether something was written since the last look, or never looked at.
    pub(crate) fn is_stale(&self, world: &World, group: &Group) -> bool {
        let Some(looked) = self.looked else { return true };
        let now = world.read_change_tick();
        if is_long_ago(looked, now) {
            return true;
        }
        let tables = &world.storages().tables;
        self.positions.iter().any(|watched| match &watched.whose {
            Whose::All(placement) => {
                !placement.is_right(world, &group.modules[watched.position])
                    || placement.segments.iter().any(|&table| {
                        watched.columns.iter().any(|&column| {
                            let table = tables.get(table);
                            let tick = table.and_then(|table| table.get_summary_tick(column));
                            tick.is_none_or(|tick| tick.get().is_newer_than(looked, now))
                        })
                    })
            }
            Whose::Few(entities) => entities.iter().any(|&entity| {
                let Ok(entity) = world.get_entity(entity) else { return true };
                watched.columns.iter().any(|&column| {
                    let ticks = entity.get_change_ticks_by_id(column);
                    ticks.is_none_or(|ticks| ticks.is_changed(looked, now))
                })
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use neurarch_components::module::blueprint::Blueprint;

    use super::*;

    #[derive(Component)]
    #[component(summary_tick)]
    struct WatchedPosition(u8);

    #[derive(Component)]
    struct Tag;

    fn group() -> Group {
        let structure = Arc::new(Blueprint { positions: Vec::new() });
        Group::new(Blueprint::UNSIGNED, structure, Vec::new())
    }

    #[test]
    fn a_look_of_long_ago_counts_as_none() {
        let mut world = World::new();
        let mut watch = WriteDetector::default();
        watch.look(&mut world);
        assert!(!watch.is_stale(&world, &group()) && watch.written(&world, &mut Vec::new()));
        watch.looked = Some(Tick::new(world.read_change_tick().get().wrapping_sub(LONG_AGO)));
        assert!(watch.is_stale(&world, &group()) && !watch.written(&world, &mut Vec::new()));
    }

    #[test]
    fn only_what_happens_after_the_last_look_counts() {
        let mut world = World::new();
        let entities: Vec<_> =
            (0..3).map(|number| world.spawn(WatchedPosition(number)).id()).collect();
        let mut group = group();
        (group.members, group.modules) = (vec![0, 1, 2], vec![entities.clone()]);
        let id = world.component_id::<WatchedPosition>().expect("it was just spawned");
        let mut watch = WriteDetector::of(&world, &group, [(0, id)]);
        assert!(watch.is_stale(&world, &group));
        watch.look(&mut world);
        assert!(!watch.is_stale(&world, &group));
        for value in 1..3 {
            world.get_mut::<WatchedPosition>(entities[1]).expect("it has one").0 = value;
            assert!(watch.is_stale(&world, &group));
            watch.look(&mut world);
            assert!(!watch.is_stale(&world, &group));
        }
        world.entity_mut(entities[2]).insert(WatchedPosition(9));
        assert!(watch.is_stale(&world, &group));
        watch.look(&mut world);
        world.entity_mut(entities[0]).insert(Tag);
        assert!(watch.is_stale(&world, &group), "a row moved");
        watch = WriteDetector::of(&world, &group, [(0, id)]);
        watch.look(&mut world);
        world.get_mut::<WatchedPosition>(entities[0]).expect("it has one").0 = 7;
        assert!(watch.is_stale(&world, &group));
    }

    #[test]
    fn a_few_members_are_watched_by_their_own_rows() {
        let mut world = World::new();
        let entities: Vec<_> =
            (0..20).map(|number| world.spawn(WatchedPosition(number)).id()).collect();
        let mut group = group();
        (group.members, group.modules) = ((0..20).collect(), vec![entities.clone()]);
        let id = world.component_id::<WatchedPosition>().expect("it was just spawned");
        let mut watch = WriteDetector::of_members(&world, &group, &[3, 7], [(0, id)]);
        assert!(watch.is_stale(&world, &group));
        watch.look(&mut world);
        world.get_mut::<WatchedPosition>(entities[4]).expect("it has one").0 = 7;
        world.entity_mut(entities[3]).insert(Tag);
        assert!(!watch.is_stale(&world, &group), "neither another's number nor a move");
        world.get_mut::<WatchedPosition>(entities[7]).expect("it has one").0 = 8;
        assert!(watch.is_stale(&world, &group));
        watch.look(&mut world);
        world.entity_mut(entities[3]).insert(WatchedPosition(9));
        assert!(watch.is_stale(&world, &group));
        watch.look(&mut world);
        world.entity_mut(entities[3]).remove::<WatchedPosition>();
        assert!(watch.is_stale(&world, &group));
    }
}
