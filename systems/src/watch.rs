//! [`Watch`]: whether somebody wrote to some columns since they were last looked at.

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::TableId;

/// Some columns, and when they were looked at. One comparison a column, however many rows it has.
///
/// A column without a summary tick (a component type that does not declare
/// `#[component(summary_tick)]`) counts as written to.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    columns: Vec<(TableId, ComponentId)>,
    looked: Option<Tick>,
}

impl Watch {
    /// Starts over with these columns, looked at now.
    pub(crate) fn reset(
        &mut self,
        world: &mut World,
        columns: impl IntoIterator<Item = (TableId, ComponentId)>,
    ) {
        self.columns.clear();
        self.columns.extend(columns);
        self.columns.sort_unstable();
        self.columns.dedup();
        self.look(world);
    }

    /// Says that everything written so far has been seen.
    pub(crate) fn look(&mut self, world: &mut World) {
        self.looked = Some(world.increment_change_tick());
    }

    /// Says whether something was written since the last look, or never looked at.
    pub(crate) fn is_stale(&self, world: &World) -> bool {
        let Some(looked) = self.looked else { return true };
        let now = world.read_change_tick();
        let tables = &world.storages().tables;
        self.columns.iter().any(|&(table, component)| {
            let tick = tables.get(table).and_then(|table| table.get_summary_tick(component));
            tick.is_none_or(|tick| tick.get().is_newer_than(looked, now))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Component)]
    #[component(summary_tick)]
    struct Watched(u8);

    #[test]
    fn only_writes_after_the_last_look_count() {
        let mut world = World::new();
        let entity = world.spawn(Watched(0)).id();
        let id = world.component_id::<Watched>().expect("it was just spawned");
        let table = world.entity(entity).archetype().table_id();
        let mut watch = Watch::default();
        assert!(watch.is_stale(&world));
        watch.reset(&mut world, [(table, id)]);
        assert!(!watch.is_stale(&world));
        for value in 1..3 {
            world.entity_mut(entity).get_mut::<Watched>().expect("it has one").0 = value;
            assert!(watch.is_stale(&world));
            watch.look(&mut world);
            assert!(!watch.is_stale(&world));
        }
        world.entity_mut(entity).insert(Watched(9));
        assert!(watch.is_stale(&world));
    }
}
