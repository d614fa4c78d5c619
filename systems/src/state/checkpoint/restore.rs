//! [`Checkpoint::restore`]: populations come out of a checkpoint.
//!
//! Of each structure the first model is put together component by component, and signed. The others are its clones; what
//! differs about them, and all numbers, are written then.

use std::any::TypeId;
use std::ops::RangeBounds;

use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::prelude::*;
use neurarch_components::builtin;
use neurarch_components::column::Columns;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::Model;
use neurarch_components::saved::SavedTypes;
use neurarch_components::warnings::Warnings;

use super::components::{Owners, find};
use super::error::CheckpointError;
use super::index::{Entries, dtype_of, role_of};
use super::open::Checkpoint;
use super::part::{Chosen, Part};
use super::structure;
use crate::evolve::clone_models;
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
        let all =
            (0..self.populations()).map(|number| Part::all(self, number).map(|all| vec![all]));
        restore(world, all.collect::<Result<_, _>>()?)
    }

    /// Spawns some models of a population of the checkpoint, in the order in which they are listed: a population of their
    /// own, in which each has the number that it had.
    ///
    /// # Errors
    ///
    /// As [`restore`](Checkpoint::restore), and for a model that is none or is listed twice.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::*;
    /// # use neurarch_components::layers::Linear;
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_systems::structure::access;
    /// # use neurarch_systems::structure::spawn::spawn_population;
    /// use neurarch_systems::state::checkpoint::{self, Checkpoint};
    ///
    /// # let mut world = World::new();
    /// # let path = std::env::temp_dir().join(format!("neurarch-{}.some", std::process::id()));
    /// let layers = spawn_population(&mut world, &Linear::new(1, 1), 3, 3, 7, Dtype::F32)?;
    /// let biases = ndarray::array![[1.0_f32], [2.0], [3.0]].into_dyn();
    /// access::unstack(&mut world, layers, "bias", biases.view())?;
    /// checkpoint::save(&mut world, &[layers], &path)?;
    ///
    /// let best = Checkpoint::open(&path)?.restore_models(&mut world, 0, &[2, 0])?;
    /// let biases = access::stack::<f32>(&mut world, best.populations[0], "bias", None)?;
    /// assert_eq!(biases, ndarray::array![[3.0], [1.0]].into_dyn());
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restore_models(
        &self,
        world: &mut World,
        population: usize,
        models: &[usize],
    ) -> Result<Restored, CheckpointError> {
        restore(world, vec![vec![Part::some(self, population, models)?]])
    }

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
        let mut restore = Restore { types, restored: Restored::default(), late: Vec::new() };
        let firsts = (0..self.populations()).map(|number| {
            let parts = [Part::all(self, number)?];
            let population = restore.spawn(world, &parts)?;
            let firsts = restore.firsts(world, population, &parts)?;
            Ok((population, firsts.into_iter().map(|modules| modules[0]).collect()))
        });
        firsts.collect()
    }
}

/// Spawns one population of the models of several checkpoints, each of which has a part of it as its first population: in the
/// order of their numbers, all of them or those whose places in that order are in a range. So processes that each have a part
/// of a population save [their own models](super::save_models), and others, as many as they may be, each restore theirs.
///
/// # Errors
///
/// As [`Checkpoint::restore`], and if there is no checkpoint, or they are not of one population: its seed and element type are
/// others, or two have a model of one number.
pub fn restore_shards(
    world: &mut World,
    shards: &[Checkpoint],
    models: impl RangeBounds<usize>,
) -> Result<Restored, CheckpointError> {
    restore(world, vec![Part::of_shards(shards, models)?])
}

/// Spawns populations, each of some parts.
fn restore(
    world: &mut World,
    populations: Vec<Vec<Part<'_>>>,
) -> Result<Restored, CheckpointError> {
    SavedTypes::init(world);
    let mut types = world.resource::<SavedTypes>().clone();
    for part in populations.iter().flatten() {
        types = part.checkpoint.prepare(world)?;
        part.verify()?;
    }
    let mut restore = Restore { types, restored: Restored::default(), late: Vec::new() };
    match restore.all(world, &populations) {
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

/// Populations that are being restored.
struct Restore<'a> {
    types: SavedTypes,
    restored: Restored,
    /// Components with entities that were not there yet.
    late: Vec<Late<'a>>,
}

/// See [`Restore::late`].
struct Late<'a> {
    checkpoint: &'a Checkpoint,
    /// The component's number in the index.
    component: usize,
    members: Vec<u32>,
    entities: Vec<Entity>,
    modules: Vec<Vec<Entity>>,
}

impl<'a> Restore<'a> {
    fn all(
        &mut self,
        world: &mut World,
        populations: &[Vec<Part<'a>>],
    ) -> Result<(), CheckpointError> {
        for parts in populations {
            self.population(world, parts)?;
        }
        for Late { checkpoint, component, members, entities, modules } in
            std::mem::take(&mut self.late)
        {
            let owners = Owners { members: &members, entities: &entities, modules: &modules };
            let known = &self.restored.entities;
            checkpoint.insert_others(world, &self.types, component, &owners, known, true)?;
        }
        for &population in &self.restored.populations {
            sign::refresh(world, population)?;
        }
        Ok(())
    }

    fn population(&mut self, world: &mut World, parts: &[Part<'a>]) -> Result<(), CheckpointError> {
        let population = self.spawn(world, parts)?;
        let firsts = self.firsts(world, population, parts)?;
        let groups: Vec<_> = parts.iter().flat_map(Part::groups).collect();
        let roots = clone(world, population, &groups, firsts)?;
        arrange(world, population, &groups, &roots);
        for (group, roots) in groups.into_iter().zip(&roots) {
            self.members(world, population, group, roots)?;
        }
        let next = parts.iter().map(|part| part.entry().next_number).max();
        if let Some(mut found) = world.get_mut::<Population>(population) {
            found.number_from(next.unwrap_or_default(), KEEPER);
        }
        sign::refresh(world, population)?;
        Ok(())
    }

    /// Spawns a population without models.
    fn spawn(&mut self, world: &mut World, parts: &[Part<'a>]) -> Result<Entity, CheckpointError> {
        let none = || CheckpointError::index("a population is none");
        let Part { checkpoint, .. } = *parts.first().ok_or_else(none)?;
        let entry = parts[0].entry();
        let dtype = dtype_of(entry.dtype).ok_or_else(none)?;
        let models = parts.iter().flat_map(Part::groups).map(|group| group.members.len()).sum();
        let mut spawned = Population::new(entry.seed, dtype, models);
        for part in parts {
            let roles = part.entry().companions.iter().filter_map(|&code| role_of(code));
            roles.for_each(|role| spawned.add_companion(role, KEEPER));
        }
        let population = world.spawn((spawned, Signed::default())).id();
        self.restored.populations.push(population);
        for part in parts {
            let before = Entity::try_from_bits(part.entry().entity);
            self.restored.entities.extend(before.map(|before| (before, population)));
        }
        self.first(world, checkpoint, entry.components, (0, &[population], &[]), |_| true)?;
        checkpoint.write_shared(world, entry, population)?;
        Ok(population)
    }

    /// Inserts components that a member has of some owners, of which it is the first.
    fn first(
        &mut self,
        world: &mut World,
        checkpoint: &'a Checkpoint,
        entries: Entries,
        (member, entities, modules): (u32, &[Entity], &[Vec<Entity>]),
        is_meant: impl Fn(TypeId) -> bool,
    ) -> Result<(), CheckpointError> {
        let members = [member];
        let (owners, known) =
            (Owners { members: &members, entities, modules }, &self.restored.entities);
        let missed =
            checkpoint.insert_first(world, &self.types, entries, &owners, known, is_meant)?;
        let late = missed.into_iter().map(|component| Late {
            checkpoint,
            component,
            members: members.to_vec(),
            entities: entities.to_vec(),
            modules: modules.to_vec(),
        });
        self.late.extend(late);
        Ok(())
    }

    /// Spawns the first model of each group; gives their modules.
    fn firsts(
        &mut self,
        world: &mut World,
        population: Entity,
        parts: &[Part<'a>],
    ) -> Result<Vec<Vec<Entity>>, CheckpointError> {
        let groups: Vec<_> = parts.iter().flat_map(Part::groups).collect();
        let mut firsts = Vec::with_capacity(groups.len());
        for group in &groups {
            let modules = structure::spawn(world, group.entries());
            // From here on it goes with its population, should anything fail.
            structure::join(world, population, modules[0]);
            let own: Vec<_> = modules.iter().map(|&module| vec![module]).collect();
            for (entry, module) in group.entries().iter().zip(&own) {
                let owners = (group.members[0], module.as_slice(), own.as_slice());
                self.first(world, group.checkpoint, entry.components, owners, |_| true)?;
            }
            structure::construct(world, &modules);
            firsts.push(modules);
        }
        sign::refresh(world, population)?;
        for (group, modules) in groups.iter().zip(&firsts) {
            let (root, owners) =
                (&group.entries()[0], (group.members[0], &modules[..1], [].as_slice()));
            self.first(world, group.checkpoint, root.components, owners, structure::is_mode)?;
            let of = structure::group_of(world, population, modules[0]);
            let (place, of) = of.ok_or(CheckpointError::Gone)?;
            let slots = structure::slots(group.checkpoint, group.entry, &of)?;
            columns::add_columns(world, population, place, &slots);
        }
        Ok(firsts)
    }

    /// Gives the models of a group what they do not have in common.
    fn members(
        &mut self,
        world: &mut World,
        population: Entity,
        chosen: &Chosen<'a>,
        roots: &[Entity],
    ) -> Result<(), CheckpointError> {
        let Chosen { checkpoint, entry, members, indices } = chosen;
        let (place, group) =
            structure::group_of(world, population, roots[0]).ok_or(CheckpointError::Gone)?;
        let modules = structure::modules(&group, roots, indices).ok_or(CheckpointError::Gone)?;
        self.restored.entities.extend(chosen.entities(&modules)?);
        let slots = structure::slots(checkpoint, entry, &group)?;
        checkpoint.write_rows(world, (population, place), chosen, &slots)?;
        chosen.set_numbers(world, roots)?;
        for (module, entities) in chosen.entries().iter().zip(&modules) {
            for component in module.components.range() {
                let owners = Owners { members, entities, modules: &modules };
                let known = &self.restored.entities;
                if checkpoint.insert_others(world, &self.types, component, &owners, known, false)? {
                    self.late.push(Late {
                        checkpoint,
                        component,
                        members: members.clone(),
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
    groups: &[&Chosen<'_>],
    firsts: Vec<Vec<Entity>>,
) -> Result<Vec<Vec<Entity>>, CheckpointError> {
    let mut roots: Vec<_> = firsts.iter().map(|modules| vec![modules[0]]).collect();
    let others = groups.iter().enumerate();
    let others = others.flat_map(|(place, of)| std::iter::repeat_n(place, of.members.len() - 1));
    let others: Vec<_> = others.collect();
    let clones = clone_models(world, population, &others)?;
    sign::refresh(world, population)?;
    if clones.len() != others.len() {
        return Err(CheckpointError::Gone);
    }
    for (place, clone) in others.into_iter().zip(clones) {
        roots[place].push(clone);
    }
    Ok(roots)
}

/// Gives the models of a population the indices that they are to have.
fn arrange(world: &mut World, population: Entity, groups: &[&Chosen<'_>], roots: &[Vec<Entity>]) {
    let indices = groups.iter().flat_map(|group| &group.indices);
    let mut order: Vec<_> = indices.copied().zip(roots.iter().flatten().copied()).collect();
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
