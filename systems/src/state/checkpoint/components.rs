//! Components come out of a checkpoint: first those of the first model of a structure, then what differs in others.

use std::any::TypeId;

use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::prelude::*;
use neurarch_components::saved::{SavedError, SavedType, SavedTypes};

use super::error::CheckpointError;
use super::index::Entries;
use super::mapper::Mapper;
use super::open::Checkpoint;
use super::values::Values;

/// Finds the type of components by its name in the file.
pub(super) fn find<'t>(types: &'t SavedTypes, name: &str) -> Result<&'t SavedType, SavedError> {
    types.by_name(name).ok_or_else(|| SavedError::Unknown { name: name.to_owned() })
}

/// The models of a structure, or a population: who has components.
pub(super) struct Owners<'a> {
    /// Which entities of the file they are, by their places in the group.
    pub(super) members: &'a [u32],
    /// The entities that have them, one of each model, or the population's.
    pub(super) entities: &'a [Entity],
    /// All modules of the models, by position and model; none for a population.
    pub(super) modules: &'a [Vec<Entity>],
}

impl Checkpoint {
    /// Finds the type of the components of an entry, and their values.
    pub(super) fn component<'t>(
        &self,
        types: &'t SavedTypes,
        number: usize,
    ) -> Result<(&'t SavedType, Values<'_>), CheckpointError> {
        let entry = &self.index().components[number];
        Ok((find(types, &entry.ty)?, Values::of(self, entry)?))
    }

    /// Inserts the components that the first of some owners has, of types for which `is_meant` holds; gives the numbers of
    /// those with an entity that is not known.
    pub(super) fn insert_first(
        &self,
        world: &mut World,
        types: &SavedTypes,
        entries: Entries,
        owners: &Owners<'_>,
        known: &EntityHashMap<Entity>,
        is_meant: impl Fn(TypeId) -> bool,
    ) -> Result<Vec<usize>, CheckpointError> {
        let mut missed = Vec::new();
        for number in entries.range() {
            let (ty, values) = self.component(types, number)?;
            let which = values.which(owners.members[0]).filter(|_| is_meant(ty.type_id));
            let Some(which) = which else { continue };
            let value = ty.read(types, values.value(which))?;
            let mut mapper = Mapper::new(known, owners.modules, 0);
            if let Ok(mut entity) = world.get_entity_mut(owners.entities[0]) {
                value.insert(&mut entity, &mut mapper)?;
            }
            if mapper.missed {
                missed.push(number);
            }
        }
        Ok(missed)
    }

    /// Inserts components of owners who have another value than the first, or of all if `has_all`, and takes off what they do
    /// not have; says whether there was an entity that is not known.
    pub(super) fn insert_others(
        &self,
        world: &mut World,
        types: &SavedTypes,
        number: usize,
        owners: &Owners<'_>,
        known: &EntityHashMap<Entity>,
        has_all: bool,
    ) -> Result<bool, CheckpointError> {
        let (ty, values) = self.component(types, number)?;
        if values.is_one() && !has_all {
            return Ok(false);
        }
        let first = values.which(owners.members[0]);
        let mut read: Vec<_> = (0..values.len()).map(|_| None).collect();
        let mut missed = false;
        let all = owners.members.iter().zip(owners.entities).enumerate();
        for (place, (&member, &entity)) in all {
            let which = values.which(member);
            if which == first && !has_all {
                continue;
            }
            let Ok(mut entity) = world.get_entity_mut(entity) else { continue };
            let Some(which) = which else {
                entity.remove_by_id(ty.id);
                continue;
            };
            let value = match &mut read[which] {
                Some(value) => value,
                new => new.insert(ty.read(types, values.value(which))?),
            };
            let mut mapper = Mapper::new(known, owners.modules, place);
            value.insert(&mut entity, &mut mapper)?;
            missed |= mapper.missed;
        }
        Ok(missed)
    }
}
