//! [`Binders`]: where the rows of whole groups were, for those who visit all models now and then.

use bevy_ecs::prelude::*;

use crate::storage::bind::Binder;

/// Where the rows of a population's groups were when their columns were last bound as a whole; a component of its
/// entity.
#[derive(Component, Default)]
pub(crate) struct Binders(Vec<Binder>);

impl Binders {
    /// Takes out what is known of a group.
    pub(crate) fn take(world: &mut World, population: Entity, group: usize) -> Binder {
        let places = world.get_mut::<Binders>(population);
        let binder = places.and_then(|mut places| Some(std::mem::take(places.0.get_mut(group)?)));
        binder.unwrap_or_default()
    }

    /// Puts it back for the next time.
    pub(crate) fn put(world: &mut World, population: Entity, group: usize, binder: Binder) {
        let Ok(mut entity) = world.get_entity_mut(population) else { return };
        let mut places = match entity.get_mut::<Binders>() {
            Some(mut places) => std::mem::take(&mut places.0),
            None => Vec::new(),
        };
        if places.len() <= group {
            places.resize_with(group + 1, Binder::default);
        }
        places[group] = binder;
        entity.insert(Binders(places));
    }
}
