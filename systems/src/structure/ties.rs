//! What the second names and the tied parameters of a live tree are.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::module::blueprint::{Blueprint, TieError};
use neurarch_components::population::tie::{SharedModule, Ties};

/// Finds what the second names and the tied parameters of a tree are.
pub(crate) fn resolve(
    world: &World,
    blueprint: &mut Blueprint,
    entities: &[Entity],
) -> Result<(), TieError> {
    let place = |entity: Entity| entities.iter().position(|&known| known == entity);
    let missing = |path: &str, owner: Entity| TieError {
        path: path.to_owned(),
        message: format!("{owner} is no module of this model"),
    };
    for (position, &entity) in entities.iter().enumerate() {
        let Some(SharedModule(owner)) = world.get(entity).copied() else { continue };
        let path = &blueprint.positions[position].path;
        let is_owner = |&found: &usize| world.get::<SharedModule>(entities[found]).is_none();
        let found = place(owner).filter(is_owner).ok_or_else(|| missing(path, owner))?;
        let module = blueprint.positions[found].module.clone();
        let at = &mut blueprint.positions[position];
        (at.alias, at.module) = (Some(found), module);
    }
    blueprint.check_cycles()?;
    let mut shared = Vec::new();
    for (position, &entity) in entities.iter().enumerate() {
        for tie in world.get::<Ties>(entity).into_iter().flat_map(|ties| &ties.0) {
            if let Some(tensors) = world.get::<SharedTensors>(tie.owner) {
                shared.push((position, tie, tensors));
                continue;
            }
            let path = blueprint.path_below(position, &tie.parameter);
            let owner = place(tie.owner).ok_or_else(|| missing(&path, tie.owner))?;
            let find = |position, name: &str| {
                let found = blueprint.find_below(position, name);
                found.ok_or_else(|| missing(&format!("{path} ({name})"), tie.owner))
            };
            let (one, other) =
                (find(position, &tie.parameter)?, find(owner, &tie.owner_parameter)?);
            blueprint.tie(one, other)?;
        }
    }
    for (position, tie, tensors) in shared {
        // What is shared no more is the model's own.
        let index = tensors.find(&tie.owner_parameter);
        let found = index.and_then(|index| Some((index, tensors.get(index)?)));
        let Some((index, of)) = found else { continue };
        let row = SharedRow { owner: tie.owner, index };
        blueprint.share(position, &tie.parameter, row, (of.role, &of.ty));
    }
    Ok(())
}
