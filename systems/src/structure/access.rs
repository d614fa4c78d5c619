//! Parameters, buffers and their companions by name: of one model, or stacked over a population.

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::column::{ColumnKey, row, row_mut};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::{HasGradient, Mode};
use neurarch_components::population::Population;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Model;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::program::{Role, Slot};

pub use crate::errors::AccessError;
use crate::structure::sign;
use crate::structure::spot::{Spot, locate, place};

/// Finds the slot of a dotted name.
pub fn find_slot(blueprint: &Blueprint, name: &str) -> Option<Slot> {
    find_slot_below(blueprint, 0, name)
}

/// Finds the slot of a name that is dotted from a position on.
pub(crate) fn find_slot_below(blueprint: &Blueprint, position: usize, name: &str) -> Option<Slot> {
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

/// Prints a parameter of a model, by its dotted name below a module, as torch does: `Parameter containing:` and its numbers.
/// A buffer is printed as a tensor.
///
/// # Errors
///
/// If there is no such parameter or buffer.
///
/// Source: `repr(module.weight)`.
pub fn text(world: &mut World, module: Entity, name: &str) -> Result<String, AccessError> {
    let found = find(world, module, name, None)?;
    let bytes = bytes(world, &found)?.to_vec();
    let slot = &found.slot;
    let shape = slot.ty.shape.to_vec();
    let tensor = Tensor::from_native(name.to_owned(), slot.ty.dtype, shape, bytes);
    if slot.role == Role::Buffer {
        return Ok(tensor.to_string());
    }
    Ok(tensor.parameter_text(found.requires_grad(world)))
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
    /// Returns whether the parameter has a gradient.
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

    /// Returns whether the parameter needs a gradient.
    pub(crate) fn requires_grad(&self, world: &World) -> bool {
        let mode = world.get::<Mode>(self.root);
        mode.is_none_or(|mode| !mode.frozen.contains(self.number))
    }

    /// Returns the same of a companion.
    pub(crate) fn companion(mut self, role: Role) -> Found {
        self.slot.role = role;
        self.key = self.key.companion(role);
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

/// Views the numbers of what was found as bytes.
pub(crate) fn bytes<'w>(world: &'w World, found: &Found) -> Result<&'w [u8], AccessError> {
    let bytes = row(world, found.entity, found.key);
    let bytes = bytes.ok_or_else(|| AccessError::NoColumn {
        name: found.slot.name.clone(),
        role: found.slot.role,
    })?;
    Ok(&bytes[..found.slot.ty.size_bytes()])
}

/// Copies a parameter or buffer by its dotted name from a module on, or its companion of role `role`. Systems read with
/// [`Parameters`](crate::system_params::parameters::Parameters).
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
/// [`ParameterCommands`](crate::system_params::commands::ParameterCommands).
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

/// Returns the entity of the module at a dotted path of a model; the root if it is empty.
///
/// # Errors
///
/// [`AccessError::NotAModel`], or [`AccessError::NoSuchName`] if there is no such module.
///
/// Source: `torch.nn.Module.get_submodule`.
pub fn module(world: &mut World, root: Entity, path: &str) -> Result<Entity, AccessError> {
    let model = *world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?;
    sign::refresh_model(world, model.population, root)?;
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
    sign::refresh_model(world, model.population, root)?;
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
