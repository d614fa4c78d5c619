//! What of a state dict fits which models.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::hook::{Callback, HookKind, Loading};
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;
use neurarch_components::population::tree::ModuleName;
use neurarch_components::state::{IncompatibleKeys, LocalMetadata, StateDict, Tensor};
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use super::error::LoadStateDictError;
use crate::errors::SignError;
use crate::state::dict::{EXTRA_STATE, live, own_slots};
use crate::state::hooks::{StateHooks, StateModuleError, contained};
use crate::structure::sign;
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

/// Where a state dict goes.
pub(super) struct To {
    pub population: Entity,
    /// The group's place in the population's list.
    pub group: usize,
    /// The models' places in the group.
    pub members: Vec<usize>,
    pub position: usize,
    /// Whether the hooks of the one model are called.
    pub own: bool,
    /// Whether each model gets a slice of its own.
    pub stacked: bool,
}

impl To {
    pub(super) fn roots(&self, world: &World) -> Vec<Entity> {
        let found = world.get::<Population>(self.population);
        let group = found.and_then(|found| found.groups().get(self.group));
        let roots = group.into_iter().flat_map(|group| &group.modules[0]);
        let roots: Vec<_> = roots.copied().collect();
        self.members.iter().filter_map(|&member| roots.get(member).copied()).collect()
    }

    /// Finds the models again, after others of the population changed their structure.
    pub(super) fn follow(
        &mut self,
        world: &mut World,
        roots: &[Entity],
    ) -> Result<bool, SignError> {
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
pub(super) struct Fitting {
    pub slot: Slot,
    pub tensor: Tensor,
    /// The type that the slot gets first, if it is another than it has.
    pub new: Option<Type>,
}

/// What a state dict has for some models.
#[derive(Default)]
pub(super) struct Fitted {
    pub fitting: Vec<Fitting>,
    /// Positions with an extra state, and that.
    pub extra: Vec<(usize, Tensor)>,
    pub keys: IncompatibleKeys,
    /// What is wrong with the rest.
    pub wrong: Option<LoadStateDictError>,
}

/// Finds what fits, and calls the hooks.
pub(super) fn fit(
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
