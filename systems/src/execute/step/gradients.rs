//! Gradients that are there: taking them away, and those of inputs.

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use neurarch_components::column::row_mut;
use neurarch_components::module::mode::{Bits, HasGradient};
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::program::{Role, Slot};

use super::check::{models, result_shape, shaped};
use super::update::run_rule;
use crate::compile::plans::Kind;
use crate::errors::{AccessError, SignError, StepError};
use crate::execute::run::{Run, with_run};
use crate::execute::{run, shared};
use crate::structure::columns::own_row_mut;
use crate::structure::spot::locate;
use crate::structure::{access, columns, population, root, sign, spot};

/// Takes gradients away: to torch's `None`, or to zeros where there are any if `set_to_none` is false. Of a
/// population, those of all active models; of a module, those of its parameters and of all below it.
///
/// # Errors
///
/// If `entity` is neither a population nor a module of one.
///
/// Source: `torch.nn.Module.zero_grad`, whose default is `set_to_none=True`.
pub fn zero_grad(world: &mut World, entity: Entity, set_to_none: bool) -> Result<(), StepError> {
    if world.get::<Population>(entity).is_none() {
        return zero_grad_below(world, entity, set_to_none);
    }
    with_run(world, entity, |world, run| {
        if !run.cohorts.list.is_empty() {
            shared::zero(world, entity, set_to_none);
        }
        if set_to_none {
            for cohort in &mut run.cohorts.list {
                cohort.scheme.has_gradient = Bits::new();
            }
            return write_gradient_bits(world, run, entity);
        }
        run_rule(world, run, entity, Kind::ZeroGradients)
    })
}

/// [`zero_grad`] of one module and all below it.
fn zero_grad_below(world: &mut World, module: Entity, set_to_none: bool) -> Result<(), StepError> {
    let not_there = SignError::NotAPopulation(module);
    let (root, population) = root::root_of(world, module).ok_or(not_there.clone())?;
    sign::refresh(world, population)?;
    let (group, place, blueprint) = spot::place(world, root).map_err(|_| not_there.clone())?;
    let position = group.modules.iter().position(|modules| modules[place] == module);
    let below = blueprint.parameters_below(position.ok_or(not_there)?);
    let of_population = below
        .iter()
        .filter_map(|&(position, index)| blueprint.positions[position].parameters[index].shared);
    let of_population: Vec<_> = of_population.collect();
    let gradients = below.into_iter().map(|(position, index)| {
        let key = group.contents[position].key(Role::Gradient, index);
        (blueprint.number(position, index), group.modules[position][place], key)
    });
    let gradients: Vec<_> = gradients.collect();
    for shared in of_population {
        shared::zero_at(world, shared.owner, shared.index, set_to_none);
    }
    let Some(mut bits) = world.get_mut::<HasGradient>(root) else { return Ok(()) };
    let mut zeroed = Vec::new();
    for (number, entity, key) in gradients {
        if bits.0.contains(number) && set_to_none {
            bits.0.set(number, false);
        } else if bits.0.contains(number) {
            zeroed.push((entity, key));
        }
    }
    for (entity, key) in zeroed {
        if let Some(row) = row_mut(world, entity, key) {
            row.fill(0);
        }
    }
    Ok(())
}

/// Overwrites the gradient of one parameter of a model, or takes it away.
///
/// # Errors
///
/// If `root` is no model's root or has no such parameter, or `gradient` has another shape or element type.
/// Nothing is written then.
///
/// Source: assignment to `torch.Tensor.grad`.
pub fn set_gradient<T: Element>(
    world: &mut World,
    root: Entity,
    name: &str,
    gradient: Option<ArrayViewD<'_, T>>,
) -> Result<(), AccessError> {
    let at = locate(world, root)?;
    let blueprint = at.blueprint(world);
    let slot = access::find_slot(&blueprint, name).filter(|slot| slot.role == Role::Parameter);
    let slot = slot.ok_or_else(|| AccessError::NoSuchName {
        module: blueprint.positions[0].module.type_name(),
        name: name.to_owned(),
    })?;
    if blueprint.is_uninitialized(&slot) {
        return Err(AccessError::Uninitialized { name: name.to_owned() });
    }
    let slot = Slot { role: Role::Gradient, ..slot };
    if let Some(gradient) = &gradient {
        let (name, expected) = (name.to_owned(), slot.ty.dtype);
        if T::DTYPE != expected {
            return Err(AccessError::Dtype { name, expected, given: T::DTYPE });
        }
        if gradient.shape() != &*slot.ty.shape {
            let (expected, given) = (slot.ty.shape.to_vec(), gradient.shape().to_vec());
            return Err(AccessError::Shape { name, expected, given });
        }
        columns::add_columns(world, at.population, at.group, std::slice::from_ref(&slot));
        let entity = at.group(world).modules[slot.position][at.member];
        if let Some(row) = own_row_mut(world, entity, (slot.role, slot.index)) {
            let numbers: Vec<T> = gradient.iter().copied().collect();
            row[..slot.ty.size_bytes()].copy_from_slice(bytemuck::cast_slice(&numbers));
        }
    }
    let number = blueprint.number(slot.position, slot.index);
    if let Some(mut bits) = world.get_mut::<HasGradient>(root) {
        bits.0.set(number, gradient.is_some());
    }
    Ok(())
}

/// Returns the gradient of what the last forward pass was called with, which
/// [`requires_grad`](crate::compile::array::Input::requires_grad), after [`backward`](super::backward()); `None` if the results do not
/// depend on it, or a later forward pass began. Of several values it is the first one's:
/// [`input_gradients`] has all.
///
/// # Shape
///
/// `[models, ..]`: also if all models got the same numbers, each has a gradient of its own. Inactive models
/// have zeros.
///
/// # Errors
///
/// If there is no such population, a model was spawned since the forward pass, or the input's elements are not `T`.
///
/// Source: `torch.Tensor.grad` of an input.
pub fn input_gradient<T: Element>(
    world: &World,
    population: Entity,
) -> Result<Option<ArrayD<T>>, StepError> {
    Ok(input_gradients(world, population)?.into_iter().next().flatten())
}

/// [`input_gradient`] of each value that the models were called with, in order.
///
/// # Errors
///
/// As [`input_gradient`].
pub fn input_gradients<T: Element>(
    world: &World,
    population: Entity,
) -> Result<Vec<Option<ArrayD<T>>>, StepError> {
    let n_models = models(world, population)?;
    let all = run::input_gradients(world, population)?.into_iter().map(|found| {
        let Some((ty, bytes)) = found else { return Ok(None) };
        let shape = result_shape("gradient", n_models, &ty, T::DTYPE)?;
        Ok(Some(shaped(IxDyn(&shape), bytemuck::pod_collect_to_vec::<u8, T>(&bytes))))
    });
    all.collect()
}

/// Writes to every member which parameters have a gradient.
pub(super) fn write_gradient_bits(
    world: &mut World,
    run: &mut Run,
    population: Entity,
) -> Result<(), StepError> {
    for cohort in &run.cohorts.list {
        for index in cohort.at.members.indices() {
            let root = population::population(world, population)?.models()[index];
            let Some(mut bits) = world.get_mut::<HasGradient>(root) else { continue };
            if bits.0 != cohort.scheme.has_gradient {
                bits.0.clone_from(&cohort.scheme.has_gradient);
            }
        }
    }
    run.cohorts.look(world);
    Ok(())
}
