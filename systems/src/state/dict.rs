//! A model's, or a whole population's, parameters and buffers by torch's names: `state_dict`.

use std::collections::HashSet;

use bevy_ecs::prelude::*;
use neurarch_components::column::row;
use neurarch_components::hook::{Callback, HookKind};
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::state::{LocalMetadata, StateDict, Tensor};
use neurarch_kernels::ir::program::Slot;

pub use super::hooks::{StateHookError, StateModuleError};
use super::hooks::{StateHooks, contained};
use crate::errors::{AccessError, BindError, SignError};
use crate::structure::sign;
use crate::structure::spot::{Spot, locate};
use crate::structure::traverse::children_of;

/// Why there is no state dict. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateDictError {
    /// The entity is no module of a model.
    #[error("{0} is no module of a model")]
    NotAModule(Entity),
    /// Models of several structures have no common tensors.
    #[error("expected models of one blueprint to stack, got {0} blueprints")]
    Blueprints(usize),
    /// The extra states of several models make no stack.
    #[error("'{name}': expected extra states of one type and shape to stack")]
    ExtraState {
        /// The dotted name.
        name: String,
    },
    /// A module was edited since the model was last settled, and the world is read with `&World`.
    #[error(transparent)]
    Unsettled(AccessError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] StateHookError),
    /// A module type's own [`save_to_state_dict`](neurarch_components::module::Module::save_to_state_dict) panicked.
    #[error(transparent)]
    Module(#[from] StateModuleError),
    /// The entity is no population, or a model's tree is not a model any more.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl StateDictError {
    pub(crate) fn from_access(error: AccessError, module: Entity) -> Self {
        match error {
            AccessError::Sign(error) => StateDictError::Sign(error),
            AccessError::Unsettled { .. } => StateDictError::Unsettled(error),
            _ => StateDictError::NotAModule(module),
        }
    }
}

/// Copies the parameters and persistent buffers of a module and all below it, in torch's order: of each
/// module its parameters, its buffers, then its children. What has several names is there under each.
///
/// `prefix` goes in front of all names; it ends with a dot, or is empty.
///
/// # Shape
///
/// Each tensor has the shape of its parameter: `0.weight` is `[out_features, in_features]`.
///
/// # Errors
///
/// If `module` is no module of a model, or a hook failed.
///
/// Source: `torch.nn.Module.state_dict`. The numbers are copied, not shared with the model.
pub fn state_dict(
    world: &mut World,
    module: Entity,
    prefix: &str,
) -> Result<StateDict, StateDictError> {
    let mut state = StateDict::new();
    state_dict_into(world, module, &mut state, prefix)?;
    Ok(state)
}

/// [`state_dict`] into one that is there: a tensor takes the place of the one of its name. Hooks see all of it.
///
/// # Errors
///
/// As [`state_dict`]; `destination` is as it was then.
///
/// Source: `module.state_dict(destination=…)`.
pub fn state_dict_into(
    world: &mut World,
    module: Entity,
    destination: &mut StateDict,
    prefix: &str,
) -> Result<(), StateDictError> {
    let at = locate(world, module).map_err(|error| StateDictError::from_access(error, module))?;
    *destination = save_at(world, &at, destination.clone(), prefix)?;
    Ok(())
}

/// [`state_dict`] of a module whose model is settled.
pub(crate) fn state_dict_at(
    world: &World,
    at: &Spot,
    prefix: &str,
) -> Result<StateDict, StateDictError> {
    save_at(world, at, StateDict::new(), prefix)
}

fn save_at(
    world: &World,
    at: &Spot,
    to: StateDict,
    prefix: &str,
) -> Result<StateDict, StateDictError> {
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let hooks = StateHooks::of(world, at.population, &blueprint, group, Some(at.member));
    let members = at.member..at.member + 1;
    let mut saving = Saving {
        world,
        blueprint: &blueprint,
        group,
        members,
        stacked: false,
        hooks,
        there: names(&to),
        to,
    };
    saving.save(at.position, prefix)?;
    Ok(saving.to)
}

/// Copies the parameters and persistent buffers of all models of a population.
///
/// # Shape
///
/// Each tensor has the models in front: `0.weight` is `[models, out_features, in_features]`; what the population
/// [shares](crate::structure::shared) is there once for each model, so that `vmap` takes it like the others. A population
/// without models has no tensors.
///
/// # Errors
///
/// [`StateDictError::Blueprints`] if the models are not of one structure, or a hook failed. Hooks of the
/// population and of all modules are called once, hooks of one model are not.
///
/// Source: `torch.func.stack_module_state`.
pub fn stacked_state_dict(
    world: &mut World,
    population: Entity,
) -> Result<StateDict, StateDictError> {
    sign::refresh(world, population)?;
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    let group = match groups {
        [] => return Ok(StateDict::new()),
        [group] => group,
        groups => return Err(StateDictError::Blueprints(groups.len())),
    };
    let Some(blueprint) = world.resource::<Blueprints>().get(group.blueprint) else {
        return Ok(StateDict::new());
    };
    let hooks = StateHooks::of(world, population, blueprint, group, None);
    let members = 0..group.members.len();
    let (there, to) = (HashSet::new(), StateDict::new());
    let mut saving = Saving { world, blueprint, group, members, stacked: true, hooks, there, to };
    saving.save(0, "")?;
    Ok(saving.to)
}

/// Saving the rows of some members of a group, given by their places in it.
struct Saving<'w> {
    world: &'w World,
    blueprint: &'w Blueprint,
    group: &'w Group,
    members: core::ops::Range<usize>,
    stacked: bool,
    hooks: StateHooks<'w>,
    /// The names that the destination had before.
    there: HashSet<String>,
    to: StateDict,
}

/// Lists the names in a state dict.
fn names(state: &StateDict) -> HashSet<String> {
    state.keys().map(str::to_owned).collect()
}

impl Saving<'_> {
    fn save(&mut self, position: usize, prefix: &str) -> Result<(), StateDictError> {
        let of = &self.blueprint.positions[position];
        let path = prefix.strip_suffix('.').unwrap_or(prefix).to_owned();
        let mut metadata = LocalMetadata::from(of.module.version());
        self.hooks.call(
            position,
            HookKind::StateDictPre,
            prefix,
            &metadata,
            |hook, at| match hook {
                Callback::StateDictPre(hook) => hook(at),
                _ => Ok(()),
            },
        )?;
        let mut own = StateDict::new();
        for (name, slot) in own_slots(self.blueprint, position) {
            own.tensors.push(self.tensor(format!("{prefix}{name}"), &slot)?);
        }
        let extra = self.extra_state(position, format!("{prefix}{EXTRA_STATE}"))?;
        own.tensors.extend(extra);
        let first = self.group.modules[position].get(self.members.start);
        let module = first.and_then(|&first| live(self.world, first)).unwrap_or(&*of.module);
        contained(of, "save_to_state_dict", || {
            module.save_to_state_dict(&mut own, prefix, &mut metadata);
        })?;
        match self.to.metadata.iter_mut().find(|(known, _)| *known == path) {
            Some((_, known)) => *known = metadata.clone(),
            None => self.to.metadata.push((path, metadata.clone())),
        }
        for tensor in own {
            // Looked for only where it can be there: a search for each would take the square of their number.
            if self.there.contains(&tensor.name) {
                self.to.insert(tensor);
            } else {
                self.to.tensors.push(tensor);
            }
        }
        for (name, child) in children_of(self.blueprint, position) {
            self.save(child, &format!("{prefix}{name}."))?;
        }
        let to = &mut self.to;
        Ok(self.hooks.call(position, HookKind::StateDictPost, prefix, &metadata, |hook, at| {
            match hook {
                Callback::StateDictPost(hook) => hook(at, to),
                _ => Ok(()),
            }
        })?)
    }

    /// Asks the modules for their extra states, if their type has one.
    fn extra_state(&self, position: usize, name: String) -> Result<Option<Tensor>, StateDictError> {
        let modules = &self.group.modules[position][self.members.clone()];
        let mut states = modules.iter().map(|&module| live(self.world, module)?.get_extra_state());
        let Some(first) = states.next().flatten() else { return Ok(None) };
        let (dtype, own) = (first.dtype(), first.shape().to_vec());
        let mut bytes = first.little_endian().to_vec();
        for state in states {
            let state = state.filter(|state| state.dtype() == dtype && state.shape() == own);
            let state = state.ok_or_else(|| StateDictError::ExtraState { name: name.clone() })?;
            bytes.extend(state.little_endian());
        }
        let models = self.stacked.then_some(modules.len());
        let shape = models.into_iter().chain(own).collect();
        Ok(Some(Tensor::from_little_endian(name, dtype, shape, bytes)))
    }

    fn tensor(&self, name: String, slot: &Slot) -> Result<Tensor, StateDictError> {
        if self.blueprint.is_uninitialized(slot) {
            return Ok(Tensor::uninitialized(name, slot.ty.dtype));
        }
        let size_bytes = slot.ty.size_bytes();
        let mut bytes = Vec::with_capacity(self.members.len() * size_bytes);
        for member in self.members.clone() {
            let (entity, key) = self.group.home(slot, member);
            let missing = || BindError::NoColumn { slot: name.clone(), role: slot.role };
            let row = row(self.world, entity, key).ok_or_else(missing).map_err(SignError::from)?;
            bytes.extend(&row[..size_bytes]);
        }
        let models = self.stacked.then_some(self.members.len());
        let shape = models.into_iter().chain(slot.ty.shape.iter().copied()).collect();
        Ok(Tensor::from_native(name, slot.ty.dtype, shape, bytes))
    }
}

/// What a state dict calls what [`Module::get_extra_state`](neurarch_components::module::Module::get_extra_state)
/// gives.
pub(super) const EXTRA_STATE: &str = "_extra_state";

/// Reads the layer component of a live module.
pub(super) fn live(world: &World, module: Entity) -> Option<&dyn DynModule> {
    world.get_resource::<ModuleTypes>()?.module(world.get_entity(module).ok()?)
}

/// Lists what a state dict has of a position itself, in torch's order: parameters, then persistent buffers.
/// The slot is the owner's where a parameter is tied.
pub(super) fn own_slots(blueprint: &Blueprint, position: usize) -> Vec<(String, Slot)> {
    let at = &blueprint.positions[position];
    let parameters = at.parameters.iter().map(|of| (of, blueprint.parameter(position, &of.name)));
    let buffers = at.buffers.iter().filter(|buffer| buffer.persistent);
    let buffers = buffers.map(|of| (of, blueprint.buffer(position, &of.name)));
    parameters.chain(buffers).filter_map(|(of, slot)| Some((of.name.clone(), slot?))).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Axis, IxDyn};
    use neurarch_components::layers::{Linear, ReLU, Sequential};
    use neurarch_kernels::ir::dtype::Dtype;

    use super::*;
    use crate::structure::access;
    use crate::structure::spawn::spawn_population;

    fn population(world: &mut World, models: usize) -> Entity {
        let network = Sequential::new().push(Linear::new(3, 5)).push(ReLU).push(Linear::new(5, 2));
        spawn_population(world, &network, models, models, 0, Dtype::F32).unwrap()
    }

    #[test]
    fn names_and_shapes_are_those_of_torch() {
        let mut world = World::new();
        let population = population(&mut world, 4);
        let model = world.get::<Population>(population).unwrap().models()[1];
        let told = |tensors: StateDict| -> Vec<_> {
            tensors
                .into_iter()
                .map(|tensor| (tensor.name.clone(), tensor.shape().to_vec()))
                .collect()
        };
        let expected = [
            ("0.weight", vec![5, 3]),
            ("0.bias", vec![5]),
            ("2.weight", vec![2, 5]),
            ("2.bias", vec![2]),
        ];
        let expected = expected.map(|(name, shape)| (name.to_owned(), shape));
        assert_eq!(told(state_dict(&mut world, model, "").unwrap()), expected);
        let stacked = expected.map(|(name, shape)| (name, [vec![4], shape].concat()));
        assert_eq!(told(stacked_state_dict(&mut world, population).unwrap()), stacked);
    }

    #[test]
    fn numbers_are_those_of_each_model_by_index() {
        let mut world = World::new();
        let population = population(&mut world, 3);
        let numbers =
            Array::from_shape_fn(IxDyn(&[3, 5, 3]), |i| (i[0] * 100 + i[1] * 10 + i[2]) as f32);
        access::unstack(&mut world, population, "0.weight", numbers.view()).unwrap();
        let stacked = stacked_state_dict(&mut world, population).unwrap();
        assert_eq!(stacked[0].to_array::<f32>().unwrap(), numbers);

        // The last model moves to the index of one that is despawned.
        let models = world.get::<Population>(population).unwrap().models().to_vec();
        world.despawn(models[0]);
        let stacked = stacked_state_dict(&mut world, population).unwrap();
        assert_eq!(stacked[0].to_array::<f32>().unwrap(), numbers.select(Axis(0), &[2, 1]));
        let own = state_dict(&mut world, models[2], "").unwrap();
        assert_eq!(own[0].to_array::<f32>().unwrap(), numbers.index_axis(Axis(0), 2));
    }

    #[test]
    fn what_is_no_model_or_no_population_is_an_error() {
        let mut world = World::new();
        let population = population(&mut world, 1);
        let other = world.spawn_empty().id();
        let given = state_dict(&mut world, other, "");
        assert_eq!(given, Err(StateDictError::NotAModule(other)));
        let given = state_dict(&mut world, population, "");
        assert_eq!(given, Err(StateDictError::NotAModule(population)));
        let error = stacked_state_dict(&mut world, other).unwrap_err();
        assert_eq!(error, StateDictError::Sign(SignError::NotAPopulation(other)));
    }
}
