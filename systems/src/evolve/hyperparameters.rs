//! Hyperparameters of a model as its parent has them: optimizers, and settings that are scalar slots.

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::optimizer::DynParamGroups;

use super::EvolveError;
use super::family::{Family, group};
use crate::structure::optimizers::Optimizers;
use OptimizerChange::{Changed, Gone, Kept, Replaced};

/// Gives every model the hyperparameters of another one: the optimizers on its modules, and settings of
/// modules that are scalar slots, such as [`Dropout::p`](neurarch_components::layers::Dropout::p), become
/// those that model `parents[i]` had before.
///
/// With [`overwrite`](super::overwrite) after it, this is the first half of a step of population-based
/// training; the second is to change the rates. Components are written where they differ; only an optimizer of
/// another type moves a module to another archetype.
///
/// # Shape
///
/// `parents` is `[models]`: indices.
///
/// # Errors
///
/// [`EvolveError`]: for a list that is too short or too long, an index that is none, or a parent of
/// another blueprint.
///
/// Source: Jaderberg et al., "Population Based Training of Neural Networks", 2017: `exploit`.
pub fn overwrite_hyperparameters(
    world: &mut World,
    population: Entity,
    parents: &[usize],
) -> Result<(), EvolveError> {
    let families = Family::place(world, population, parents.iter().map(|&parent| [parent]))?;
    let mut pairs = Vec::new();
    for family in families {
        let Some(of) = group(world, population, family.group) else { continue };
        for modules in &of.modules {
            let parents = family.parents.iter().map(|&[parent]| modules[parent as usize]);
            pairs.extend(modules.iter().copied().zip(parents));
        }
    }
    copy_hyperparameters(world, &pairs);
    Ok(())
}

/// Gives modules the optimizers and the settings that others had before: pairs of a module and the one that it takes
/// after.
pub(super) fn copy_hyperparameters(world: &mut World, pairs: &[(Entity, Entity)]) {
    Optimizers::init(world);
    let optimizers = world.resource::<Optimizers>();
    let types = world.get_resource::<ModuleTypes>();
    let others = pairs.iter().filter(|(module, parent)| module != parent);
    let changes = others
        .filter_map(|&(module, parent)| Change::between(world, optimizers, types, module, parent));
    let changes: Vec<_> = changes.collect();
    let all = optimizers.ids();
    for change in changes {
        let Ok(mut entity) = world.get_entity_mut(change.entity) else { continue };
        if let Some(module) = change.module {
            module.insert_into(&mut entity);
        }
        match change.optimizer {
            Kept => {}
            Gone => drop(entity.remove_by_ids(&all)),
            Replaced(optimizer) => {
                entity.remove_by_ids(&all);
                optimizer.insert(&mut entity);
            }
            Changed(optimizer) => optimizer.insert(&mut entity),
        }
    }
}

/// What becomes different about a module.
struct Change {
    entity: Entity,
    module: Option<Box<dyn DynModule>>,
    optimizer: OptimizerChange,
}

/// What becomes of a module's optimizer.
enum OptimizerChange {
    Kept,
    Gone,
    /// By one of another type.
    Replaced(Box<dyn DynParamGroups>),
    Changed(Box<dyn DynParamGroups>),
}

impl Change {
    /// Compares a module with its parent's.
    fn between(
        world: &World,
        optimizers: &Optimizers,
        types: Option<&ModuleTypes>,
        entity: Entity,
        parent: Entity,
    ) -> Option<Change> {
        let module = |entity| types?.module(world.get_entity(entity).ok()?);
        let module = module(entity).zip(module(parent));
        let module = module.filter(|(own, other)| !own.equals(*other));
        let module = module.map(|(_, other)| other.clone_box());
        let optimizer = match (optimizers.on(world, entity), optimizers.on(world, parent)) {
            (None, None) => Kept,
            (Some(_), None) => Gone,
            (Some(own), Some(other)) if own.equals(other) => Kept,
            (Some(own), Some(other)) if own.is_of_one_type(other) => Changed(other.clone_box()),
            (_, Some(other)) => Replaced(other.clone_box()),
        };
        let is_kept = module.is_none() && matches!(optimizer, Kept);
        (!is_kept).then_some(Change { entity, module, optimizer })
    }
}
