//! Finds the model that an entity is part of.

use bevy_ecs::prelude::*;
use neurarch_components::population::tree::Model;

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
