//! [`Copies`]: components of many entities, copied in memory and put back.

use core::any::TypeId;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;

/// Components of one type of many entities, each at a place of its own. What no file could hold is copied as well, such as
/// functions of schedulers.
pub trait Copies: Send + Sync {
    /// Makes room for at least so many places.
    fn make_room(&mut self, places: usize);

    /// Returns whether the entity at a place had such a component.
    fn has(&self, place: usize) -> bool;

    /// Copies the component of an entity, or that it has none. There is room for the place.
    fn copy(&mut self, place: usize, entity: EntityRef<'_>);

    /// Makes the component of an entity what it was when it was copied; entities in it are mapped.
    fn put(&self, place: usize, entity: &mut EntityWorldMut<'_>, mapper: &mut dyn EntityMapper);
}

/// Makes [`Copies`] of a type, without any place.
pub type MakeCopies = fn() -> Box<dyn Copies>;

/// What stays as an entity has it, whatever is put there.
type Adopt<T> = fn(&mut T, Option<&T>);

/// See [`Copies`].
struct CopiesOf<T> {
    values: Vec<Option<T>>,
    adopt: Adopt<T>,
}

impl<T: Component + Clone> Copies for CopiesOf<T> {
    fn make_room(&mut self, places: usize) {
        if self.values.len() < places {
            self.values.resize_with(places, || None);
        }
    }

    fn has(&self, place: usize) -> bool {
        self.values.get(place).is_some_and(Option::is_some)
    }

    fn copy(&mut self, place: usize, entity: EntityRef<'_>) {
        match (&mut self.values[place], entity.get::<T>()) {
            (Some(old), Some(new)) => old.clone_from(new),
            (old, new) => *old = new.cloned(),
        }
    }

    fn put(
        &self,
        place: usize,
        entity: &mut EntityWorldMut<'_>,
        mut mapper: &mut dyn EntityMapper,
    ) {
        let Some(mut value) = self.values.get(place).cloned().flatten() else {
            entity.remove::<T>();
            return;
        };
        T::map_entities(&mut value, &mut mapper);
        (self.adopt)(&mut value, entity.get());
        entity.insert(value);
    }
}

/// Makes copies of a type, of which nothing is special.
pub(super) fn copies_of<T: Component + Clone>() -> Box<dyn Copies> {
    Box::new(CopiesOf::<T> { values: Vec::new(), adopt: |_, _| () })
}

/// Makes copies of a type of which something stays as an entity has it.
pub(super) fn adopting<T: Component + Clone>(adopt: Adopt<T>) -> Box<dyn Copies> {
    Box::new(CopiesOf { values: Vec::new(), adopt })
}

/// A component type that can be copied.
#[derive(Clone, Copy, Debug)]
pub struct CopiedType {
    /// The component's id in the world that this was registered in.
    pub id: ComponentId,
    /// The type.
    pub type_id: TypeId,
    /// Makes copies.
    pub make: MakeCopies,
}
