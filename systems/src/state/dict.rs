//! A model's, or a whole population's, parameters and buffers by torch's names: `state_dict`.

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{Blueprint, Blueprints};
use neurarch_components::column::{ColumnKey, row};
use neurarch_components::population::{Group, Population};
use neurarch_components::tree::Model;
use neurarch_kernels::program::Slot;

use super::safetensors::Tensor;
use crate::sign::{self, SignError};

/// Why there is no state dict. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateDictError {
    /// The entity is not the root of a model.
    #[error("{0} is not the root of a model")]
    NotAModel(Entity),
    /// Models of several structures have no common tensors.
    #[error("expected models of one blueprint to stack, got {0} blueprints")]
    Blueprints(usize),
    /// The entity is no population, or a model's tree is not a model any more.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Copies the parameters and persistent buffers of a model, in torch's order.
///
/// # Shape
///
/// Each tensor has the shape of its parameter: `0.weight` is `[out_features, in_features]`.
///
/// # Errors
///
/// [`StateDictError::NotAModel`] if `model` is no model's root.
///
/// Source: `torch.nn.Module.state_dict`.
pub fn state_dict(world: &mut World, model: Entity) -> Result<Vec<Tensor>, StateDictError> {
    let known = world.get::<Model>(model).copied();
    let Model { population, .. } = known.ok_or(StateDictError::NotAModel(model))?;
    sign::refresh(world, population)?;
    let index = world.get::<Model>(model).ok_or(StateDictError::NotAModel(model))?.index;
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    let member = |group: &Group| group.members.binary_search(&index).ok();
    let found = groups.iter().find_map(|group| Some((group, member(group)?)));
    let (group, member) = found.ok_or(StateDictError::NotAModel(model))?;
    Ok(collect(world, group, member..member + 1, false))
}

/// Copies the parameters and persistent buffers of all models of a population.
///
/// # Shape
///
/// Each tensor has the models in front: `0.weight` is `[models, out_features, in_features]`. A population
/// without models has no tensors.
///
/// # Errors
///
/// [`StateDictError::Blueprints`] if the models are not of one structure.
///
/// Source: `torch.func.stack_module_state`.
pub fn stacked_state_dict(
    world: &mut World,
    population: Entity,
) -> Result<Vec<Tensor>, StateDictError> {
    sign::refresh(world, population)?;
    let groups = world.get::<Population>(population).map(Population::groups).unwrap_or_default();
    match groups {
        [] => Ok(Vec::new()),
        [group] => Ok(collect(world, group, 0..group.members.len(), true)),
        groups => Err(StateDictError::Blueprints(groups.len())),
    }
}

/// Copies the rows of some members of a group, given by their places in it.
fn collect(
    world: &World,
    group: &Group,
    members: core::ops::Range<usize>,
    stacked: bool,
) -> Vec<Tensor> {
    let Some(blueprint) = world.resource::<Blueprints>().get(group.blueprint) else {
        return Vec::new();
    };
    let tensor = |(name, slot): (String, Slot)| {
        if blueprint.is_uninitialized(&slot) {
            return Tensor::uninitialized(name, slot.ty.dtype);
        }
        let key = ColumnKey::of(&slot);
        let size_bytes = slot.ty.size_bytes();
        let modules = &group.modules[slot.position][members.clone()];
        let mut bytes = Vec::with_capacity(modules.len() * size_bytes);
        for &module in modules {
            let row = row(world, module, key);
            bytes.extend(&row.expect("a model that is signed has its columns")[..size_bytes]);
        }
        let models = stacked.then_some(modules.len());
        let shape = models.into_iter().chain(slot.ty.shape.iter().copied()).collect();
        Tensor::from_native(name, slot.ty.dtype, shape, bytes)
    };
    let mut entries = Vec::new();
    list(blueprint, 0, "", &mut entries);
    entries.into_iter().map(tensor).collect()
}

/// Lists what a state dict has, in torch's order: module after module, parameters before buffers; what has
/// several names under each of them.
fn list(blueprint: &Blueprint, position: usize, prefix: &str, entries: &mut Vec<(String, Slot)>) {
    let position = blueprint.positions[position].alias.unwrap_or(position);
    let at = &blueprint.positions[position];
    let parameters = at.parameters.iter().map(|of| (of, blueprint.parameter(position, &of.name)));
    let buffers = at.buffers.iter().filter(|buffer| buffer.persistent);
    let buffers = buffers.map(|of| (of, blueprint.buffer(position, &of.name)));
    let own = parameters.chain(buffers);
    entries.extend(own.filter_map(|(of, slot)| Some((format!("{prefix}{}", of.name), slot?))));
    for &child in &at.children {
        let name = &blueprint.positions[child].name;
        list(blueprint, child, &format!("{prefix}{name}."), entries);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Axis, IxDyn};
    use neurarch_components::layers::{Linear, ReLU, Sequential};
    use neurarch_kernels::dtype::Dtype;

    use super::*;
    use crate::access;
    use crate::spawn::spawn_population;

    fn population(world: &mut World, models: usize) -> Entity {
        let network = Sequential::new().push(Linear::new(3, 5)).push(ReLU).push(Linear::new(5, 2));
        spawn_population(world, &network, models, models, 0, Dtype::F32).unwrap()
    }

    #[test]
    fn names_and_shapes_are_those_of_torch() {
        let mut world = World::new();
        let population = population(&mut world, 4);
        let model = world.get::<Population>(population).unwrap().models()[1];
        let told = |tensors: Vec<Tensor>| -> Vec<_> {
            tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
        };
        let expected = [
            ("0.weight", vec![5, 3]),
            ("0.bias", vec![5]),
            ("2.weight", vec![2, 5]),
            ("2.bias", vec![2]),
        ];
        let expected = expected.map(|(name, shape)| (name.to_owned(), shape));
        assert_eq!(told(state_dict(&mut world, model).unwrap()), expected);
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
        let own = state_dict(&mut world, models[2]).unwrap();
        assert_eq!(own[0].to_array::<f32>().unwrap(), numbers.index_axis(Axis(0), 2));
    }

    #[test]
    fn what_is_no_model_or_no_population_is_an_error() {
        let mut world = World::new();
        let population = population(&mut world, 1);
        let other = world.spawn_empty().id();
        assert_eq!(state_dict(&mut world, other), Err(StateDictError::NotAModel(other)));
        assert_eq!(state_dict(&mut world, population), Err(StateDictError::NotAModel(population)));
        let error = stacked_state_dict(&mut world, other).unwrap_err();
        assert_eq!(error, StateDictError::Sign(SignError::NotAPopulation(other)));
    }
}
