//! [`convert`]: carries out what is [`Wanted`]: rows are converted where they lie, or models move to others of their types.

use core::any::Any;

use bevy_ecs::prelude::*;
use neurarch_components::column::keeper::Keeper;
use neurarch_components::module::blueprint::Position;
use neurarch_components::module::dtypes::Dtypes;
use neurarch_components::module::registered::Registered;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::parametrizations::ParametrizationList;
use neurarch_components::population::Population;
use neurarch_components::population::group::Group;
use neurarch_kernels::ir::dtype::Dtype;

use super::error::MigrateError;
use super::in_place::{convert_in_place, restructure};
use super::shared::convert_shared;
use super::wanted::{OfGroup, Wanted, list_in};
use crate::storage::bind::KEEPER;
use crate::structure::{sign, spawn};

/// Converts the tensors of modules to the types that are wanted.
pub(super) fn convert(world: &mut World, wanted: Wanted) -> Result<(), MigrateError> {
    let Some(population) = wanted.population else { return Ok(()) };
    let is_same = world.get::<Population>(population).map(Population::dtype) == wanted.dtype;
    if wanted.groups.iter().all(|of| of.positions.is_empty()) && (is_same || wanted.dtype.is_none())
    {
        return Ok(());
    }
    convert_shared(world, &wanted.shared);
    if let (Some(dtype), Some(mut found)) = (wanted.dtype, world.get_mut::<Population>(population))
    {
        found.set_dtype(dtype, KEEPER);
    }
    let dtype = world.get::<Population>(population).map_or(Dtype::F32, Population::dtype);
    let mut moved = Vec::new();
    for of in wanted.groups {
        let told = changes(world);
        write_down(world, population, &of, dtype, wanted.floating);
        match convert_in_place(world, population, of) {
            // Nobody needs to be told: its group says the same already.
            Ok(()) => forget(world, told, KEEPER),
            Err(of) => moved.push(of),
        }
    }
    if wanted.dtype.is_some() {
        restructure(world, population, dtype, wanted.floating);
    }
    for of in &moved {
        let Some(mut found) = world.get_mut::<Population>(population) else { return Ok(()) };
        let roots = of.places.iter().map(|&place| found.groups()[of.group].modules[0][place]);
        roots.collect::<Vec<_>>().into_iter().for_each(|root| found.defer(root, KEEPER));
    }
    sign::refresh(world, population)?;
    if !moved.is_empty() {
        spawn::reserve(world, population);
    }
    Ok(())
}

/// Counts what signing was told of modules.
fn changes(world: &World) -> usize {
    world.get_resource::<ModuleTypes>().map_or(0, |types| types.changed().len())
}

/// Forgets what signing was told since there were so many changes.
fn forget(world: &mut World, changes: usize, keeper: Keeper) {
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>()
        && types.changed().len() > changes
    {
        types.changed_mut(keeper).truncate(changes);
    }
}

/// Writes down at the modules of a group's models which types their tensors have from now on.
fn write_down(
    world: &mut World,
    population: Entity,
    of: &OfGroup,
    dtype: Dtype,
    floating: Option<Dtype>,
) {
    for &position in &of.positions {
        let at = &of.blueprint.positions[position];
        let dtypes = Dtypes::of(at, dtype, floating);
        let has_lists = has_any::<Registered>(world);
        let list = (&*at.module as &dyn Any).downcast_ref::<ParametrizationList>();
        if dtypes.is_none() && !has_lists && !has_any::<Dtypes>(world) && list.is_none() {
            continue;
        }
        for entity in entities(world, population, of, position) {
            let registered = world.get::<Registered>(entity);
            let registered = registered.map(|known| retyped(known, at));
            let is_known = world.get::<Dtypes>(entity) == dtypes.as_ref();
            let Ok(mut entity) = world.get_entity_mut(entity) else { continue };
            match &dtypes {
                _ if is_known => {}
                Some(dtypes) => drop(entity.insert(dtypes.clone())),
                None => drop(entity.remove::<Dtypes>()),
            }
            if let Some(registered) = registered {
                entity.insert::<Registered>(registered);
            }
            if let Some(list) = list {
                let converted = entity.get::<ParametrizationList>().and_then(|own| {
                    let dtype = list.tensor.dtype?;
                    list_in(own, dtype)
                });
                if let Some(converted) = converted {
                    entity.insert(converted);
                }
            }
        }
    }
}

/// Returns whether any entity has a component.
fn has_any<C: Component>(world: &World) -> bool {
    let sets = &world.storages().sparse_sets;
    world.component_id::<C>().is_some_and(|id| sets.get(id).is_some_and(|of| !of.is_empty()))
}

/// Lists the entities at a position of a group's models.
pub(super) fn entities(
    world: &World,
    population: Entity,
    of: &OfGroup,
    position: usize,
) -> Vec<Entity> {
    let group = world.get::<Population>(population).map(|found| &found.groups()[of.group]);
    let modules = group.map_or(&[][..], |group: &Group| &group.modules[position]);
    of.places.iter().map(|&place| modules[place]).collect()
}

/// Returns what is registered in a module whose tensors have the types of a position.
fn retyped(registered: &Registered, at: &Position) -> Registered {
    let mut registered = registered.clone();
    let lists =
        [(&mut registered.parameters, &at.parameters), (&mut registered.buffers, &at.buffers)];
    for (entries, tensors) in lists {
        for entry in entries {
            if let (Some(ty), Some(of)) =
                (&mut entry.ty, tensors.iter().find(|of| of.name == entry.name))
            {
                ty.dtype = of.ty.dtype;
            }
        }
    }
    registered
}
