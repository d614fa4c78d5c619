//! Sharing: one parameter or buffer for all models of a population, with one row of memory.
//!
//! Each model reads the row; the gradients of all models are summed, in the order of their numbers, and the
//! parameter is updated once, after all of them.

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::{SharedRow, SharedTensor, SharedTensors};
use neurarch_components::column::{Columns, RowBundle, row};
use neurarch_components::population::Population;
use neurarch_components::population::tie::{Tie, Ties};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use crate::errors::AccessError;
use crate::structure::access::find_all;
use crate::structure::columns::write_own;
use crate::structure::{sign, spawn};

/// Makes a parameter or buffer, by its dotted name, one for all models of a population: that of its first
/// model, by index. Models that come later share it, too.
///
/// There is one row of it, whatever the number of models. Its gradient is the sum of the models' gradients: of
/// active ones in which it requires one. The models' numbers give the [order](neurarch_kernels::cpu::sum) of its
/// terms, so that its bits depend neither on threads nor on tiles; the
/// optimizer then updates the parameter once. That is the optimizer on the population's own entity if there
/// is one; otherwise the models must have equal ones. The gradient, the optimizer's state and its count of steps
/// start anew.
///
/// What is written to it through one model, all models have: [`set_parameter`](crate::structure::access::write),
/// `load_state_dict`. Evolution leaves it as it is. What is shared already stays so.
///
/// # Errors
///
/// If a model has nothing of that name, the models do not have it alike, or there is no model.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::{access, shared};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(1, 1), 3, 3, 7, Dtype::F32)?;
/// let biases = ndarray::array![[1.0_f32], [2.0], [3.0]].into_dyn();
/// access::unstack(&mut world, layers, "bias", biases.view())?;
/// shared::share(&mut world, layers, "bias")?;
/// let biases = access::stack::<f32>(&mut world, layers, "bias", None)?;
/// assert_eq!(biases, ndarray::array![[1.0], [1.0], [1.0]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `for model in models: model.bias = models[0].bias`.
pub fn share(world: &mut World, population: Entity, name: &str) -> Result<(), AccessError> {
    let all = find_all(world, population, name, None)?;
    let Some(first) = all.first() else { return Err(AccessError::NoModels(population)) };
    if all.iter().any(|found| found.slot.role != first.slot.role) {
        return Err(AccessError::Mixed { name: name.to_owned() });
    }
    let Slot { role, ty, name: own, .. } = first.slot.clone();
    let known = all.iter().find_map(|found| found.shared);
    if known.is_some() && all.iter().any(|found| found.shared.is_some() && found.shared != known) {
        return Err(AccessError::Mixed { name: name.to_owned() });
    }
    let shared = match known {
        Some(row) => {
            world.get::<SharedTensors>(population).and_then(|of| of.get(row.index)).cloned()
        }
        None => None,
    };
    let owner_parameter = match shared {
        Some(known) => known.name,
        None => {
            let numbers = row(world, first.entity, first.key).map(<[u8]>::to_vec);
            let numbers = numbers.ok_or(AccessError::NoColumn { name: own.clone(), role })?;
            let tensor =
                SharedTensor { name: own.clone(), role, ty: ty.clone(), has_gradient: false };
            let mut tensors = world.get_mut::<SharedTensors>(population);
            let tensors = tensors.as_deref_mut().map(std::mem::take);
            let mut tensors = tensors.unwrap_or_default();
            let index = tensors.add(tensor);
            let key = SharedRow { owner: population, index }.key(role, &ty);
            let mut bundle = RowBundle::new(world, [key], None);
            if let Some(row) = bundle.row_mut(key) {
                row.copy_from_slice(&numbers);
            }
            let mut entity = world.entity_mut(population);
            entity.insert(tensors);
            bundle.insert(&mut entity);
            own
        }
    };
    for found in all.iter().filter(|found| found.shared.is_none()) {
        let parameter = leaf(&found.slot.name).to_owned();
        let tie = Tie { parameter, owner: population, owner_parameter: owner_parameter.clone() };
        let mut ties = world.get::<Ties>(found.module).cloned().unwrap_or(Ties(Vec::new()));
        ties.0.push(tie);
        world.entity_mut(found.module).insert(ties);
    }
    sign::refresh(world, population)?;
    spawn::reserve(world, population);
    Ok(())
}

/// Gives each model its own copy of a parameter or buffer that the population shares, by its dotted name. The
/// copies have no gradient, and their optimizers' state starts anew.
///
/// # Errors
///
/// If a model has nothing of that name, or it is not shared.
///
/// Source: `for model in models: model.bias = copy.deepcopy(model.bias)`.
pub fn unshare(world: &mut World, population: Entity, name: &str) -> Result<(), AccessError> {
    let all = find_all(world, population, name, None)?;
    let found = all.iter().find_map(|found| found.shared);
    let shared = found.ok_or_else(|| AccessError::NotShared { name: name.to_owned() })?;
    let tensors = world.get::<SharedTensors>(population);
    let tensor = tensors.and_then(|tensors| tensors.get(shared.index)).cloned();
    let SharedTensor { name: own, role, ty, .. } =
        tensor.ok_or_else(|| AccessError::NotShared { name: name.to_owned() })?;
    let key = shared.key(role, &ty);
    let numbers = row(world, population, key).map(<[u8]>::to_vec);
    let numbers = numbers.ok_or(AccessError::NoColumn { name: own.clone(), role })?;
    // Also where it goes by another name in a model of another structure.
    let (mut tied, mut modules) = (Vec::new(), Vec::new());
    for group in world.get::<Population>(population).map(Population::groups).unwrap_or_default() {
        for (contents, entities) in group.contents.iter().zip(&group.modules) {
            tied.extend(entities.iter().filter(|&&at| world.get::<Ties>(at).is_some()));
            let of = contents.parameters.iter().chain(&contents.buffers);
            let mut names = of.filter(|of| of.shared == Some(shared)).map(|of| of.name.clone());
            if let Some(name) = names.next() {
                modules.extend(entities.iter().map(|&at| (at, name.clone())));
            }
        }
    }
    for module in tied {
        let Some(mut ties) = world.get::<Ties>(module).cloned() else { continue };
        let before = ties.0.len();
        ties.0.retain(|tie| tie.owner != population || tie.owner_parameter != own);
        let mut module = world.entity_mut(module);
        match ties.0.len() {
            0 => drop(module.remove::<Ties>()),
            left if left < before => drop(module.insert(ties)),
            _ => {}
        }
    }
    sign::refresh(world, population)?;
    for (module, name) in modules {
        write_own(world, module, role, &name, &numbers);
    }
    forget(world, population, shared);
    spawn::reserve(world, population);
    Ok(())
}

/// Takes what is shared no more off the population's entity.
fn forget(world: &mut World, population: Entity, shared: SharedRow) {
    let tensors = world.get_mut::<SharedTensors>(population);
    let Some(tensor) = tensors.and_then(|mut tensors| tensors.take(shared.index)) else { return };
    let steps = Type::new(Dtype::F32, [1]);
    let states = (0..u8::MAX).map(Role::State);
    let roles = [tensor.role, Role::Gradient].into_iter().chain(states);
    let keys = roles.map(|role| shared.key(role, &tensor.ty));
    let keys = keys.chain([shared.key(Role::Steps, &steps)]);
    let ids: Vec<_> = keys.filter_map(|key| Columns::find(world, key)).collect();
    if let Ok(mut entity) = world.get_entity_mut(population) {
        entity.remove_by_ids(&ids);
    }
}

fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
