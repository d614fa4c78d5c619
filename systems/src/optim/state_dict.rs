//! The state of a model's optimizers, on its way out and back in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::row;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::optimizer::{DynOptimizer, DynParamGroups, Form, StateEntry};
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::Model;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use crate::errors::AccessError;
use crate::structure::columns::{own_row, own_row_mut};
use crate::structure::optimizers::{Optimizers, group_of};
use crate::structure::spot::{Spot, locate};
use crate::structure::{access, columns, spot};

/// Why the state of optimizers cannot be read or loaded. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerStateError {
    /// The entity is not the root of a model.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There are more or fewer groups; torch's words.
    #[error("loaded state dict has a different number of parameter groups")]
    Groups,
    /// A group has more or fewer parameters; torch's words.
    #[error(
        "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
    )]
    GroupSize,
    /// A group has an optimizer of another type.
    #[error("parameter group {0}: the loaded optimizer is of another type")]
    Type(usize),
    /// A tensor has another shape than the state.
    #[error("state {index}.{name}: expected shape {expected:?}, got {given:?}")]
    Shape {
        /// torch's index of the parameter.
        index: usize,
        /// The state's name.
        name: &'static str,
        /// The shape of the state.
        expected: Vec<usize>,
        /// The shape that was given.
        given: Vec<usize>,
    },
}

/// A parameter group of one of a model's optimizers.
#[derive(Debug)]
pub struct ParamGroup {
    /// Its number in the optimizer that it is of.
    pub number: usize,
    /// Its hyperparameters: numbers and flags.
    pub optimizer: Box<dyn DynOptimizer>,
    /// The indices of its parameters.
    pub params: Vec<usize>,
    /// Their dotted names in the model.
    pub param_names: Vec<String>,
}

impl Clone for ParamGroup {
    fn clone(&self) -> Self {
        ParamGroup {
            number: self.number,
            optimizer: self.optimizer.clone_box(),
            params: self.params.clone(),
            param_names: self.param_names.clone(),
        }
    }
}

/// The state of a model's optimizers, in torch's layout.
///
/// Source: what `torch.optim.Optimizer.state_dict` gives.
#[derive(Clone, Debug, Default)]
pub struct OptimizerStateDict {
    /// For each parameter, by its index over all groups, its states by torch's names; those that have none
    /// are left out.
    pub state: BTreeMap<usize, Vec<Tensor>>,
    /// The groups of all optimizers, those of optimizers higher in the tree first.
    pub param_groups: Vec<ParamGroup>,
}

/// A parameter that an optimizer updates.
struct Place {
    name: String,
    position: usize,
    index: usize,
    entity: Entity,
    ty: Type,
    /// Where it lies, if the population's models share it.
    shared: Option<SharedRow>,
}

/// A parameter group.
struct Owned {
    /// The module that has the optimizer.
    entity: Entity,
    /// The group's number there.
    number: usize,
    optimizer: Box<dyn DynOptimizer>,
    places: Vec<Place>,
}

/// The optimizer that is nearest to a module.
#[derive(Clone, Copy)]
struct Owner<'w> {
    optimizer: &'w dyn DynParamGroups,
    /// The path of the module that has it.
    path: &'w str,
    /// Where its groups begin in the list.
    first: usize,
}

/// Lists the parameter groups of the optimizers of a member of a group.
fn groups(world: &World, group: &Group, member: usize, blueprint: &Blueprint) -> Vec<Owned> {
    let optimizers = world.resource::<Optimizers>();
    let mut owners: Vec<Option<Owner<'_>>> = Vec::new();
    let mut groups: Vec<Owned> = Vec::new();
    for (position, at) in blueprint.positions.iter().enumerate() {
        let entity = group.modules[position][member];
        let own = optimizers.on(world, entity).map(|optimizer| {
            let first = groups.len();
            groups.extend((0..optimizer.n_groups()).filter_map(|number| {
                let optimizer = optimizer.group(number)?.clone_box();
                Some(Owned { entity, number, optimizer, places: Vec::new() })
            }));
            Owner { optimizer, path: &at.path, first }
        });
        let owner = own.or_else(|| at.parent.and_then(|parent| owners[parent]));
        owners.push(owner);
        let Some(Owner { optimizer, path, first }) = owner else { continue };
        for (index, of) in at.parameters.iter().enumerate() {
            if of.has_column() && of.tied.is_none() && at.alias.is_none() {
                let (name, ty) = (blueprint.path_below(position, &of.name), of.ty.clone());
                let number = group_of(optimizer, path, &name, &ty.shape);
                let place = Place { name, position, index, entity, ty, shared: None };
                groups[first + number].places.push(place);
            }
        }
    }
    groups
}

/// Returns the key of the counts of steps at a position.
fn steps_slot(blueprint: &Blueprint, position: usize) -> Slot {
    let ty = Type::new(Dtype::F32, [blueprint.positions[position].parameters.len()]);
    Slot { name: String::new(), role: Role::Steps, position, index: 0, ty }
}

fn state_slot(place: &Place, state: usize) -> Slot {
    let Place { position, index, ty, .. } = place;
    let role = Role::State(state as u8);
    Slot { name: String::new(), role, position: *position, index: *index, ty: ty.clone() }
}

/// Copies the numbers of a companion of a parameter.
fn numbers(world: &World, place: &Place, slot: &Slot) -> Option<Tensor> {
    let row = match place.shared {
        Some(shared) => row(world, shared.owner, shared.key(slot.role, &slot.ty)),
        None => own_row(world, place.entity, (slot.role, slot.index)),
    }?;
    let bytes = row[..slot.ty.size_bytes()].to_vec();
    let shape = slot.ty.shape.to_vec();
    Some(Tensor::from_native(String::new(), slot.ty.dtype, shape, bytes))
}

/// Returns the shape in which torch keeps a state.
fn shape_of(form: Form, shape: &[usize]) -> Vec<usize> {
    let mut kept = shape.to_vec();
    match (form, kept.as_mut_slice()) {
        (Form::Number, _) => kept.clear(),
        (Form::Rows, [.., last]) => *last = 1,
        (Form::Columns, [.., rows, _]) => *rows = 1,
        _ => {}
    }
    kept
}

/// Returns a state as torch keeps it.
fn keep(state: &Tensor, kept: StateEntry) -> Tensor {
    let shape = shape_of(kept.form, state.shape());
    let size = state.dtype().size_bytes();
    let numel: usize = shape.iter().product();
    let mut bytes = state.to_native();
    bytes.resize(numel * size, 0);
    let mut dtype = state.dtype();
    if kept.form == Form::Number {
        // The sign says that the number has the parameter's precision, not that of an f32.
        let double = |bytes: &[u8]| bytemuck::pod_read_unaligned::<f64>(bytes);
        if dtype == Dtype::F64 && double(&bytes).is_sign_negative() {
            bytes = double(&bytes).abs().to_ne_bytes().to_vec();
        } else if dtype == Dtype::F64 {
            bytes = (double(&bytes) as f32).to_ne_bytes().to_vec();
            dtype = Dtype::F32;
        }
    }
    Tensor::from_native(kept.name.to_owned(), dtype, shape, bytes)
}

/// Which precision a [`Form::Number`] of parameters in double precision has after it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// The parameter's, as in torch.
    OfParameter,
    /// That which it was saved in.
    AsSaved,
}

/// Returns the elements of a state's row from what torch keeps.
fn restore(tensor: &Tensor, form: Form, ty: &Type, precision: Precision) -> Vec<u8> {
    let mut bytes = tensor.cast(ty.dtype).to_native();
    if form == Form::Number {
        let is_single = precision == Precision::AsSaved && tensor.dtype() == Dtype::F32;
        if ty.dtype == Dtype::F64 && !is_single {
            let number: f64 = bytemuck::pod_read_unaligned(&bytes);
            bytes = (-number).to_ne_bytes().to_vec();
        }
        bytes = bytes.repeat(ty.shape.numel());
    }
    bytes.resize(ty.size_bytes(), 0);
    bytes
}

/// Copies the state of the optimizers of the model at `root`.
///
/// # Errors
///
/// If `root` is no model's root.
///
/// Source: `torch.optim.Optimizer.state_dict`. There a model has one optimizer, here the groups of all optimizers on its
/// modules are listed.
pub fn optimizer_state_dict(
    world: &mut World,
    root: Entity,
) -> Result<OptimizerStateDict, OptimizerStateError> {
    let (found, _, _) = find(world, root)?;
    let (group, member, blueprint) = spot::place(world, root)?;
    debug_assert_eq!(found.len(), groups(world, group, member, blueprint).len());
    let mut dict = OptimizerStateDict::default();
    let mut next = 0;
    for Owned { number, optimizer, places, .. } in found {
        let params = (next..next + places.len()).collect();
        for place in &places {
            let tensors = states(world, blueprint, &*optimizer, place);
            if !tensors.is_empty() {
                dict.state.insert(next, tensors);
            }
            next += 1;
        }
        let param_names = places.into_iter().map(|place| place.name).collect();
        dict.param_groups.push(ParamGroup { number, optimizer, params, param_names });
    }
    Ok(dict)
}

/// Copies the state that an optimizer keeps for a parameter, by its dotted name from a module on: `step`, `exp_avg`.
/// Empty before the first step, and if no optimizer updates it.
///
/// # Errors
///
/// If there is no such parameter.
///
/// Source: `torch.optim.Optimizer.state[parameter]`.
pub fn optimizer_state(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<Vec<Tensor>, AccessError> {
    let at = locate(world, module)?;
    optimizer_state_at(world, &at, name)
}

/// [`optimizer_state`] below a module whose model is settled.
pub(crate) fn optimizer_state_at(
    world: &World,
    at: &Spot,
    name: &str,
) -> Result<Vec<Tensor>, AccessError> {
    let found = access::found_at(world, at, name, None)?;
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let Some(optimizers) = world.get_resource::<Optimizers>() else { return Ok(Vec::new()) };
    let Slot { name: mut full, role, position, index, ty } = found.slot;
    if role != Role::Parameter {
        let module = blueprint.positions[at.position].module.type_name();
        return Err(AccessError::NoSuchName { module, name: name.to_owned() });
    }
    // What the population shares has the population's optimizer first, and one name there.
    let of_all = found.shared.and_then(|shared| optimizers.on(world, shared.owner));
    let shared = found.shared.filter(|_| of_all.is_some());
    let tensors = shared.and_then(|shared| world.get::<SharedTensors>(shared.owner));
    if let Some(tensor) = tensors.zip(shared).and_then(|(all, shared)| all.get(shared.index)) {
        full.clone_from(&tensor.name);
    }
    let mut above = std::iter::successors(Some(position), |&at| blueprint.positions[at].parent);
    let optimizer = of_all.map(|of| (of, "")).or_else(|| {
        above.find_map(|above| {
            let of = optimizers.on(world, group.modules[above][at.member])?;
            Some((of, blueprint.positions[above].path.as_str()))
        })
    });
    let rule = optimizer.and_then(|(of, path)| of.group(group_of(of, path, &full, &ty.shape)));
    let (entity, shared) = (found.module, found.shared);
    let place = Place { name: full, position, index, entity, ty, shared };
    Ok(rule.map_or(Vec::new(), |of| states(world, &blueprint, of, &place)))
}

/// Copies the states of one parameter.
fn states(
    world: &World,
    blueprint: &Blueprint,
    optimizer: &dyn DynOptimizer,
    place: &Place,
) -> Vec<Tensor> {
    let (steps, index) = match place.shared {
        // What is shared has a count of its own.
        Some(_) => (Slot { ty: Type::new(Dtype::F32, [1]), ..steps_slot(blueprint, 0) }, 0),
        None => (steps_slot(blueprint, place.position), place.index),
    };
    let steps = numbers(world, place, &steps);
    let step = steps.and_then(|steps| Some(steps.to_array::<f32>()?[index]));
    let step = step.unwrap_or_default();
    let mut tensors = Vec::new();
    let counted = |tensors: &mut Vec<Tensor>| {
        if optimizer.keeps_step() {
            tensors.push(Tensor::new("step", ndarray::arr0(step).view()));
        }
    };
    if step == 0.0 {
        let shape = &place.ty.shape;
        for state in 0..optimizer.states().len() {
            let kept = optimizer.state_entry(state, shape);
            let Some((kept, initial)) = kept.zip(optimizer.initial(state)) else { continue };
            let filled = ndarray::ArrayD::from_elem(&shape[..], initial);
            tensors.push(Tensor::new(kept.name, filled.view()).cast(place.ty.dtype));
        }
        if !tensors.is_empty() {
            counted(&mut tensors);
        }
        return tensors;
    }
    counted(&mut tensors);
    for state in 0..optimizer.states().len() {
        let row = numbers(world, place, &state_slot(place, state));
        let kept = optimizer.state_entry(state, &place.ty.shape);
        tensors.extend(row.zip(kept).map(|(row, kept)| keep(&row, kept)));
    }
    tensors
}

/// What [`find`] gives: the optimizers of a model, the model's population and its group's place there.
type FoundGroups = (Vec<Owned>, Entity, usize);

fn find(world: &mut World, root: Entity) -> Result<FoundGroups, AccessError> {
    let population = world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?.population;
    let at = locate(world, root)?;
    Optimizers::init(world);
    let (group, member, blueprint) = spot::place(world, root)?;
    Ok((groups(world, group, member, blueprint), population, at.group))
}

/// Forgets what the optimizer on a module of the model at `root` keeps for its parameters.
///
/// # Errors
///
/// If `root` is no model's root.
pub(crate) fn forget(world: &mut World, root: Entity, module: Entity) -> Result<(), AccessError> {
    let (found, _, _) = find(world, root)?;
    let own = found.iter().filter(|own| own.entity == module);
    for (own, place) in own.flat_map(|own| own.places.iter().map(move |place| (own, place))) {
        for state in 0..own.optimizer.states().len() {
            let role = Role::State(state as u8);
            if let Some(row) = own_row_mut(world, place.entity, (role, place.index)) {
                row.fill(0);
            }
        }
        if let Some(row) = own_row_mut(world, place.entity, (Role::Steps, 0)) {
            row[place.index * 4..][..4].fill(0);
        }
    }
    Ok(())
}

/// Checks that a state can be loaded into the model at `root`.
///
/// # Errors
///
/// As [`load_optimizer_state_dict`].
pub(crate) fn check_optimizer_state_dict(
    world: &mut World,
    root: Entity,
    dict: &OptimizerStateDict,
) -> Result<(), OptimizerStateError> {
    let (found, _, _) = find(world, root)?;
    check(&found, dict)
}

/// Overwrites the state of the optimizers of the model at `root`, their numbers and flags included. A parameter
/// that has no state in `dict` has none afterwards, as before its first step.
///
/// # Errors
///
/// If `root` is no model's root, or the groups, their optimizers' types, or shapes of states differ.
///
/// Source: `torch.optim.Optimizer.load_state_dict`.
pub fn load_optimizer_state_dict(
    world: &mut World,
    root: Entity,
    dict: &OptimizerStateDict,
) -> Result<(), OptimizerStateError> {
    load(world, root, dict, Precision::OfParameter)
}

/// [`load_optimizer_state_dict`] in one precision or the other.
pub(crate) fn load(
    world: &mut World,
    root: Entity,
    dict: &OptimizerStateDict,
    precision: Precision,
) -> Result<(), OptimizerStateError> {
    let (found, population, group) = find(world, root)?;
    let blueprint: Arc<Blueprint> = spot::place(world, root)?.2.clone();
    check(&found, dict)?;
    let mut written = Vec::new();
    for (own, given) in found.iter().zip(&dict.param_groups) {
        for (place, index) in own.places.iter().zip(&given.params) {
            let tensors = dict.state.get(index).map_or(&[][..], Vec::as_slice);
            let mut is_there = false;
            for state in 0..given.optimizer.states().len() {
                let slot = state_slot(place, state);
                let kept = given.optimizer.state_entry(state, &place.ty.shape);
                let tensor = kept.and_then(|kept| {
                    let tensor = tensors.iter().find(|tensor| tensor.name == kept.name)?;
                    Some((tensor, kept))
                });
                is_there |= tensor.is_some();
                let bytes = match tensor {
                    Some((tensor, kept)) => restore(tensor, kept.form, &place.ty, precision),
                    None => vec![0; place.ty.size_bytes()],
                };
                written.push((place.entity, slot, 0, bytes));
            }
            let step = tensors.iter().find(|tensor| tensor.name == "step");
            let step =
                step.and_then(|step| step.cast(Dtype::F32).to_array::<f32>()?.first().copied());
            let step = step.unwrap_or(f32::from(u8::from(is_there)));
            let slot = steps_slot(&blueprint, place.position);
            written.push((place.entity, slot, place.index * 4, step.to_ne_bytes().to_vec()));
        }
    }
    let slots: Vec<_> = written.iter().map(|(_, slot, ..)| slot.clone()).collect();
    columns::add_columns(world, population, group, &slots);
    for (entity, slot, from, bytes) in written {
        if let Some(row) = own_row_mut(world, entity, (slot.role, slot.index)) {
            row[from..from + bytes.len()].copy_from_slice(&bytes);
        }
    }
    let given: Vec<_> = found.iter().zip(&dict.param_groups).collect();
    for of_one in given.chunk_by(|(one, _), (other, _)| one.entity == other.entity) {
        let entity = of_one[0].0.entity;
        let own = world.resource::<Optimizers>().on(world, entity);
        let Some(mut optimizer) = own.map(DynParamGroups::clone_box) else { continue };
        for (own, given) in of_one {
            optimizer.group_mut(own.number).map(|group| group.assign(&*given.optimizer));
        }
        if let Ok(mut entity) = world.get_entity_mut(entity) {
            optimizer.insert(&mut entity);
        }
    }
    Ok(())
}

fn check(found: &[Owned], dict: &OptimizerStateDict) -> Result<(), OptimizerStateError> {
    if found.len() != dict.param_groups.len() {
        return Err(OptimizerStateError::Groups);
    }
    for (number, (own, given)) in found.iter().zip(&dict.param_groups).enumerate() {
        if own.places.len() != given.params.len() {
            return Err(OptimizerStateError::GroupSize);
        }
        if !own.optimizer.is_of_one_type(&*given.optimizer) {
            return Err(OptimizerStateError::Type(number));
        }
        for (place, &index) in own.places.iter().zip(&given.params) {
            let tensors = dict.state.get(&index).into_iter().flatten();
            for tensor in tensors {
                let states = 0..given.optimizer.states().len();
                let mut kept =
                    states.filter_map(|state| given.optimizer.state_entry(state, &place.ty.shape));
                let Some(kept) = kept.find(|kept| kept.name == tensor.name) else { continue };
                let expected = shape_of(kept.form, &place.ty.shape);
                if tensor.shape() != expected {
                    let (name, given) = (kept.name, tensor.shape().to_vec());
                    return Err(OptimizerStateError::Shape { index, name, expected, given });
                }
            }
        }
    }
    Ok(())
}
