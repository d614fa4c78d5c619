//! Loading: a state dict goes back into a model, into every model of a population, or one slice into each.

mod error;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::row_mut;
use neurarch_components::hook::{Callback, HookKind, Loading};
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::HasGradient;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::ModuleName;
use neurarch_components::state::{IncompatibleKeys, LocalMetadata, StateDict, Tensor};
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

pub use error::LoadStateDictError;

use super::dict::{EXTRA_STATE, live, own_slots};
use super::hooks::{StateHooks, StateModuleError, contained, has_own};
use crate::edit::registration;
use crate::errors::{AccessError, SignError};
use crate::execute::shared;
use crate::structure::sign;
use crate::structure::spot::locate;
use crate::structure::tie::untie_given;
use crate::structure::traverse::children_of;

/// How a state dict is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether it is an error that keys do not match.
    pub strict: bool,
    /// Whether parameters and buffers take the element type of the tensors, and lose their gradients, as new
    /// ones do; otherwise the numbers are converted.
    pub assign: bool,
}

/// torch's: strict, without `assign`.
impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { strict: true, assign: false }
    }
}

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

/// Where a state dict goes.
struct To {
    population: Entity,
    /// The group's place in the population's list.
    group: usize,
    /// The models' places in the group.
    members: Vec<usize>,
    position: usize,
    /// Whether the hooks of the one model are called.
    own: bool,
    /// Whether each model gets a slice of its own.
    stacked: bool,
}

impl To {
    fn roots(&self, world: &World) -> Vec<Entity> {
        let found = world.get::<Population>(self.population);
        let group = found.and_then(|found| found.groups().get(self.group));
        let roots = group.into_iter().flat_map(|group| &group.modules[0]);
        let roots: Vec<_> = roots.copied().collect();
        self.members.iter().filter_map(|&member| roots.get(member).copied()).collect()
    }

    /// Finds the models again, after others of the population changed their structure.
    fn follow(&mut self, world: &mut World, roots: &[Entity]) -> Result<bool, SignError> {
        sign::refresh(world, self.population)?;
        let Some(found) = world.get::<Population>(self.population) else { return Ok(false) };
        let roots: HashSet<_> = roots.iter().collect();
        let is_his = |group: &Group| group.modules[0].iter().any(|root| roots.contains(root));
        let Some(number) = found.groups().iter().position(is_his) else { return Ok(false) };
        let places = found.groups()[number].modules[0].iter().enumerate();
        let members = places.filter(|(_, root)| roots.contains(root)).map(|(place, _)| place);
        (self.group, self.members) = (number, members.collect());
        Ok(true)
    }
}

/// A tensor that goes into a slot of all members.
struct Fitting {
    slot: Slot,
    tensor: Tensor,
    /// The type that the slot gets first, if it is another than it has.
    new: Option<Type>,
}

/// What a state dict has for some models.
#[derive(Default)]
struct Fitted {
    fitting: Vec<Fitting>,
    /// Positions with an extra state, and that.
    extra: Vec<(usize, Tensor)>,
    keys: IncompatibleKeys,
    /// What is wrong with the rest.
    wrong: Option<LoadStateDictError>,
}

/// Finds what fits, and calls the hooks.
fn fit(
    world: &World,
    to: &To,
    state: &StateDict,
    options: LoadOptions,
) -> Result<Fitted, LoadStateDictError> {
    let not_a_population = SignError::NotAPopulation(to.population);
    let found = world.get::<Population>(to.population).ok_or(not_a_population.clone())?;
    let Some(group) = found.groups().get(to.group) else { return Ok(Fitted::default()) };
    let blueprint: Arc<Blueprint> =
        world.resource::<Blueprints>().get(group.blueprint).ok_or(not_a_population)?.clone();
    let own = to.members.first().copied().filter(|_| to.own);
    let mut loader = Loader {
        world,
        hooks: StateHooks::of(world, to.population, &blueprint, group, own),
        blueprint: &blueprint,
        group,
        first: to.members.first().copied(),
        models: to.stacked.then_some(to.members.len()),
        metadata: &state.metadata,
        assign: options.assign,
        keys: IncompatibleKeys::default(),
        error_msgs: Vec::new(),
        fitting: Vec::new(),
        extra: Vec::new(),
        is_uninitialized: false,
    };
    let given = StateDict { tensors: state.tensors.clone(), metadata: Vec::new() };
    let walked = loader.load(to.position, "", given);
    let Loader { keys, error_msgs, fitting, extra, is_uninitialized, .. } = loader;
    let is_wrong = options.strict && !keys.is_empty() || !error_msgs.is_empty();
    let (module, strict) = (blueprint.positions[to.position].module.type_name(), options.strict);
    let wrong = match walked {
        Err(error) => Some(error),
        Ok(()) if is_uninitialized => Some(LoadStateDictError::Uninitialized),
        Ok(()) => is_wrong.then(|| {
            let keys = keys.clone();
            LoadStateDictError::Incompatible { module, keys, error_msgs, strict }
        }),
    };
    Ok(Fitted { fitting, extra, keys, wrong })
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

/// Matches a state dict with what is there.
struct Loader<'w> {
    world: &'w World,
    hooks: StateHooks<'w>,
    blueprint: &'w Blueprint,
    group: &'w Group,
    /// A member whose entities show what the blueprint does not: names of children that are not there.
    first: Option<usize>,
    /// How many models there are slices for, if each has its own.
    models: Option<usize>,
    metadata: &'w [(String, LocalMetadata)],
    assign: bool,
    keys: IncompatibleKeys,
    error_msgs: Vec<String>,
    fitting: Vec<Fitting>,
    /// Positions with an extra state, and that.
    extra: Vec<(usize, Tensor)>,
    /// Whether a tensor without a shape was given for a slot that has one.
    is_uninitialized: bool,
}

impl Loader<'_> {
    /// Loads what is below `prefix` in `state`: a module, its children, then what hooks say.
    fn load(
        &mut self,
        position: usize,
        prefix: &str,
        mut state: StateDict,
    ) -> Result<(), LoadStateDictError> {
        let path = prefix.strip_suffix('.').unwrap_or(prefix);
        let known = self.metadata.iter().find(|(known, _)| known == path);
        let unknown = LocalMetadata::default();
        let metadata = known.map_or(&unknown, |(_, known)| known);
        let Loader { hooks, keys, error_msgs, .. } = self;
        hooks.call(position, HookKind::LoadStateDictPre, prefix, metadata, |hook, at| {
            let mut loading = Loading {
                strict: true,
                missing_keys: &mut keys.missing_keys,
                unexpected_keys: &mut keys.unexpected_keys,
                error_msgs,
            };
            match hook {
                Callback::LoadStateDictPre(hook) => hook(at, &mut state, &mut loading),
                _ => Ok(()),
            }
        })?;
        self.change_own(position, prefix, metadata, &mut state)?;
        self.load_own(position, prefix, metadata.version, &state);
        let blueprint = self.blueprint;
        for (name, child) in children_of(blueprint, position) {
            let prefix = format!("{prefix}{name}.");
            let below = state.iter().filter(|tensor| tensor.name.starts_with(&prefix));
            let below = below.cloned().collect();
            self.load(child, &prefix, below)?;
        }
        let Loader { hooks, keys, .. } = self;
        Ok(hooks.call(position, HookKind::LoadStateDictPost, prefix, metadata, |hook, at| {
            match hook {
                Callback::LoadStateDictPost(hook) => hook(at, keys),
                _ => Ok(()),
            }
        })?)
    }

    /// Returns the module of a position, as the first member has it.
    fn module(&self, position: usize) -> &'_ dyn DynModule {
        let first = self.first.map(|first| self.group.modules[position][first]);
        let own = first.and_then(|first| live(self.world, first));
        own.unwrap_or(&*self.blueprint.positions[position].module)
    }

    /// Lets the module's type change what the module is loaded from.
    fn change_own(
        &mut self,
        position: usize,
        prefix: &str,
        metadata: &LocalMetadata,
        state: &mut StateDict,
    ) -> Result<(), StateModuleError> {
        let module = self.module(position).clone_box();
        let Loader { blueprint, keys, error_msgs, .. } = self;
        let mut loading = Loading {
            strict: true,
            missing_keys: &mut keys.missing_keys,
            unexpected_keys: &mut keys.unexpected_keys,
            error_msgs,
        };
        contained(&blueprint.positions[position], "load_from_state_dict", || {
            module.load_from_state_dict(state, prefix, metadata, &mut loading);
        })
    }

    /// Source: `torch.nn.Module._load_from_state_dict`.
    fn load_own(&mut self, position: usize, prefix: &str, version: Option<u32>, state: &StateDict) {
        let blueprint = self.blueprint;
        let module = &blueprint.positions[position].module;
        let by_name: HashMap<&str, &Tensor> =
            state.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let own = own_slots(self.blueprint, position);
        for (name, slot) in &own {
            let key = format!("{prefix}{name}");
            match by_name.get(key.as_str()) {
                Some(tensor) => self.fit(key, slot, tensor),
                None if module.may_lack(name, version) => {}
                None => self.keys.missing_keys.push(key),
            }
        }
        let extra_key = format!("{prefix}{EXTRA_STATE}");
        match (self.module(position).get_extra_state().is_some(), by_name.get(extra_key.as_str())) {
            (true, Some(&tensor)) => self.fit_extra(position, tensor),
            (true, None) => self.keys.missing_keys.push(extra_key.clone()),
            (false, Some(_)) => self.keys.unexpected_keys.push(extra_key.clone()),
            (false, None) => {}
        }
        let children = self.child_names(position);
        let is_unexpected = |key: &&str| {
            let below = key.strip_prefix(prefix).filter(|_| *key != extra_key);
            below.is_some_and(|below| match below.split_once('.') {
                Some((child, _)) => !children.contains(child),
                None => own.iter().all(|(name, _)| name != below),
            })
        };
        let unexpected: Vec<_> = state.keys().filter(is_unexpected).map(str::to_owned).collect();
        self.keys.unexpected_keys.extend(unexpected);
    }

    /// Names the children of a position, those that are torch's `None` included.
    fn child_names(&self, position: usize) -> HashSet<&str> {
        let children = children_of(self.blueprint, position).map(|(name, _)| name);
        let module = self.first.map(|first| self.group.modules[position][first]);
        let live = module.and_then(|module| self.world.get::<Children>(module));
        let live = live.into_iter().flat_map(|children| children.iter());
        let named = live.filter_map(|child| self.world.get::<ModuleName>(child));
        children.chain(named.map(|name| &*name.0)).collect()
    }

    /// Takes an extra state, if it has a slice for each model where it should.
    fn fit_extra(&mut self, position: usize, tensor: &Tensor) {
        let models = self.models.map(|models| (models, tensor.shape().first() == Some(&models)));
        if let Some((models, false)) = models {
            self.error_msgs.push(format!(
                "size mismatch for {}: expected extra states of {models} models, got shape {}.",
                tensor.name,
                size(tensor.shape())
            ));
            return;
        }
        self.extra.push((position, tensor.clone()));
    }

    fn fit(&mut self, key: String, slot: &Slot, tensor: &Tensor) {
        if self.blueprint.is_uninitialized(slot) {
            self.materialize(slot, tensor);
            return;
        }
        if tensor.is_uninitialized() {
            self.is_uninitialized = true;
            return;
        }
        let models = self.models.into_iter();
        let expected: Vec<usize> = models.chain(slot.ty.shape.iter().copied()).collect();
        // torch 0.3 saved single numbers with one axis.
        let mut single = expected.clone();
        single.push(1);
        let is_single = slot.ty.shape.is_empty() && tensor.shape() == single;
        if tensor.shape() != expected && !is_single {
            let (given, expected) = (size(tensor.shape()), size(&expected));
            self.error_msgs.push(format!(
                "size mismatch for {key}: copying a param with shape {given} from checkpoint, \
                 the shape in current model is {expected}."
            ));
            return;
        }
        let is_kept = slot.role == Role::Buffer || tensor.dtype().is_float();
        if self.assign && tensor.dtype() != slot.ty.dtype && !is_kept {
            let (whole, given) = (size(&expected), size(tensor.shape()));
            self.error_msgs.push(format!(
                "While copying the parameter named \"{key}\", whose dimensions in the model are {whole} \
                 and whose dimensions in the checkpoint are {given}, an exception occurred : \
                 ('expected a parameter of a floating-point type, got {}',).",
                tensor.dtype()
            ));
            return;
        }
        let is_assigned = self.assign && tensor.dtype() != slot.ty.dtype;
        if self.blueprint.shared(slot).is_some() && (is_assigned || !self.is_one(tensor)) {
            self.error_msgs.push(format!(
                "While copying the parameter named \"{key}\", which the population shares, an exception \
                 occurred : ('expected {} and the same numbers for all models',).",
                slot.ty.dtype
            ));
            return;
        }
        let new = is_assigned.then(|| Type { dtype: tensor.dtype(), shape: slot.ty.shape.clone() });
        self.fitting.push(Fitting { slot: slot.clone(), tensor: tensor.clone(), new });
    }

    /// Returns whether a tensor has the same numbers for all models.
    fn is_one(&self, tensor: &Tensor) -> bool {
        let bytes = tensor.to_native();
        let mut slices = bytes.chunks_exact((bytes.len() / self.models.unwrap_or(1).max(1)).max(1));
        let first = slices.next();
        slices.all(|slice| Some(slice) == first)
    }

    /// Gives a parameter or buffer without a shape that of the tensor, if that has one.
    fn materialize(&mut self, slot: &Slot, tensor: &Tensor) {
        let own = match self.models {
            None => Some(tensor.shape()),
            Some(models) => tensor.shape().strip_prefix(&[models]),
        };
        let Some(own) = own.filter(|_| !tensor.is_uninitialized()) else { return };
        let new = Some(Type { dtype: slot.ty.dtype, shape: own.into() });
        let tensor = tensor.cast(slot.ty.dtype);
        self.fitting.push(Fitting { slot: slot.clone(), tensor, new });
    }
}

/// Spells a shape as torch does.
fn size(shape: &[usize]) -> String {
    format!("torch.Size({shape:?})")
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
