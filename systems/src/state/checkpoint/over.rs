//! [`Checkpoint::restore_over`]: models become again what they were, in the entities that they have.

use bevy_ecs::component::ComponentId;
use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::prelude::*;
use neurarch_components::population::Population;
use neurarch_components::population::tree::ModuleName;
use neurarch_components::saved::SavedTypes;
use neurarch_kernels::ir::program::{Role, Slot};

use super::components::Owners;
use super::error::CheckpointError;
use super::index::{Entries, dtype_of};
use super::open::Checkpoint;
use super::part::{Chosen, Part, places};
use super::structure;
use crate::errors::SignError;
use crate::storage::bind::KEEPER;
use crate::structure::columns;
use crate::structure::sign;

impl Checkpoint {
    /// Gives all models of a population what those of one of the checkpoint had: it goes on as that one would have gone on, bit
    /// for bit. Entities, hooks and components of types that are not registered stay as they are.
    ///
    /// # Errors
    ///
    /// As [`restore`](Checkpoint::restore), and if the population has another number or element type of models, or one of another
    /// structure. Nothing is changed then.
    pub fn restore_over(
        &self,
        world: &mut World,
        number: usize,
        population: Entity,
    ) -> Result<(), CheckpointError> {
        let part = Part::over(self, number, None)?;
        let found = found(world, population)?;
        if found.len() as u64 != part.entry().models {
            let (expected, given) = (part.entry().models as usize, found.len());
            return Err(CheckpointError::Models { expected, given });
        }
        self.over(world, &part, population, true)
    }

    /// Gives some models of a population what models of the checkpoint had, by pairs of the index there and the index in the
    /// population: parameters, buffers, settings, modes, optimizers with their state. They keep their numbers, from which their
    /// random numbers follow, and what the population shares stays as it is.
    ///
    /// # Errors
    ///
    /// As [`restore_over`](Checkpoint::restore_over), and for a model that is none or is listed twice. Nothing is changed then.
    pub fn restore_models_over(
        &self,
        world: &mut World,
        number: usize,
        population: Entity,
        models: &[(usize, usize)],
    ) -> Result<(), CheckpointError> {
        let all = found(world, population)?.len();
        places(&models.iter().map(|&(_, to)| to).collect::<Vec<_>>(), all)?;
        let part = Part::over(self, number, Some(models))?;
        self.over(world, &part, population, false)
    }

    fn over(
        &self,
        world: &mut World,
        part: &Part<'_>,
        population: Entity,
        is_whole: bool,
    ) -> Result<(), CheckpointError> {
        let types = self.prepare(world)?;
        part.verify()?;
        sign::refresh(world, population)?;
        let targets = targets(world, part, population)?;
        let entry = part.entry();
        if is_whole {
            let owners = Owners { members: &[0], entities: &[population], modules: &[] };
            self.check_values(world, &types, entry.components, &owners)?;
        }
        for Target { chosen, modules, .. } in &targets {
            for (module, entities) in chosen.entries().iter().zip(modules) {
                let owners = Owners { members: &chosen.members, entities, modules };
                self.check_values(world, &types, module.components, &owners)?;
            }
        }
        let mut known = EntityHashMap::default();
        known.extend(Entity::try_from_bits(entry.entity).map(|before| (before, population)));
        for Target { chosen, modules, .. } in &targets {
            known.extend(chosen.entities(modules)?);
        }
        if is_whole {
            let owners = Owners { members: &[0], entities: &[population], modules: &[] };
            take_off(world, &types, population, &self.ids(&types, entry.components)?);
            self.insert_first(world, &types, entry.components, &owners, &known, |_| true)?;
            self.write_shared(world, entry, population)?;
        }
        for target in targets {
            target.restore(world, &types, &known, population, is_whole)?;
        }
        if let Some(mut found) = world.get_mut::<Population>(population).filter(|_| is_whole) {
            found.seed = entry.seed;
            found.number_from(entry.next_number, KEEPER);
        }
        sign::refresh(world, population)?;
        Ok(())
    }

    /// Checks that components can be read, and inserted on some owners.
    fn check_values(
        &self,
        world: &World,
        types: &SavedTypes,
        entries: Entries,
        owners: &Owners<'_>,
    ) -> Result<(), CheckpointError> {
        for number in entries.range() {
            let (ty, values) = self.component(types, number)?;
            let read = (0..values.len()).map(|value| ty.read(types, values.value(value)));
            let read = read.collect::<Result<Vec<_>, _>>()?;
            for (&member, &entity) in owners.members.iter().zip(owners.entities) {
                if let Some(which) = values.which(member) {
                    read[which].check(world.get_entity(entity).ok())?;
                }
            }
        }
        Ok(())
    }

    /// Lists the component ids of some entries.
    fn ids(
        &self,
        types: &SavedTypes,
        entries: Entries,
    ) -> Result<Vec<ComponentId>, CheckpointError> {
        let ids = entries.range().map(|number| Ok(self.component(types, number)?.0.id));
        ids.collect()
    }
}

fn found(world: &World, population: Entity) -> Result<&Population, SignError> {
    world.get::<Population>(population).ok_or(SignError::NotAPopulation(population))
}

/// Takes off what a checkpoint would have, and does not.
fn take_off(world: &mut World, types: &SavedTypes, entity: Entity, kept: &[ComponentId]) {
    let name = std::any::TypeId::of::<ModuleName>();
    let saved = types.iter().filter(|ty| ty.type_id != name && !kept.contains(&ty.id));
    if let Ok(mut entity) = world.get_entity_mut(entity) {
        let gone: Vec<_> = saved.map(|ty| ty.id).filter(|&id| entity.contains_id(id)).collect();
        if !gone.is_empty() {
            entity.remove_by_ids(&gone);
        }
    }
}

/// Models of one structure in a file, those of a population that take what they had, and where these are.
struct Target<'a> {
    chosen: Chosen<'a>,
    /// The group's place in the population.
    group: usize,
    /// Their modules, by position and model.
    modules: Vec<Vec<Entity>>,
    /// The columns of the file.
    slots: Vec<Slot>,
    /// Columns that the file does not have, of what goes with parameters.
    others: Vec<Slot>,
}

/// Finds the models that take what those of a part had.
fn targets<'a>(
    world: &World,
    part: &Part<'a>,
    population: Entity,
) -> Result<Vec<Target<'a>>, CheckpointError> {
    let found = found(world, population)?;
    let dtype = dtype_of(part.entry().dtype);
    if dtype != Some(found.dtype()) {
        let message = format!("expected models of {}", found.dtype());
        return Err(CheckpointError::Structure { path: String::new(), message });
    }
    let mut targets = Vec::new();
    for chosen in part.groups() {
        for (group, of) in found.groups().iter().enumerate() {
            let chosen = chosen.within(&of.members);
            if chosen.members.is_empty() {
                continue;
            }
            let slots = structure::slots(chosen.checkpoint, chosen.entry, of)?;
            let place = |index: &u32| of.members.binary_search(index).ok();
            let places: Vec<_> = chosen.indices.iter().filter_map(place).collect();
            let modules = of.modules.iter();
            let modules =
                modules.map(|modules| places.iter().map(|&place| modules[place]).collect());
            let all = of.contents.iter().flat_map(|contents| contents.slots());
            let is_other = |slot: &Slot| {
                !matches!(slot.role, Role::Parameter | Role::Buffer)
                    && slots.iter().all(|known| {
                        (known.role, known.position, known.index)
                            != (slot.role, slot.position, slot.index)
                    })
            };
            let others = all.filter(is_other).collect();
            targets.push(Target { chosen, group, modules: modules.collect(), slots, others });
        }
    }
    Ok(targets)
}

impl Target<'_> {
    fn restore(
        self,
        world: &mut World,
        types: &SavedTypes,
        known: &EntityHashMap<Entity>,
        population: Entity,
        is_whole: bool,
    ) -> Result<(), CheckpointError> {
        let Target { chosen, group, modules, slots, others } = self;
        let checkpoint = chosen.checkpoint;
        columns::add_columns(world, population, group, &slots);
        let at = (population, group);
        checkpoint.clear_rows(world, at, &chosen.indices, &others)?;
        checkpoint.write_rows(world, at, &chosen, &slots)?;
        for (module, entities) in chosen.entries().iter().zip(&modules) {
            let kept = checkpoint.ids(types, module.components)?;
            entities.iter().for_each(|&entity| take_off(world, types, entity, &kept));
            for component in module.components.range() {
                let owners = Owners { members: &chosen.members, entities, modules: &modules };
                checkpoint.insert_others(world, types, component, &owners, known, true)?;
            }
        }
        if is_whole {
            chosen.set_numbers(world, &modules[0])?;
        }
        Ok(())
    }
}
