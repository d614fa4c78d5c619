//! [`Checkpoint::restore`]: populations come out of a checkpoint.
//!
//! Of each structure the first model is put together component by component, and signed. The others are its clones; what
//! differs about them, and all numbers, are written then.

use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::prelude::*;
use neurarch_components::builtin;
use neurarch_components::column::Columns;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Model;
use neurarch_components::saved::SavedTypes;
use neurarch_components::warnings::Warnings;

use super::components::{Owners, find};
use super::error::CheckpointError;
use super::index::{Entries, GroupEntry, dtype_of, role_of};
use super::open::Checkpoint;
use super::structure;
use crate::evolve::{EvolveError, clone_models};
use crate::storage::bind::KEEPER;
use crate::structure::columns;
use crate::structure::optimizers::Optimizers;
use crate::structure::sign::{self, Signed};

/// What was restored.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The populations, in the order in which they were saved.
    pub populations: Vec<Entity>,
    /// The entities that there were when they were saved, and those that stand for them now: populations, and the modules of
    /// their models.
    pub entities: EntityHashMap<Entity>,
}

impl Checkpoint {
    /// Spawns the populations of the checkpoint. Each goes on as it would have gone on when it was saved, bit for bit.
    ///
    /// Components in which there are entities have the new ones; an entity that is not part of the checkpoint becomes
    /// [`Entity::PLACEHOLDER`]. Hooks are none, but those that module types register when they are constructed.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: a part of the file was changed, a type is not registered in this world, or what the file says of a
    /// structure is not what its modules declare. Nothing is spawned then.
    pub fn restore(&self, world: &mut World) -> Result<Restored, CheckpointError> {
        let types = self.prepare(world)?;
        self.verify()?;
        let mut restore = Restore::new(self, types);
        match restore.all(world) {
            Ok(()) => Ok(restore.restored),
            Err(error) => {
                restore.restored.populations.into_iter().for_each(|population| {
                    let _ = world.try_despawn(population);
                });
                world.flush();
                Err(error)
            }
        }
    }
}

impl Checkpoint {
    /// Makes a world ready for what the checkpoint has, and checks that it knows all types of components.
    pub(super) fn prepare(&self, world: &mut World) -> Result<SavedTypes, CheckpointError> {
        builtin::register(world);
        Optimizers::init(world);
        world.init_resource::<Warnings>();
        world.init_resource::<Blueprints>();
        Columns::init(world);
        SavedTypes::init(world);
        let types = world.resource::<SavedTypes>().clone();
        self.index().components.iter().try_for_each(|of| find(&types, &of.ty).map(drop))?;
        Ok(types)
    }

    /// Spawns the first model of each structure into a world that is [ready](Checkpoint::prepare), without numbers; gives the
    /// populations with the roots.
    pub(super) fn spawn_firsts(
        &self,
        world: &mut World,
        types: SavedTypes,
    ) -> Result<Vec<(Entity, Vec<Entity>)>, CheckpointError> {
        let mut restore = Restore::new(self, types);
        let numbers = 0..self.populations();
        let firsts = numbers.map(|number| {
            let population = restore.spawn(world, number)?;
            let firsts = restore.firsts(world, number, population)?;
            Ok((population, firsts.into_iter().map(|modules| modules[0]).collect()))
        });
        firsts.collect()
    }
}

/// A checkpoint that is being restored.
struct Restore<'a> {
    checkpoint: &'a Checkpoint,
    types: SavedTypes,
    restored: Restored,
    /// Components with entities that were not there yet.
    late: Vec<Late>,
}

/// See [`Restore::late`].
struct Late {
    /// The component's number in the index.
    component: usize,
    entities: Vec<Entity>,
    modules: Vec<Vec<Entity>>,
}

impl<'a> Restore<'a> {
    fn new(checkpoint: &'a Checkpoint, types: SavedTypes) -> Self {
        Restore { checkpoint, types, restored: Restored::default(), late: Vec::new() }
    }

    fn all(&mut self, world: &mut World) -> Result<(), CheckpointError> {
        for number in 0..self.checkpoint.populations() {
            self.population(world, number)?;
        }
        for Late { component, entities, modules } in std::mem::take(&mut self.late) {
            let owners = Owners { entities: &entities, modules: &modules };
            let known = &self.restored.entities;
            self.checkpoint.insert_others(world, &self.types, component, &owners, known, true)?;
        }
        for &population in &self.restored.populations {
            sign::refresh(world, population)?;
        }
        Ok(())
    }

    fn population(&mut self, world: &mut World, number: usize) -> Result<(), CheckpointError> {
        let checkpoint = self.checkpoint;
        let entry = &checkpoint.index().populations[number];
        let indices = checkpoint.indices(number)?;
        let population = self.spawn(world, number)?;
        let firsts = self.firsts(world, number, population)?;
        let roots = clone(world, population, checkpoint.groups(number), firsts)?;
        arrange(world, population, &indices, &roots);
        for (place, group) in checkpoint.groups(number).iter().enumerate() {
            self.members(world, population, group, (&roots[place], &indices[place]))?;
        }
        if let Some(mut found) = world.get_mut::<Population>(population) {
            found.number_from(entry.next_number, KEEPER);
        }
        sign::refresh(world, population)?;
        Ok(())
    }

    /// Spawns a population without models.
    fn spawn(&mut self, world: &mut World, number: usize) -> Result<Entity, CheckpointError> {
        let entry = &self.checkpoint.index().populations[number];
        let dtype = dtype_of(entry.dtype).ok_or_else(|| CheckpointError::index("a type is none"))?;
        let mut spawned = Population::new(entry.seed, dtype, entry.models as usize);
        let roles = entry.companions.iter().filter_map(|&code| role_of(code));
        roles.for_each(|role| spawned.add_companion(role, KEEPER));
        let population = world.spawn((spawned, Signed::default())).id();
        self.restored.populations.push(population);
        self.restored.entities.insert(Entity::from_bits(entry.entity), population);
        self.first(world, entry.components, &[population], &[], |_| true)?;
        self.checkpoint.write_shared(world, entry, population)?;
        Ok(population)
    }

    /// Inserts components of the first of some owners.
    fn first(
        &mut self,
        world: &mut World,
        entries: Entries,
        entities: &[Entity],
        modules: &[Vec<Entity>],
        is_meant: impl Fn(std::any::TypeId) -> bool,
    ) -> Result<(), CheckpointError> {
        let (owners, known) = (Owners { entities, modules }, &self.restored.entities);
        let missed = self.checkpoint.insert_first(world, &self.types, entries, &owners, known, is_meant)?;
        let late = missed.into_iter().map(|component| Late {
            component,
            entities: entities.to_vec(),
            modules: modules.to_vec(),
        });
        self.late.extend(late);
        Ok(())
    }

    /// Spawns the first model of each group of a population; gives their modules.
    fn firsts(
        &mut self,
        world: &mut World,
        number: usize,
        population: Entity,
    ) -> Result<Vec<Vec<Entity>>, CheckpointError> {
        let checkpoint = self.checkpoint;
        let groups = checkpoint.groups(number);
        let mut firsts = Vec::with_capacity(groups.len());
        for group in groups {
            let modules = structure::spawn(checkpoint, world, group);
            let own: Vec<_> = modules.iter().map(|&module| vec![module]).collect();
            for (entry, module) in group.modules.of(&checkpoint.index().modules).iter().zip(&own) {
                self.first(world, entry.components, module, &own, |_| true)?;
            }
            structure::join(world, population, &modules);
            firsts.push(modules);
        }
        sign::refresh(world, population)?;
        for (group, modules) in groups.iter().zip(&firsts) {
            let root = &group.modules.of(&checkpoint.index().modules)[0];
            self.first(world, root.components, &modules[..1], &[], structure::is_mode)?;
            let of = structure::group_of(world, population, modules[0]);
            let (place, of) = of.ok_or_else(gone)?;
            let slots = structure::slots(checkpoint, group, &of)?;
            columns::add_columns(world, population, place, &slots);
        }
        Ok(firsts)
    }

    /// Gives the models of a group what they do not have in common.
    fn members(
        &mut self,
        world: &mut World,
        population: Entity,
        entry: &GroupEntry,
        (roots, indices): (&[Entity], &[u32]),
    ) -> Result<(), CheckpointError> {
        let checkpoint = self.checkpoint;
        let (place, group) = structure::group_of(world, population, roots[0]).ok_or_else(gone)?;
        let modules = modules(&group, roots, indices).ok_or_else(gone)?;
        let entries = entry.modules.of(&checkpoint.index().modules);
        for (module, entities) in entries.iter().zip(&modules) {
            let before = checkpoint.numbers::<u64>(module.entities)?;
            let before = before.into_iter().filter_map(Entity::try_from_bits);
            self.restored.entities.extend(before.zip(entities.iter().copied()));
        }
        let slots = structure::slots(checkpoint, entry, &group)?;
        checkpoint.write_rows(world, (population, place), entry, &slots, indices)?;
        for (&root, number) in roots.iter().zip(checkpoint.numbers::<u64>(entry.numbers)?) {
            if let Some(mut model) = world.get_mut::<Model>(root) {
                model.number = number;
            }
        }
        for (module, entities) in entries.iter().zip(&modules) {
            for component in module.components.range() {
                let owners = Owners { entities, modules: &modules };
                let known = &self.restored.entities;
                if checkpoint.insert_others(world, &self.types, component, &owners, known, false)? {
                    self.late.push(Late {
                        component,
                        entities: entities.clone(),
                        modules: modules.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Clones the first model of each group; gives the roots by group, in the order of the members.
fn clone(
    world: &mut World,
    population: Entity,
    groups: &[GroupEntry],
    firsts: Vec<Vec<Entity>>,
) -> Result<Vec<Vec<Entity>>, CheckpointError> {
    let mut roots: Vec<_> = firsts.iter().map(|modules| vec![modules[0]]).collect();
    let others = groups.iter().enumerate();
    let others = others.flat_map(|(place, of)| std::iter::repeat_n(place, of.members as usize - 1));
    let others: Vec<_> = others.collect();
    let clones = clone_models(world, population, &others).map_err(|error| match error {
        EvolveError::Sign(error) => CheckpointError::Sign(error),
        error => CheckpointError::index(error.to_string()),
    })?;
    sign::refresh(world, population)?;
    if clones.len() != others.len() {
        return Err(gone());
    }
    for (place, clone) in others.into_iter().zip(clones) {
        roots[place].push(clone);
    }
    Ok(roots)
}

/// What a model is that an observer of the host's despawned while it was restored.
fn gone() -> CheckpointError {
    CheckpointError::index("a model is gone that was just restored")
}

/// Lists the modules of some members of a group, by position and member.
fn modules(group: &Group, roots: &[Entity], indices: &[u32]) -> Option<Vec<Vec<Entity>>> {
    let places = indices.iter().zip(roots).map(|(index, root)| {
        let place = group.members.binary_search(index).ok()?;
        (group.modules[0].get(place) == Some(root)).then_some(place)
    });
    let places = places.collect::<Option<Vec<_>>>()?;
    let of = |modules: &Vec<Entity>| places.iter().map(|&place| modules[place]).collect();
    Some(group.modules.iter().map(of).collect())
}

/// Gives the models of a population the indices that they had.
fn arrange(world: &mut World, population: Entity, indices: &[Vec<u32>], roots: &[Vec<Entity>]) {
    let all = indices.iter().flatten().zip(roots.iter().flatten());
    let mut order: Vec<_> = all.map(|(&index, &root)| (index, root)).collect();
    order.sort_unstable();
    let order: Vec<_> = order.into_iter().map(|(_, root)| root).collect();
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    if found.models() == order || found.len() != order.len() {
        return;
    }
    found.arrange(order.clone(), KEEPER);
    for (index, root) in order.into_iter().enumerate() {
        if let Some(mut model) = world.get_mut::<Model>(root) {
            model.index = index as u32;
        }
    }
}

impl Checkpoint {
    /// Returns the indices of the members of each group of a population: all there are, each once.
    fn indices(&self, population: usize) -> Result<Vec<Vec<u32>>, CheckpointError> {
        let groups = self.groups(population).iter();
        let indices = groups.map(|group| self.numbers::<u32>(group.indices));
        let indices = indices.collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<u32> = indices.iter().flatten().copied().collect();
        all.sort_unstable();
        let are_all = all.iter().enumerate().all(|(place, &index)| place == index as usize);
        match are_all && indices.iter().all(|of| of.is_sorted()) {
            true => Ok(indices),
            false => Err(CheckpointError::index("the indices of models are not each there once")),
        }
    }
}
