//! Companions of parameters that come to all members of a group at once.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::RowBundle;
use neurarch_components::population::Population;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::tree::Columned;
use neurarch_kernels::ir::program::Role;

use crate::storage::bind::KEEPER;

/// Adds companions, each of a position, to every member of a group that lacks them; says whether there were any.
pub(crate) fn widen(
    world: &mut World,
    population: Entity,
    group: usize,
    companions: &[(usize, (Role, usize))],
) -> bool {
    let known = world.get::<Population>(population).and_then(|found| found.groups().get(group));
    let contents = known.into_iter().flat_map(|group| &group.contents).enumerate();
    let wider = contents.filter_map(|(position, from)| {
        let is_missing = |(at, companion): &&(usize, (Role, usize))| {
            *at == position && !from.companions.contains(companion)
        };
        let missing: Vec<_> = companions.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return None;
        }
        let mut to = Contents::clone(from);
        to.add_companions(missing.into_iter().map(|&(_, companion)| companion));
        Some((position, from.clone(), Arc::new(to)))
    });
    let wider: Vec<_> = wider.collect();
    for (position, from, to) in &wider {
        let Some(mut found) = world.get_mut::<Population>(population) else { return false };
        let Some(group) = found.groups_mut(KEEPER).get_mut(group) else { return false };
        group.contents[*position] = to.clone();
        let entities = group.modules[*position].clone();
        let missing = to.keys().filter(|key| !from.keys().any(|known| known == *key));
        let mut bundle = RowBundle::new(world, missing, Some(to.number));
        for entity in entities {
            let Ok(mut entity) = world.get_entity_mut(entity) else { continue };
            // What left the model has other contents by now.
            if entity
                .get::<Columned>()
                .is_some_and(|columned| Arc::ptr_eq(columned.contents(), from))
            {
                bundle.widen(&mut entity);
                if let Some(mut columned) = entity.get_mut::<Columned>() {
                    columned.set(to.clone(), KEEPER);
                }
            }
        }
    }
    !wider.is_empty()
}
