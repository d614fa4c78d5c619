//! Gives modules components: optimizers, settings that are scalar slots, the host's own.

use bevy_ecs::prelude::*;

use crate::errors::AccessError;
use crate::optim;
use crate::structure::optimizers::Optimizers;
use crate::structure::target::Target;

/// Inserts a component on modules: `value` gives it by the model's index.
///
/// An optimizer takes the place of another one that the module has; one of another type begins without state, as a new
/// optimizer of torch does.
///
/// # Errors
///
/// If there is no such module. Nothing is inserted then.
pub fn insert_with<C: Component>(
    world: &mut World,
    target: impl Into<Target>,
    value: impl Fn(usize) -> C,
) -> Result<(), AccessError> {
    let mut modules = Vec::new();
    for aim in target.into().aims(world)? {
        let group = aim.group(world);
        let of_place = |&place: &usize| {
            let [root, module] = [0, aim.position].map(|position| group.modules[position][place]);
            (group.members[place], root, module)
        };
        modules.extend(aim.places.iter().map(of_place));
    }
    // What users wrote may panic: nothing is changed then.
    let values: Vec<_> = modules.iter().map(|&(index, ..)| value(index as usize)).collect();
    Optimizers::init(world);
    let id = world.register_component::<C>();
    let others = world.resource::<Optimizers>().others(id);
    for ((_, root, module), value) in modules.into_iter().zip(values) {
        let Ok(entity) = world.get_entity(module) else { continue };
        let is_other = others.iter().any(|&other| entity.contains_id(other));
        if is_other {
            optim::state_dict::forget(world, root, module)?;
        }
        let Ok(mut entity) = world.get_entity_mut(module) else { continue };
        if is_other {
            entity.remove_by_ids(&others);
        }
        entity.insert(value);
    }
    Ok(())
}
