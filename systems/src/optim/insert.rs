//! Gives the modules of a population components: optimizers, settings that are scalar slots, the host's
//! own.

use bevy_ecs::prelude::*;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;

use crate::errors::AccessError;
use crate::errors::SignError;
use crate::optim;
use crate::structure::optimizers::Optimizers;
use crate::structure::sign;

/// Why components cannot be inserted. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// There is no such population.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A model of the population is none any more.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A model has no such module; torch's words.
    #[error("model {model}: `{module}` has no module '{path}'")]
    NoSuchModule {
        /// The model's index.
        model: u32,
        /// The root module's type.
        module: &'static str,
        /// The dotted path that was asked for.
        path: String,
    },
}

/// Inserts a component on the module at `path` (the root if it is empty) of every model: `value` gives it
/// by the model's index.
///
/// An optimizer takes the place of another one that the module has; one of another type begins without state, as a new
/// optimizer of torch does.
///
/// # Errors
///
/// [`InsertError`].
pub fn insert_with<C: Component>(
    world: &mut World,
    population: Entity,
    path: &str,
    value: impl Fn(usize) -> C,
) -> Result<(), InsertError> {
    let mut modules = Vec::new();
    sign::refresh(world, population)?;
    let found = world.get::<Population>(population).ok_or(SignError::NotAPopulation(population))?;
    for group in found.groups() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let (Some(blueprint), Some(&model)) = (blueprint, group.members.first()) else { continue };
        // What stands there under a second name belongs to the owner.
        let position = blueprint.below(0, path).map_err(|_| InsertError::NoSuchModule {
            model,
            module: blueprint.positions[0].module.type_name(),
            path: path.to_owned(),
        })?;
        let of_members = group.modules[0].iter().zip(&group.modules[position]);
        modules.extend(group.members.iter().zip(of_members).map(|(&i, (&root, &e))| (i, root, e)));
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
