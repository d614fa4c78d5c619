//! Loading: a state dict goes back into a model, into every model of a population, or one slice into each.

mod error;
mod fit;

use std::collections::HashSet;

use bevy_ecs::prelude::*;
use neurarch_components::column::row_mut;
use neurarch_components::module::mode::HasGradient;
use neurarch_components::population::Population;
use neurarch_components::state::{IncompatibleKeys, StateDict, Tensor};
use neurarch_kernels::ir::program::Role;

pub use error::LoadStateDictError;
pub use fit::LoadOptions;

use super::dict::live;
use super::hooks::has_own;
use crate::edit::registration;
use crate::errors::AccessError;
use crate::execute::shared;
use crate::structure::sign;
use crate::structure::spot::locate;
use crate::structure::tie::untie_given;
use fit::{Fitted, Fitting, To, fit};

/// Loads a state dict into a module and all below it, or into every model of a population; gives the keys
/// that do not match.
///
/// # Errors
///
/// [`LoadStateDictError::Incompatible`] if tensors have other sizes, or, if `strict`, keys do not match.
/// As in torch **what fits is loaded all the same**: this is the one function whose failure does not leave
/// everything as it was.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// use neurarch_systems::state::{StateDict, Tensor, load::*};
///
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(2, 1), 3, 3, 7, Dtype::F32)?;
/// let weight = Tensor::new("weight", ndarray::array![[1.0_f32, 2.0]].view());
/// let state = StateDict::from_iter([weight]);
/// let error = load_state_dict(&mut world, layers, &state, LoadOptions::default()).unwrap_err();
/// let expected = "Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: \"bias\". ";
/// assert_eq!(error.to_string(), expected);
/// let partly = LoadOptions { strict: false, ..LoadOptions::default() };
/// let keys = load_state_dict(&mut world, layers, &state, partly)?;
/// assert_eq!(keys.missing_keys, ["bias"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.load_state_dict`. What a population [shares](crate::structure::shared) is loaded for all of
/// its models, whichever is named. A tied parameter that is assigned is tied no more. In a population
/// the hooks of the population and of all modules are called once for each structure, with the models that
/// have hooks of their own apart.
pub fn load_state_dict(
    world: &mut World,
    entity: Entity,
    state: &StateDict,
    options: LoadOptions,
) -> Result<IncompatibleKeys, LoadStateDictError> {
    load_where_fit(world, entity, state, options, Misfit::LoadsTheRest)
}

/// What a tensor or key that does not fit does to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// They are loaded, as in torch.
    LoadsTheRest,
    /// They stay out.
    LoadsNothing,
}

/// [`load_state_dict`] that also says what becomes of what fits where not all does.
pub(super) fn load_where_fit(
    world: &mut World,
    entity: Entity,
    state: &StateDict,
    options: LoadOptions,
    misfit: Misfit,
) -> Result<IncompatibleKeys, LoadStateDictError> {
    if world.get::<Population>(entity).is_some() {
        return load_all(world, entity, state, options, misfit);
    }
    let refused = |error| match error {
        AccessError::Sign(error) => LoadStateDictError::Sign(error),
        _ => LoadStateDictError::NotAModule(entity),
    };
    if options.assign {
        untie_given(world, &[entity], state, 0).map_err(refused)?;
    }
    let at = locate(world, entity).map_err(refused)?;
    let to = To {
        population: at.population,
        group: at.group,
        members: vec![at.member],
        position: at.position,
        own: true,
        stacked: false,
    };
    let fitted = fit(world, &to, state, options)?;
    write(world, &to, fitted, options, misfit)
}

/// Loads one slice of each tensor into each model of a population, by index: `0.weight` is
/// `[models, out_features, in_features]`.
///
/// # Errors
///
/// As [`load_state_dict`], and [`LoadStateDictError::Blueprints`] if the models are not of one structure. Slices
/// for what the population shares have to be equal.
pub fn load_stacked_state_dict(
    world: &mut World,
    population: Entity,
    state: &StateDict,
    options: LoadOptions,
) -> Result<IncompatibleKeys, LoadStateDictError> {
    untie_all(world, population, state, 1, options)?;
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    if groups.len() > 1 {
        return Err(LoadStateDictError::Blueprints(groups.len()));
    }
    let members = (0..groups.first().map_or(0, |group| group.members.len())).collect();
    let to = To { population, group: 0, members, position: 0, own: false, stacked: true };
    let fitted = fit(world, &to, state, options)?;
    write(world, &to, fitted, options, Misfit::LoadsTheRest)
}

/// Loads into every model, those of one structure at once; of several failures the first is told.
fn load_all(
    world: &mut World,
    population: Entity,
    state: &StateDict,
    options: LoadOptions,
    misfit: Misfit,
) -> Result<IncompatibleKeys, LoadStateDictError> {
    untie_all(world, population, state, 0, options)?;
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    let mut targets = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let places = 0..group.members.len();
        let (apart, members): (Vec<_>, Vec<_>) =
            places.partition(|&member| has_own(world, group, member));
        let (group, position) = (number, 0);
        let to = |members, own| To { population, group, members, position, own, stacked: false };
        targets.extend((!members.is_empty()).then(|| to(members, false)));
        targets.extend(apart.into_iter().map(|member| to(vec![member], true)));
    }
    let mut fitted = Vec::new();
    for to in &targets {
        let of = fit(world, to, state, options)?;
        match of.wrong {
            Some(wrong) if misfit == Misfit::LoadsNothing => return Err(wrong),
            _ => fitted.push(of),
        }
    }
    // Tensors of other types make other groups.
    let roots: Vec<Vec<Entity>> = targets.iter().map(|to| to.roots(world)).collect();
    let mut result = Ok(IncompatibleKeys::default());
    for ((mut to, roots), fitted) in targets.into_iter().zip(roots).zip(fitted) {
        if !to.follow(world, &roots)? {
            continue;
        }
        let new = write(world, &to, fitted, options, misfit);
        result = match (result, new) {
            (Ok(mut all), Ok(new)) => {
                let add = |all: &mut Vec<String>, new: Vec<String>| {
                    let known: HashSet<_> = all.iter().cloned().collect();
                    all.extend(new.into_iter().filter(|key| !known.contains(key)));
                };
                add(&mut all.missing_keys, new.missing_keys);
                add(&mut all.unexpected_keys, new.unexpected_keys);
                Ok(all)
            }
            (Ok(_), Err(error)) => Err(error),
            (error, _) => error,
        };
    }
    result
}

/// Signs a population, and unties what is to be assigned in its models.
fn untie_all(
    world: &mut World,
    population: Entity,
    state: &StateDict,
    leading: usize,
    options: LoadOptions,
) -> Result<(), LoadStateDictError> {
    sign::refresh(world, population)?;
    let found = world.get::<Population>(population).filter(|_| options.assign);
    let models = found.map(|found| found.models().to_vec()).unwrap_or_default();
    untie_given(world, &models, state, leading).map_err(|error| match error {
        AccessError::Sign(error) => LoadStateDictError::Sign(error),
        _ => LoadStateDictError::NotAModule(population),
    })
}

/// Writes what fits, unless it is to stay out; returns the keys that do not match.
fn write(
    world: &mut World,
    to: &To,
    Fitted { fitting, extra, keys, wrong }: Fitted,
    options: LoadOptions,
    misfit: Misfit,
) -> Result<IncompatibleKeys, LoadStateDictError> {
    match wrong {
        Some(wrong) if misfit == Misfit::LoadsNothing => Err(wrong),
        wrong => {
            let told = put(world, to, fitting, &extra, options.assign);
            wrong.map_or(told, Err).map(|()| keys)
        }
    }
}

/// Writes what fits.
fn put(
    world: &mut World,
    to: &To,
    fitting: Vec<Fitting>,
    extra: &[(usize, Tensor)],
    assign: bool,
) -> Result<(), LoadStateDictError> {
    let Some(found) = world.get::<Population>(to.population) else { return Ok(()) };
    let Some(group) = found.groups().get(to.group) else { return Ok(()) };
    let group = group.clone();
    let mut retyped = Vec::new();
    for Fitting { slot, tensor, new } in fitting {
        let homes = to.members.iter().map(|&member| group.home(&slot, member));
        let homes: Vec<_> = homes.collect();
        let roots = to.members.iter().map(|&member| group.modules[0][member]);
        let contents = &group.contents[slot.position];
        let shared = contents.shared(slot.role, slot.index);
        if let Some(shared) = shared.filter(|_| assign) {
            shared::zero_at(world, shared.owner, shared.index, true);
        } else if assign && slot.role == Role::Parameter {
            let number = contents.first_parameter + slot.index;
            for root in roots {
                if let Some(mut gradients) = world.get_mut::<HasGradient>(root)
                    && gradients.0.contains(number)
                {
                    gradients.0.set(number, false);
                }
            }
        }
        let ty = new.as_ref().unwrap_or(&slot.ty);
        let bytes = tensor.cast(ty.dtype).to_native();
        let size_bytes = ty.size_bytes();
        let stride = if to.stacked { size_bytes } else { 0 };
        for (place, &(entity, key)) in homes.iter().enumerate() {
            let numbers = &bytes[place * stride..][..size_bytes];
            if let Some(new) = &new {
                retyped.push((entity, slot.clone(), new.clone(), numbers.to_vec()));
            } else if let Some(row) = row_mut(world, entity, key) {
                row[..size_bytes].copy_from_slice(numbers);
            }
        }
    }
    for (module, slot, new, numbers) in retyped {
        registration::retype(world, module, &slot, &new, &numbers)?;
    }
    for (position, state) in extra {
        let of_members = to.members.iter().map(|&member| group.modules[*position][member]);
        for (place, module) in of_members.enumerate() {
            let state = if to.stacked { slice_of(state, place) } else { state.clone() };
            set_extra_state(world, module, &state)?;
        }
    }
    Ok(())
}

/// Copies what a stacked tensor has for the model at a place.
pub(super) fn slice_of(stacked: &Tensor, place: usize) -> Tensor {
    let shape = stacked.shape()[1..].to_vec();
    let size_bytes = shape.iter().product::<usize>() * stacked.dtype().size_bytes();
    let bytes = stacked.little_endian()[place * size_bytes..][..size_bytes].to_vec();
    Tensor::from_little_endian(stacked.name.clone(), stacked.dtype(), shape, bytes)
}

/// Lets a live module take an extra state.
fn set_extra_state(
    world: &mut World,
    module: Entity,
    state: &Tensor,
) -> Result<(), LoadStateDictError> {
    let taken = live(world, module).map(|live| live.with_extra_state(state)).transpose();
    let taken = taken.map_err(|error| {
        let path = state.name.clone();
        LoadStateDictError::ExtraState { path, error }
    })?;
    if let (Some(taken), Ok(mut entity)) = (taken, world.get_entity_mut(module)) {
        taken.insert_into(&mut entity);
    }
    Ok(())
}
