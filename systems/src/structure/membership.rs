//! What a population says of a model before anything is signed: whether it is a member, and where it stands.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::SharedTensors;
use neurarch_components::column::{Columns, row};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Model, NOT_A_MEMBER};

use crate::errors::SignError;

/// A population, with the resources that its groups speak of.
#[derive(Clone, Copy)]
pub(crate) struct Known<'w> {
    pub(crate) population: &'w Population,
    pub(crate) blueprints: &'w Blueprints,
    pub(crate) types: &'w ModuleTypes,
}

/// Finds a population, with all that its groups speak of: whatever is done with it begins here, so all that follows may
/// take this for granted.
pub(crate) fn check(world: &World, population: Entity) -> Result<Known<'_>, SignError> {
    let known = check_resources(world, population)?;
    let mut groups = known.population.groups().iter();
    groups.try_for_each(|group| check_group(world, population, known.blueprints, group))?;
    Ok(known)
}

/// Finds a population, with the resources that are the same for all of its groups.
pub(crate) fn check_resources(world: &World, population: Entity) -> Result<Known<'_>, SignError> {
    let found = world.get::<Population>(population);
    let found = found.filter(|found| found.is_of(world.id(), population));
    let found = found.ok_or(SignError::NotAPopulation(population))?;
    let missing = |resource| SignError::Missing { population, resource };
    let blueprints = world.get_resource::<Blueprints>().ok_or(missing("Blueprints"))?;
    let types = world.get_resource::<ModuleTypes>().ok_or(missing("ModuleTypes"))?;
    Columns::of(world).filter(|columns| found.is_in(columns)).ok_or(missing("Columns"))?;
    Ok(Known { population: found, blueprints, types })
}

/// Checks that what a group speaks of is there: its blueprint, and what its models share with others.
pub(crate) fn check_group(
    world: &World,
    population: Entity,
    blueprints: &Blueprints,
    group: &Group,
) -> Result<(), SignError> {
    let missing = |resource| SignError::Missing { population, resource };
    if !blueprints.holds(group) {
        return Err(missing("Blueprints"));
    }
    for shared in group.shared() {
        let tensors = world.get::<SharedTensors>(shared.owner).ok_or(missing("SharedTensors"))?;
        let of = tensors.get(shared.index).ok_or(missing("SharedTensors"))?;
        if row(world, shared.owner, shared.key(of.role, &of.ty)).is_none() {
            let (name, role) = (of.name.clone(), of.role);
            return Err(SignError::SharedRemoved { population, name, role });
        }
    }
    Ok(())
}

/// Finds a model in its population's lists, as it was when it was last signed: its group, and its place there. That other
/// models left since does not matter.
pub(crate) fn place(found: &Population, root: Entity, model: &Model) -> Option<(usize, usize)> {
    found.groups().iter().enumerate().find_map(|(number, group)| {
        if group.blueprint != model.blueprint {
            return None;
        }
        let roots = group.modules.first()?;
        let member = group.members.binary_search(&model.index).ok();
        let member = member.filter(|&member| roots[member] == root);
        // Where others left, the lists do not follow the indices yet, of which most are as they were.
        let moved = || roots.iter().position(|&known| known == root);
        let member = member.or_else(|| found.is_stale().then(moved).flatten())?;
        Some((number, member))
    })
}

/// Returns whether a model is put together: an observer of the host's may ask while it is not.
pub(crate) fn is_member(world: &World, root: Entity) -> bool {
    world.get::<Model>(root).is_some_and(|model| model.index != NOT_A_MEMBER)
}
