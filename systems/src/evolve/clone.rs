//! Clones: more models, with the numbers of models that there are.

use bevy_ecs::entity::{EntityCloner, EntityHashMap};
use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::tie::Ties;
use neurarch_components::population::tree::Model;

use super::EvolveError;
use super::family::signed;
use crate::storage::bind::KEEPER;
use crate::structure::{sign, spawn};

/// Clones models into new entities of the same population; gives their roots, which have the next indices
/// and fresh numbers.
///
/// A clone has all that can be cloned of the model and of every entity below it: parameters, buffers,
/// gradients, optimizers with their state, modes, and the host's own components and entities. From its
/// number follow other random numbers than the model's.
///
/// # Shape
///
/// `models` is `[clones]`: indices, which may repeat.
///
/// # Errors
///
/// [`EvolveError`], for an index that is none, or if there would be 2³² models.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::evolve;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(1, 1), 2, 2, 7, Dtype::F32)?;
/// let biases = ndarray::array![[1.0_f32], [2.0]].into_dyn();
/// access::unstack(&mut world, layers, "bias", biases.view())?;
/// assert_eq!(evolve::clone_models(&mut world, layers, &[1, 1])?.len(), 2);
/// let biases = access::stack::<f32>(&mut world, layers, "bias", None)?;
/// assert_eq!(biases, ndarray::array![[1.0], [2.0], [2.0], [2.0]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `copy.deepcopy`, except that gradients are copied too.
pub fn clone_models(
    world: &mut World,
    population: Entity,
    models: &[usize],
) -> Result<Vec<Entity>, EvolveError> {
    let count = signed(world, population)?.len().saturating_add(models.len());
    spawn::check_count(count)?;
    spawn::check_room(world, population, count)?;
    let Some(found) = world.get::<Population>(population) else { return Ok(Vec::new()) };
    let originals = models.iter().map(|&index| {
        let of = found.groups().iter().enumerate();
        let of = of.filter_map(|(group, of)| {
            let place = of.members.binary_search(&u32::try_from(index).ok()?).ok()?;
            let modules = of.modules.iter().map(|modules| modules[place]);
            Some((group, of.blueprint, modules.collect::<Vec<_>>()))
        });
        of.into_iter().next().ok_or(EvolveError::NoSuchModel { index, models: found.len() })
    });
    // Observers of the host's may change groups while models are cloned.
    let originals: Vec<_> = originals.collect::<Result<_, _>>()?;
    let changed_before = changes(world);
    let mut builder = EntityCloner::build_opt_out(world);
    builder.linked_cloning(true);
    let mut cloner = builder.finish();
    let mut clones = Vec::with_capacity(models.len());
    let mut copies = EntityHashMap::default();
    let mut expected = 0;
    for (group, blueprint, originals) in originals {
        if world.get_entity(originals[0]).is_err() {
            continue;
        }
        let root = world.spawn_empty().id();
        copies.clear();
        copies.insert(originals[0], root);
        cloner.clone_entity_mapped(world, originals[0], &mut copies);
        let modules = originals.iter().map(|original| copies.get(original).copied());
        let modules = modules.collect::<Option<Vec<_>>>();
        clones.push(Clone { root, group, blueprint, modules });
        // Each module is told of by its component, all but the root by their names, some by their ties.
        let tied = originals.iter().filter(|&&module| world.get::<Ties>(module).is_some());
        expected += 2 * originals.len() - 1 + tied.count();
    }
    let roots = clones.iter().map(|clone| clone.root).collect();
    if changes(world) == changed_before + expected {
        settle(world, population, clones, changed_before);
    }
    Ok(roots)
}

/// A clone that has yet to be signed.
struct Clone {
    root: Entity,
    /// The original's group, and its blueprint.
    group: usize,
    blueprint: BlueprintId,
    /// By position; `None` if a module was not cloned.
    modules: Option<Vec<Entity>>,
}

/// Counts what was told of modules and not looked at yet.
fn changes(world: &World) -> usize {
    world.get_resource::<ModuleTypes>().map_or(0, |types| types.changed().len())
}

/// Puts clones into the groups of their originals, for they are signed by construction. This is not for clones to
/// which observers of the host's did more: those are looked at one by one.
fn settle(world: &mut World, population: Entity, clones: Vec<Clone>, changed_before: usize) {
    let is_whole = |clone: &Clone| {
        let is_model = world.get::<Model>(clone.root).is_some();
        is_model && clone.modules.is_some()
    };
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    let has_group = |clone: &Clone| {
        groups.get(clone.group).is_some_and(|group| group.blueprint == clone.blueprint)
    };
    if !clones.iter().all(|clone| is_whole(clone) && has_group(clone)) {
        return;
    }
    for Clone { root, blueprint, .. } in &clones {
        if let Some(mut model) = world.get_mut::<Model>(*root) {
            model.blueprint = *blueprint;
        }
    }
    let indices: Vec<_> = clones
        .iter()
        .map(|clone| world.get::<Model>(clone.root).map_or(0, |model| model.index))
        .collect();
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    found.take_unsigned(KEEPER);
    for (index, clone) in indices.into_iter().zip(clones) {
        let modules = clone.modules.unwrap_or_default();
        found.add_member(clone.group, index, &modules, KEEPER);
    }
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        types.changed_mut(KEEPER).truncate(changed_before);
    }
    sign::look_away(world, population);
}
