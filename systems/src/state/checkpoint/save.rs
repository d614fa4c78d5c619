//! [`save`]: populations go into a checkpoint.

use std::any::TypeId;
use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};
use std::ops::{Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use bevy_ecs::world::EntityRef;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::column::{ColumnKey, row};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::{Model, ModuleName};
use neurarch_components::saved::{SavedType, SavedTypes};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;

use super::error::CheckpointError;
use super::format::{Header, checksum};
use super::index::{
    ColumnEntry, ComponentEntry, Entries, GroupEntry, Index, ModuleEntry, NO_VALUE,
    PopulationEntry, Section, dtype_code, role_code,
};
use super::mapper::Places;
use super::part::range;
use super::write::Sections;
use crate::errors::SignError;
use crate::state::file::{Disk, NewFile, Storage};
use crate::storage::bind::Bound;
use crate::storage::binders::Binders;
use crate::storage::members::listed;
use crate::structure::optimizers::Optimizers;
use crate::structure::sign;

/// Saves populations with all that decides how they go on: structure, parameters, buffers, gradients, optimizers with
/// their state, schedulers, modes, numbers, and components of the host's own that are
/// [registered](neurarch_components::saved). Hooks are not saved, nor is what a forward pass keeps for a backward pass.
///
/// The file appears under its name when it is whole, in place of any that has the name: see [`NewFile`]. What is written
/// streams from the columns.
///
/// # Errors
///
/// [`CheckpointError`]: an entity is no population, a module's or an optimizer's type is not registered, or the disk fails.
/// A file that has the name is then as it was.
///
/// Source: `torch.save` of all that belongs to a run.
pub fn save(
    world: &mut World,
    populations: &[Entity],
    path: impl AsRef<Path>,
) -> Result<(), CheckpointError> {
    save_in(world, populations, Disk, path)
}

/// [`save`] of all populations of a world, in the order of their entities' indices.
///
/// # Errors
///
/// As [`save`].
pub fn save_all(world: &mut World, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
    let mut populations = world.query_filtered::<Entity, With<Population>>();
    let mut populations: Vec<_> = populations.iter(world).collect();
    populations.sort_unstable_by_key(|population| population.index_u32());
    save(world, &populations, path)
}

/// [`save`] in another storage than the disk.
///
/// # Errors
///
/// As [`save`].
pub fn save_in<S: Storage>(
    world: &mut World,
    populations: &[Entity],
    storage: S,
    path: impl AsRef<Path>,
) -> Result<(), CheckpointError> {
    let all: Vec<_> = populations.iter().map(|&of| (of, 0..usize::MAX)).collect();
    write(world, &all, storage, path.as_ref())
}

/// Saves some models of a population by their indices: a part that [`restore_shards`](super::restore_shards) puts together with
/// others.
///
/// # Errors
///
/// As [`save`].
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::population::Population;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// use neurarch_systems::state::checkpoint::{self, Checkpoint};
///
/// # let mut world = World::new();
/// # let file = |of: usize| std::env::temp_dir().join(format!("neurarch-{}.{of}", std::process::id()));
/// let layers = spawn_population(&mut world, &Linear::new(4, 2), 10, 10, 7, Dtype::F32)?;
/// // As three processes save, which each have a part.
/// for (shard, models) in [0..4, 4..7, 7..10].into_iter().enumerate() {
///     checkpoint::save_models(&mut world, layers, models, file(shard))?;
/// }
/// // As one of two that go on loads.
/// let shards = (0..3).map(|shard| Checkpoint::open(file(shard)));
/// let shards: Vec<_> = shards.collect::<Result<_, _>>()?;
/// let half = checkpoint::restore_shards(&mut world, &shards, ..5)?;
/// assert_eq!(world.get::<Population>(half.populations[0]).unwrap().len(), 5);
/// # (0..3).try_for_each(|shard| std::fs::remove_file(file(shard)))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_models(
    world: &mut World,
    population: Entity,
    models: impl RangeBounds<usize>,
    path: impl AsRef<Path>,
) -> Result<(), CheckpointError> {
    write(world, &[(population, range(models, usize::MAX))], Disk, path.as_ref())
}

/// Writes a file of populations, of each the models whose indices are in a range.
fn write<S: Storage>(
    world: &mut World,
    populations: &[(Entity, Range<usize>)],
    storage: S,
    path: &Path,
) -> Result<(), CheckpointError> {
    for &(population, _) in populations {
        sign::refresh(world, population)?;
    }
    Optimizers::init(world);
    SavedTypes::init(world);
    let types = Arc::new(world.resource::<SavedTypes>().clone());
    let failed = |error| CheckpointError::io(path, error);
    let mut file = NewFile::create_in(storage, path).map_err(failed)?;
    let sections = Sections::begin(&mut file, path)?;
    let mut save = Save { types, index: Index::default(), sections };
    for (population, models) in populations {
        save.population(world, *population, models)?;
    }
    let Save { mut index, sections, .. } = save;
    let (index_at, sums) = sections.finish()?;
    index.sums = sums;
    let bytes = index.to_bytes()?;
    let (index_bytes, index_sum) = (bytes.len() as u64, checksum(&bytes));
    let header = Header { index_at, index_bytes, index_sum }.to_bytes();
    let end = |file: &mut NewFile<S>| {
        file.write_all(&bytes)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)
    };
    end(&mut file).map_err(failed)?;
    file.commit().map_err(failed)
}

/// Takes those members of a group whose indices are in a range, which count from its start then.
fn within(group: &Group, models: &Range<usize>) -> Group {
    let mut group = group.clone();
    let members = group.members.iter().enumerate();
    let out = members.filter(|(_, index)| !models.contains(&(**index as usize)));
    let out: Vec<_> = out.map(|(place, _)| place).collect();
    group.edit(&out, Vec::new());
    group
}

/// A checkpoint that is being written.
struct Save<'a, W> {
    types: Arc<SavedTypes>,
    index: Index,
    sections: Sections<'a, W>,
}

/// Returns the entries that a list got since it had `start` of them.
fn since<T>(start: usize, list: &[T]) -> Entries {
    Entries { start: start as u32, end: list.len() as u32 }
}

impl<W: Write> Save<'_, W> {
    fn population(
        &mut self,
        world: &mut World,
        population: Entity,
        models: &Range<usize>,
    ) -> Result<(), CheckpointError> {
        let not_one = SignError::NotAPopulation(population);
        let found = world.get::<Population>(population).ok_or(not_one)?;
        let models = range(models.clone(), found.len());
        let mut entry = PopulationEntry {
            entity: population.to_bits(),
            seed: found.seed,
            dtype: dtype_code(found.dtype()),
            next_number: found.next_number(),
            models: models.len() as u64,
            companions: found.companions().iter().map(|&role| role_code(role)).collect(),
            ..PopulationEntry::default()
        };
        let groups = found.groups().len();
        let first = self.index.columns.len();
        self.shared(world, population)?;
        entry.columns = since(first, &self.index.columns);
        entry.components = self.components(world, &[population], None, "")?;
        let first = self.index.groups.len();
        // A population without models has no structure in a file.
        for group in (0..groups).filter(|_| entry.models > 0) {
            self.group(world, (population, group), &models)?;
        }
        entry.groups = since(first, &self.index.groups);
        self.index.populations.push(entry);
        Ok(())
    }

    /// Saves what the models of a population share, with what goes with it.
    fn shared(&mut self, world: &World, population: Entity) -> Result<(), CheckpointError> {
        let tensors = world.get::<SharedTensors>(population);
        for (index, tensor) in tensors.into_iter().flat_map(SharedTensors::iter) {
            let of = SharedRow { owner: population, index };
            let states = (0..=u8::MAX).map(Role::State);
            let roles = [tensor.role, Role::Gradient, Role::Steps].into_iter().chain(states);
            for role in roles {
                let ty = match role {
                    Role::Steps => Type::new(Dtype::F32, [1]),
                    _ => tensor.ty.clone(),
                };
                let key = of.key(role, &ty);
                let Some(row) = row(world, population, key) else { continue };
                let rows = self.sections.put_section(row)?;
                let persistent = role == Role::Parameter;
                self.column(&tensor.name, persistent, (role, index, &ty), key, rows);
            }
        }
        Ok(())
    }

    fn column(
        &mut self,
        name: &str,
        persistent: bool,
        (role, index, ty): (Role, usize, &Type),
        key: ColumnKey,
        rows: Section,
    ) {
        self.index.columns.push(ColumnEntry {
            name: name.to_owned(),
            role: role_code(role),
            index: index as u32,
            dtype: dtype_code(ty.dtype),
            shape: ty.shape.iter().map(|&size| size as u64).collect(),
            persistent,
            row_bytes: key.row_bytes() as u64,
            rows,
        });
    }

    fn group(
        &mut self,
        world: &mut World,
        (population, number): (Entity, usize),
        models: &Range<usize>,
    ) -> Result<(), CheckpointError> {
        let Some(found) = world.get::<Population>(population) else { return Ok(()) };
        let (all, group) = (found.len(), within(&found.groups()[number], models));
        if group.members.is_empty() {
            return Ok(());
        }
        let indices: Vec<_> =
            group.members.iter().map(|index| index - models.start as u32).collect();
        let model_numbers = group.modules[0].iter().map(|&root| {
            let model = world.get::<Model>(root);
            model.map_or(u64::MAX, |model| model.number)
        });
        let model_numbers: Vec<u64> = model_numbers.collect();
        let indices = self.sections.put_section(bytemuck::cast_slice(&indices))?;
        let numbers = self.sections.put_section(bytemuck::cast_slice(&model_numbers))?;
        let first = self.index.modules.len();
        let columns = self.rows(world, (population, number), all, &group)?;
        for ((position, at), columns) in group.structure().positions.iter().enumerate().zip(columns)
        {
            let entities = &group.modules[position];
            let bits: Vec<u64> = entities.iter().map(|of| of.to_bits()).collect();
            let module = ModuleEntry {
                name: at.name.clone(),
                parent: at.parent.map(|parent| parent as u32),
                class: at.module.type_name().to_owned(),
                entities: self.sections.put_section(bytemuck::cast_slice(&bits))?,
                columns,
                components: self.components(world, entities, Some(&group), &at.path)?,
            };
            self.index.modules.push(module);
        }
        self.index.groups.push(GroupEntry {
            modules: since(first, &self.index.modules),
            members: group.members.len() as u64,
            indices,
            numbers,
        });
        Ok(())
    }

    /// Saves the rows of a group; gives the entries of each position.
    fn rows(
        &mut self,
        world: &mut World,
        (population, number): (Entity, usize),
        models: usize,
        group: &Group,
    ) -> Result<Vec<Entries>, CheckpointError> {
        let slots: Vec<_> = group.contents.iter().flat_map(|of| of.slots()).collect();
        let mut entries = Vec::new();
        let mut binder = Binders::take(world, population, number);
        let members = listed(models, &group.members);
        let bound = binder.bind(world, population, number, &members, &slots, &[]);
        let bound = bound.map_err(SignError::from)?;
        let mut at = 0;
        for (position, contents) in group.contents.iter().enumerate() {
            let first = self.index.columns.len();
            while let Some(slot) = slots.get(at).filter(|slot| slot.position == position) {
                let among = if slot.role == Role::Buffer {
                    &contents.buffers
                } else {
                    &contents.parameters
                };
                let persistent = matches!(slot.role, Role::Parameter | Role::Buffer)
                    && among.get(slot.index).is_some_and(|of| of.persistent);
                let key = ColumnKey::new(slot.role, slot.index, &slot.ty);
                let rows = self.rows_of(&bound, at, key.row_bytes())?;
                let of = (slot.role, slot.index, &slot.ty);
                self.column(&slot.name, persistent, of, key, rows);
                at += 1;
            }
            entries.push(since(first, &self.index.columns));
        }
        Binders::put(world, population, number, binder);
        Ok(entries)
    }

    /// Saves the rows of one column, in the order of the members: of each as many bytes as its type asks for.
    fn rows_of(
        &mut self,
        bound: &Bound<'_>,
        slot: usize,
        bytes: usize,
    ) -> Result<Section, CheckpointError> {
        let rows = self.sections.section((bytes * bound.members()) as u64)?;
        for member in 0..bound.members() {
            self.sections.put(bound.row(slot, member, bytes))?;
        }
        Ok(rows)
    }

    /// Saves the components of entities: of a population's, or of the modules at one position.
    fn components(
        &mut self,
        world: &World,
        entities: &[Entity],
        of: Option<&Group>,
        path: &str,
    ) -> Result<Entries, CheckpointError> {
        let first = self.index.components.len();
        let types = self.types.clone();
        for saved in types_of(world, &types, entities, path)? {
            let mut values = Values::default();
            for (member, &entity) in entities.iter().enumerate() {
                let mut places = Places { world, of: of.map(|group| (group, member)) };
                if let Ok(entity) = world.get_entity(entity) {
                    values.add(&types, saved, entity, &mut places)?;
                }
            }
            let Values { bytes, ends, which, .. } = values;
            let (is_one, have_all) = (ends.len() == 1, which.iter().all(|&which| which == 0));
            let entry = ComponentEntry {
                ty: saved.name.to_string(),
                values: self.sections.put_section(&bytes)?,
                ends: match is_one {
                    true => Section::default(),
                    false => self.sections.put_section(bytemuck::cast_slice(&ends))?,
                },
                which: match have_all {
                    true => Section::default(),
                    false => self.sections.put_section(bytemuck::cast_slice(&which))?,
                },
            };
            self.index.components.push(entry);
        }
        Ok(since(first, &self.index.components))
    }
}

/// The different values of components of one type, and who has which.
#[derive(Default)]
struct Values {
    bytes: Vec<u8>,
    ends: Vec<u64>,
    which: Vec<u32>,
    /// The numbers of values, by their bytes.
    known: HashMap<Vec<u8>, u32>,
    value: Vec<u8>,
}

impl Values {
    fn add(
        &mut self,
        types: &SavedTypes,
        saved: &SavedType,
        entity: EntityRef<'_>,
        places: &mut Places<'_>,
    ) -> Result<(), CheckpointError> {
        self.value.clear();
        if !saved.write(types, entity, places, &mut self.value)? {
            self.which.push(NO_VALUE);
            return Ok(());
        }
        let which = match self.known.get(&self.value) {
            Some(&known) => known,
            None => {
                let new = self.ends.len() as u32;
                self.bytes.extend_from_slice(&self.value);
                self.ends.push(self.bytes.len() as u64);
                self.known.insert(self.value.clone(), new);
                new
            }
        };
        self.which.push(which);
        Ok(())
    }
}

/// Lists the types of components of some entities that are saved.
fn types_of<'t>(
    world: &World,
    known: &'t SavedTypes,
    entities: &[Entity],
    path: &str,
) -> Result<Vec<&'t SavedType>, CheckpointError> {
    let modules = world.get_resource::<ModuleTypes>();
    let optimizers = world.get_resource::<Optimizers>();
    let mut archetypes = Vec::new();
    let mut ids: Vec<ComponentId> = Vec::new();
    for entity in entities.iter().filter_map(|&entity| world.get_entity(entity).ok()) {
        let archetype = entity.archetype();
        if archetypes.contains(&archetype.id()) {
            continue;
        }
        archetypes.push(archetype.id());
        for &id in archetype.components() {
            if ids.contains(&id) {
                continue;
            }
            if known.by_component(id).is_some() {
                ids.push(id);
                continue;
            }
            let module = modules.and_then(|types| types.module_of(entity, id));
            let module = module.map(|module| module.rust_name());
            let optimizer = optimizers.and_then(|types| types.rust_name(id));
            let Some(ty) = module.or(optimizer) else { continue };
            return Err(CheckpointError::Unregistered { path: path.to_owned(), ty });
        }
    }
    // In the order in which types were registered, which the same program has again.
    let is_there =
        |ty: &&SavedType| ids.contains(&ty.id) && ty.type_id != TypeId::of::<ModuleName>();
    Ok(known.iter().filter(is_there).collect())
}
