//! Parameters, buffers and their companions by name: of one model, or stacked over a population.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};
use neurarch_components::blueprint::Blueprint;
use neurarch_components::column::{ColumnKey, Columns, RowBundle, row, row_mut};
use neurarch_components::mode::HasGradient;
use neurarch_components::population::{Group, Population};
use neurarch_components::shared::{SharedRow, SharedTensors};
use neurarch_components::tree::{Columned, Contents, Model};
use neurarch_kernels::dtype::Element;
use neurarch_kernels::program::{Role, Slot};

use crate::bind::KEEPER;
pub use crate::errors::AccessError;
use crate::sign;
use crate::spawn;
use crate::spot::Spot;
use crate::spot::locate;
use crate::spot::place;

/// Finds the slot of a dotted name.
pub fn find_slot(blueprint: &Blueprint, name: &str) -> Option<Slot> {
    find_slot_below(blueprint, 0, name)
}

/// Finds the slot of a name that is dotted from a position on.
fn find_slot_below(blueprint: &Blueprint, position: usize, name: &str) -> Option<Slot> {
    let (path, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let position = blueprint.below(position, path).ok()?;
    blueprint.parameter(position, leaf).or_else(|| blueprint.buffer(position, leaf))
}

/// Where one named value of one model lies.
pub(crate) struct Found {
    /// The model's root.
    pub(crate) root: Entity,
    /// The entity of its module.
    pub(crate) module: Entity,
    /// The entity whose column holds it.
    pub(crate) entity: Entity,
    pub(crate) key: ColumnKey,
    pub(crate) slot: Slot,
    /// The parameter's number in the order of `named_parameters()`.
    number: usize,
    /// Where it lies, if the population's models share it.
    pub(crate) shared: Option<SharedRow>,
}

/// Signs the population of a module, and finds a named value below it; `role` other than a parameter's own means its
/// companion.
fn find(
    world: &mut World,
    module: Entity,
    name: &str,
    role: Option<Role>,
) -> Result<Found, AccessError> {
    let at = locate(world, module)?;
    found_at(world, &at, name, role)
}

/// [`find`] below a module whose model is settled.
pub(crate) fn found_at(
    world: &World,
    at: &Spot,
    name: &str,
    role: Option<Role>,
) -> Result<Found, AccessError> {
    found_in((at.group(world), at.member, &at.blueprint(world)), at.position, name, role)
}

/// [`find`] below a position of a member of a group.
fn found_in(
    (group, member, blueprint): (&Group, usize, &Blueprint),
    position: usize,
    name: &str,
    role: Option<Role>,
) -> Result<Found, AccessError> {
    let slot = find_slot_below(blueprint, position, name);
    let slot = slot.ok_or_else(|| AccessError::NoSuchName {
        module: blueprint.positions[position].module.type_name(),
        name: name.to_owned(),
    })?;
    if blueprint.is_uninitialized(&slot) {
        return Err(AccessError::Uninitialized { name: name.to_owned() });
    }
    let role = role.unwrap_or(slot.role);
    let shared = blueprint.shared(&slot);
    let number = group.contents[slot.position].first_parameter + slot.index;
    let slot = Slot { role, ..slot };
    let (home, key) = group.home(&slot, member);
    let (root, module) = (group.modules[0][member], group.modules[slot.position][member]);
    Ok(Found { root, module, entity: home, key, slot, number, shared })
}

impl Found {
    /// Says whether the parameter has a gradient.
    pub(crate) fn has_gradient(&self, world: &World) -> bool {
        match self.shared {
            Some(SharedRow { owner, index }) => {
                let tensors = world.get::<SharedTensors>(owner);
                tensors.and_then(|tensors| tensors.get(index)).is_some_and(|of| of.has_gradient)
            }
            None => {
                world.get::<HasGradient>(self.root).is_some_and(|of| of.0.contains(self.number))
            }
        }
    }

    /// Gives the same of a companion.
    pub(crate) fn companion(mut self, role: Role) -> Found {
        self.slot.role = role;
        self.key = match self.shared {
            Some(shared) => shared.key(role, &self.slot.ty),
            None => ColumnKey::of(&self.slot),
        };
        self
    }

    /// Views the numbers.
    pub(crate) fn view<'w, T: Element>(
        &self,
        world: &'w World,
    ) -> Result<ArrayViewD<'w, T>, AccessError> {
        check_dtype::<T>(&self.slot)?;
        let numbers = bytemuck::cast_slice(bytes(world, self)?);
        let view = ArrayViewD::from_shape(IxDyn(&self.slot.ty.shape), numbers);
        Ok(view.expect("there are as many numbers as the shape says"))
    }
}

fn check_dtype<T: Element>(slot: &Slot) -> Result<(), AccessError> {
    if slot.ty.dtype == T::DTYPE {
        return Ok(());
    }
    let name = slot.name.clone();
    Err(AccessError::Dtype { name, expected: slot.ty.dtype, given: T::DTYPE })
}

fn bytes<'w>(world: &'w World, found: &Found) -> Result<&'w [u8], AccessError> {
    let bytes = row(world, found.entity, found.key);
    let bytes = bytes.ok_or_else(|| AccessError::NoColumn {
        name: found.slot.name.clone(),
        role: found.slot.role,
    })?;
    Ok(&bytes[..found.slot.ty.size_bytes()])
}

/// Copies a parameter or buffer by its dotted name from a module on, or its companion of role `role`. Systems read with
/// [`Parameters`](crate::parameters::Parameters).
///
/// # Errors
///
/// [`AccessError`].
pub fn read<T: Element>(
    world: &mut World,
    module: Entity,
    name: &str,
    role: Option<Role>,
) -> Result<ArrayD<T>, AccessError> {
    Ok(find(world, module, name, role)?.view(world)?.to_owned())
}

/// Overwrites a parameter or buffer by its dotted name from a module on. Systems write with
/// [`ParameterCommands`](crate::commands::ParameterCommands).
///
/// # Errors
///
/// [`AccessError`]; nothing is written then.
pub fn write<T: Element>(
    world: &mut World,
    module: Entity,
    name: &str,
    numbers: ArrayViewD<'_, T>,
) -> Result<(), AccessError> {
    let found = find(world, module, name, None)?;
    check_dtype::<T>(&found.slot)?;
    if numbers.shape() != &*found.slot.ty.shape {
        return Err(AccessError::Shape {
            name: name.to_owned(),
            expected: found.slot.ty.shape.to_vec(),
            given: numbers.shape().to_vec(),
        });
    }
    bytes(world, &found)?;
    put(world, &found, numbers);
    Ok(())
}

/// Writes what was checked to fit.
fn put<T: Element>(world: &mut World, found: &Found, numbers: ArrayViewD<'_, T>) {
    if let Some(row) = row_mut(world, found.entity, found.key) {
        let numbers = numbers.as_standard_layout();
        let elements = numbers.as_slice().expect("in standard layout");
        row[..found.slot.ty.size_bytes()].copy_from_slice(bytemuck::cast_slice(elements));
    }
}

/// Finds a named value in every model of a population.
pub(crate) fn find_all(
    world: &mut World,
    population: Entity,
    name: &str,
    role: Option<Role>,
) -> Result<Vec<Found>, AccessError> {
    sign::refresh(world, population)?;
    let roots = world.get::<Population>(population).map(|found| found.models().to_vec());
    let roots = roots.unwrap_or_default();
    let all: Vec<_> = roots
        .into_iter()
        .map(|root| {
            let (group, member, blueprint) = place(world, root)?;
            found_in((group, member, blueprint), 0, name, role)
        })
        .collect::<Result<_, _>>()?;
    match all.iter().all(|found| found.slot.ty == all[0].slot.ty) {
        true => Ok(all),
        false => Err(AccessError::Mixed { name: name.to_owned() }),
    }
}

/// Copies a parameter or buffer of all models of a population: `[N, …]`, by index.
///
/// # Errors
///
/// [`AccessError`], also if the models do not all have it in one shape.
///
/// Source: `torch.func.stack_module_state`.
#[expect(clippy::missing_panics_doc, reason = "there are as many numbers as the shape says")]
pub fn stack<T: Element>(
    world: &mut World,
    population: Entity,
    name: &str,
    role: Option<Role>,
) -> Result<ArrayD<T>, AccessError> {
    let all = find_all(world, population, name, role)?;
    let mut shape = vec![all.len()];
    let mut numbers: Vec<T> = Vec::new();
    for found in &all {
        check_dtype::<T>(&found.slot)?;
        numbers.extend(bytemuck::pod_collect_to_vec::<u8, T>(bytes(world, found)?));
    }
    shape.extend(all.first().into_iter().flat_map(|found| found.slot.ty.shape.iter()));
    Ok(ArrayD::from_shape_vec(IxDyn(&shape), numbers).expect("as many as the shape says"))
}

/// Overwrites a parameter or buffer of all models of a population with `[N, …]`, by index.
///
/// # Errors
///
/// [`AccessError`], also if the models share it and the slices differ; nothing is written then.
pub fn unstack<T: Element>(
    world: &mut World,
    population: Entity,
    name: &str,
    numbers: ArrayViewD<'_, T>,
) -> Result<(), AccessError> {
    let all = find_all(world, population, name, None)?;
    let mut expected = vec![all.len()];
    expected.extend(all.first().into_iter().flat_map(|found| found.slot.ty.shape.iter()));
    if numbers.shape() != expected {
        let (name, given) = (name.to_owned(), numbers.shape().to_vec());
        return Err(AccessError::Shape { name, expected, given });
    }
    for found in &all {
        check_dtype::<T>(&found.slot)?;
        bytes(world, found)?;
    }
    let first = numbers.axis_iter(Axis(0)).next();
    let mut slices = all.iter().zip(numbers.axis_iter(Axis(0)));
    if slices.any(|(found, slice)| found.shared.is_some() && Some(slice) != first) {
        return Err(AccessError::Mixed { name: name.to_owned() });
    }
    for (found, numbers) in all.iter().zip(numbers.axis_iter(Axis(0))) {
        put(world, found, numbers);
    }
    Ok(())
}

/// Adds columns for `slots`, companions of parameters, to every member of a group that lacks them, their rows
/// zero: one bulk move, when an optimizer comes or gradients are kept for the first time. Models that join
/// the group later have them from the start, and those of later groups for all their parameters. Says
/// whether any was missing.
pub(crate) fn add_columns(
    world: &mut World,
    population: Entity,
    group: usize,
    slots: &[Slot],
) -> bool {
    let known = world.get::<Population>(population).and_then(|found| found.groups().get(group));
    let is_missing = |slot: &&Slot| {
        let contents = known.and_then(|group| group.contents.get(slot.position));
        !matches!(slot.role, Role::Parameter | Role::Buffer)
            && contents.is_some_and(|contents| !contents.companions.contains(&companion(slot)))
    };
    let slots: Vec<_> = slots.iter().filter(is_missing).collect();
    if slots.is_empty() {
        return false;
    }
    let Some(mut found) = world.get_mut::<Population>(population) else { return false };
    slots.iter().for_each(|slot| found.add_companion(slot.role, KEEPER));
    let companions = slots.into_iter().map(|slot| (slot.position, companion(slot)));
    let companions: Vec<_> = companions.collect();
    let is_wider = widen(world, population, group, &companions);
    if is_wider {
        spawn::reserve(world, population);
    }
    is_wider
}

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

/// What [`Contents::companions`] calls a slot.
fn companion(slot: &Slot) -> (Role, usize) {
    (slot.role, if slot.role == Role::Steps { 0 } else { slot.index })
}

/// Takes the companions of these roles off every member of a group: one bulk move, when an optimizer goes.
pub fn remove_columns(world: &mut World, population: Entity, group: usize, roles: &[Role]) {
    let Some(mut found) = world.get_mut::<Population>(population) else { return };
    found.remove_companions(roles, KEEPER);
    let Some(group) = found.groups_mut(KEEPER).get_mut(group) else { return };
    let mut changes = Vec::new();
    for (contents, modules) in group.contents.iter_mut().zip(&group.modules) {
        let mut to = Contents::clone(contents);
        to.companions.retain(|(role, _)| !roles.contains(role));
        if to.companions != contents.companions {
            let from = std::mem::replace(contents, Arc::new(to));
            changes.push((modules.clone(), from, contents.clone()));
        }
    }
    for (entities, from, to) in &changes {
        let kept: Vec<_> = to.keys().collect();
        let gone = from.keys().filter(|key| !kept.contains(key));
        let gone: Vec<_> = gone.filter_map(|key| Columns::find(world, key)).collect();
        for &entity in entities {
            let Ok(mut entity) = world.get_entity_mut(entity) else { continue };
            entity.remove_by_ids(&gone);
            if let Some(mut columned) = entity.get_mut::<Columned>() {
                columned.set(to.clone(), KEEPER);
            }
        }
    }
    if !changes.is_empty() {
        spawn::reserve(world, population);
    }
}

/// Gives the entity of the module at a dotted path of a model; the root if it is empty.
///
/// # Errors
///
/// [`AccessError::NotAModel`], or [`AccessError::NoSuchName`] if there is no such module.
///
/// Source: `torch.nn.Module.get_submodule`.
pub fn module(world: &mut World, root: Entity, path: &str) -> Result<Entity, AccessError> {
    let model = *world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?;
    sign::refresh(world, model.population)?;
    let (group, member, blueprint) = place(world, root)?;
    let position = blueprint.below(0, path).map_err(|_| AccessError::NoSuchName {
        module: blueprint.positions[0].module.type_name(),
        name: path.to_owned(),
    })?;
    Ok(group.modules[position][member])
}

/// Lists the dotted names of a model's parameters.
///
/// # Errors
///
/// [`AccessError::NotAModel`].
///
/// Source: the names of `torch.nn.Module.named_parameters()`.
pub fn parameter_names(world: &mut World, root: Entity) -> Result<Vec<String>, AccessError> {
    let model = *world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?;
    sign::refresh(world, model.population)?;
    let (_, _, blueprint) = place(world, root)?;
    let names = blueprint.positions.iter().flat_map(|at| {
        let path = at.path.as_str();
        let own = at.parameters.iter().filter(|parameter| parameter.tied.is_none());
        own.map(move |parameter| match path {
            "" => parameter.name.clone(),
            path => format!("{path}.{}", parameter.name),
        })
    });
    Ok(names.collect())
}

/// Copies the gradient of a parameter by its dotted name from a module on; `None` if it has none.
///
/// # Errors
///
/// [`AccessError`].
///
/// Source: `torch.Tensor.grad`.
pub fn gradient<T: Element>(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<Option<ArrayD<T>>, AccessError> {
    let found = find(world, module, name, None)?;
    Ok(gradient_of(world, found)?.map(|gradient| gradient.to_owned()))
}

/// Views the gradient of what was found; `None` if it has none.
pub(crate) fn gradient_of<T: Element>(
    world: &World,
    found: Found,
) -> Result<Option<ArrayViewD<'_, T>>, AccessError> {
    check_dtype::<T>(&found.slot)?;
    match found.slot.role == Role::Parameter && found.has_gradient(world) {
        true => found.companion(Role::Gradient).view(world).map(Some),
        false => Ok(None),
    }
}
