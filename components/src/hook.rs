//! Hooks: functions of a user's own that are called where modules are called, differentiated, saved or
//! loaded.
//!
//! [`Hooks`] is a component of a module's entity: its hooks are called for that model alone. [`PopulationHooks`] is one
//! of a population's: its hooks are called for all models at once. [`GlobalHooks`] is a resource: its hooks are called
//! for every module. What a hook is given it can compute with: what it returns is recorded, hence
//! differentiated; an array of its own is a constant.
//!
//! Source: the `register_*_hook` methods of `torch.nn.Module`, and `torch.utils.hooks`.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use ndarray::{ArrayD, IxDyn};
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::eager::ReadError;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use slotmap::{SlotMap, new_key_type};

use crate::module::mode::Mode;
use crate::module::registered::Value;
use crate::population::tree::Model;
use crate::state::{IncompatibleKeys, LocalMetadata, StateDict};

mod look;

pub use crate::state::Loading;
pub use look::{
    HookAnswer, Look, LookBackward, LookBackwardPre, LookForward, LookForwardPre, LookGradient,
    Returns,
};

new_key_type! {
    /// Tells the hooks of one [`HookTable`] apart.
    pub struct HookKey;
}

/// What a hook may fail with: any error, or a `&str` or `String`.
pub type HookError = Box<dyn Error + Send + Sync>;

/// Where a hook is called: the module, and the recording.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The recording, which computes each op at once.
    pub trace: &'a Trace,
    /// The module's dotted path, the first if it has several; empty for the root.
    pub path: &'a str,
    /// Its type's name.
    pub module: &'static str,
    /// Its entity, if the hook is called for one model.
    pub entity: Option<Entity>,
    /// How many models the values are of: 1 in a hook of one model.
    pub models: usize,
}

impl At<'_> {
    /// Copies the numbers of a value.
    ///
    /// # Shape
    ///
    /// That of the value in a hook of one model; `[models, ..]` in a hook of a population.
    ///
    /// # Errors
    ///
    /// If its elements are not `T`, or an error came before it.
    pub fn array<T: Element>(&self, x: &Var) -> Result<ArrayD<T>, ReadError> {
        let numbers = x.read::<T>()?;
        let models = self.entity.is_none().then_some(self.models);
        let shape: Vec<_> = models.into_iter().chain(x.shape().iter().copied()).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), numbers).map_err(|_| ReadError::Poisoned)
    }

    /// Records an array of the hook's own: a constant, through which no gradient goes.
    ///
    /// # Shape
    ///
    /// As [`array`](At::array) gives.
    pub fn constant<T: Element>(&self, array: &ArrayD<T>) -> Var {
        let numbers: Vec<T> = array.iter().copied().collect();
        let shape = match self.entity {
            Some(_) => array.shape(),
            None => array.shape().get(1..).unwrap_or(&[]),
        };
        self.trace.input_of(shape, &numbers)
    }
}

/// Sees the arguments of a call, and may replace them.
///
/// Source: `register_forward_pre_hook`, with `with_kwargs=True`.
pub type ForwardPreHook =
    dyn FnMut(&At<'_>, &Arguments) -> Result<Option<Arguments>, HookError> + Send;

/// Sees arguments and result of a call, and may replace the result. There is none if `forward` failed, which
/// hooks with [`always_call`](HookOptions::always_call) are told too.
///
/// Source: `register_forward_hook`, with `with_kwargs=True`.
pub type ForwardHook =
    dyn FnMut(&At<'_>, &Arguments, Option<&Tree>) -> Result<Option<Tree>, HookError> + Send;

/// Gradients of a module's inputs or outputs; `None` where there is none.
pub type Gradients = Vec<Option<Var>>;

/// Sees the gradients of a module's outputs before they go back through it, and may replace them.
///
/// Source: `register_full_backward_pre_hook`.
pub type BackwardPreHook =
    dyn FnMut(&At<'_>, &[Option<Var>]) -> Result<Option<Gradients>, HookError> + Send;

/// Sees the gradients of a module's inputs, then those of its outputs, and may replace the former.
///
/// Source: `register_full_backward_hook`.
pub type BackwardHook = dyn FnMut(&At<'_>, &[Option<Var>], &[Option<Var>]) -> Result<Option<Gradients>, HookError>
    + Send;

/// Sees the gradient of a parameter of that name before it is added to `.grad`, and may replace it.
///
/// Source: `torch.Tensor.register_hook`.
pub type GradientHook = dyn FnMut(&At<'_>, &str, &Var) -> Result<Option<Var>, HookError> + Send;

/// Sees the whole `.grad` of a parameter of that name, after a backward pass added to it.
///
/// Source: `torch.Tensor.register_post_accumulate_grad_hook`.
pub type PostAccumulateGradHook = dyn FnMut(&At<'_>, &str, &Var) -> Result<(), HookError> + Send;

/// Where a hook of saving or loading is called.
#[derive(Clone, Copy, Debug)]
pub struct StateAt<'a> {
    /// The module's dotted path in its model; empty for the root.
    pub path: &'a str,
    /// Its type's name.
    pub module: &'static str,
    /// Its entity, if the state is of one model.
    pub entity: Option<Entity>,
    /// What the names of its tensors start with: `0.`.
    pub prefix: &'a str,
    /// Saving: the version of the module's type. Loading: the version that it had when it was saved, if that
    /// is known.
    pub version: Option<u32>,
    /// What the state dict says of the module; before it is saved, its version alone.
    pub metadata: &'a LocalMetadata,
}

/// Is called before a module's own tensors are put into a state dict.
///
/// Source: `register_state_dict_pre_hook`.
pub type StateDictPreHook = dyn FnMut(&StateAt<'_>) -> Result<(), HookError> + Send;

/// Is called after a module's tensors and those of its children were put into a state dict, which it may
/// change.
///
/// Source: `register_state_dict_post_hook`.
pub type StateDictHook = dyn FnMut(&StateAt<'_>, &mut StateDict) -> Result<(), HookError> + Send;

/// Is called before a module's own tensors are loaded, with those of the module and all below it, which it
/// may change: rename keys, convert numbers.
///
/// Source: `register_load_state_dict_pre_hook`.
pub type LoadStateDictPreHook =
    dyn FnMut(&StateAt<'_>, &mut StateDict, &mut Loading<'_>) -> Result<(), HookError> + Send;

/// Is called after a module and all below it were loaded, with the keys that did not match so far, which it
/// may change.
///
/// Source: `register_load_state_dict_post_hook`.
pub type LoadStateDictPostHook =
    dyn FnMut(&StateAt<'_>, &mut IncompatibleKeys) -> Result<(), HookError> + Send;

/// Where a parameter, buffer or child is registered.
#[derive(Clone, Copy, Debug)]
pub struct RegisterAt<'a> {
    /// The module's entity.
    pub module: Entity,
    /// Its type's name.
    pub class: &'static str,
    /// The name of what is registered.
    pub name: &'a str,
}

/// Sees what is registered in a module of a live model, and may give something else in its place.
///
/// Source: `torch.nn.modules.module.register_module_parameter_registration_hook` and its kin.
pub type RegistrationHook =
    dyn FnMut(&RegisterAt<'_>, &Value) -> Result<Option<Value>, HookError> + Send;

/// A kind of hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// [`ForwardPreHook`].
    ForwardPre,
    /// [`ForwardHook`].
    Forward,
    /// [`BackwardPreHook`].
    BackwardPre,
    /// [`BackwardHook`].
    Backward,
    /// [`GradientHook`].
    Gradient,
    /// [`PostAccumulateGradHook`].
    PostAccumulateGrad,
    /// [`BackwardHook`], not full.
    NonFullBackward,
    /// [`StateDictPreHook`].
    StateDictPre,
    /// [`StateDictHook`].
    StateDictPost,
    /// [`LoadStateDictPreHook`].
    LoadStateDictPre,
    /// [`LoadStateDictPostHook`].
    LoadStateDictPost,
    /// [`RegistrationHook`] of parameters.
    ParameterRegistration,
    /// [`RegistrationHook`] of buffers.
    BufferRegistration,
    /// [`RegistrationHook`] of modules.
    ModuleRegistration,
}

impl HookKind {
    /// Returns whether such hooks are called while a model runs or is differentiated. A model that has any runs
    /// apart from those whose hooks are others.
    pub fn is_of_passes(self) -> bool {
        match self {
            HookKind::ForwardPre
            | HookKind::Forward
            | HookKind::BackwardPre
            | HookKind::Backward
            | HookKind::NonFullBackward
            | HookKind::Gradient
            | HookKind::PostAccumulateGrad => true,
            HookKind::StateDictPre
            | HookKind::StateDictPost
            | HookKind::LoadStateDictPre
            | HookKind::LoadStateDictPost
            | HookKind::ParameterRegistration
            | HookKind::BufferRegistration
            | HookKind::ModuleRegistration => false,
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HookKind::ForwardPre => "forward pre-hook",
            HookKind::Forward => "forward hook",
            HookKind::BackwardPre => "full backward pre-hook",
            HookKind::Backward => "full backward hook",
            HookKind::NonFullBackward => "backward hook",
            HookKind::Gradient => "gradient hook",
            HookKind::PostAccumulateGrad => "post-accumulate-grad hook",
            HookKind::StateDictPre => "state_dict pre-hook",
            HookKind::StateDictPost => "state_dict post-hook",
            HookKind::LoadStateDictPre => "load_state_dict pre-hook",
            HookKind::LoadStateDictPost => "load_state_dict post-hook",
            HookKind::ParameterRegistration => "parameter registration hook",
            HookKind::BufferRegistration => "buffer registration hook",
            HookKind::ModuleRegistration => "module registration hook",
        })
    }
}

/// A function that hooks are made of, with its kind.
pub enum Callback {
    /// See [`ForwardPreHook`].
    ForwardPre(Box<ForwardPreHook>),
    /// See [`ForwardHook`].
    Forward(Box<ForwardHook>),
    /// See [`BackwardPreHook`].
    BackwardPre(Box<BackwardPreHook>),
    /// See [`BackwardHook`].
    Backward(Box<BackwardHook>),
    /// See [`BackwardHook`]; torch's deprecated kind, which is not full.
    NonFullBackward(Box<BackwardHook>),
    /// See [`GradientHook`]; the parameter's own name, such as `weight`.
    Gradient(String, Box<GradientHook>),
    /// See [`PostAccumulateGradHook`]; the parameter's own name.
    PostAccumulateGrad(String, Box<PostAccumulateGradHook>),
    /// See [`StateDictPreHook`].
    StateDictPre(Box<StateDictPreHook>),
    /// See [`StateDictHook`].
    StateDictPost(Box<StateDictHook>),
    /// See [`LoadStateDictPreHook`].
    LoadStateDictPre(Box<LoadStateDictPreHook>),
    /// See [`LoadStateDictPostHook`].
    LoadStateDictPost(Box<LoadStateDictPostHook>),
    /// See [`RegistrationHook`]; called for parameters.
    ParameterRegistration(Box<RegistrationHook>),
    /// See [`RegistrationHook`]; called for buffers.
    BufferRegistration(Box<RegistrationHook>),
    /// See [`RegistrationHook`]; called for children.
    ModuleRegistration(Box<RegistrationHook>),
    /// See [`Look`].
    Look(Look),
}

impl Callback {
    /// Returns the kind.
    pub fn kind(&self) -> HookKind {
        match self {
            Callback::ForwardPre(_) => HookKind::ForwardPre,
            Callback::Forward(_) => HookKind::Forward,
            Callback::BackwardPre(_) => HookKind::BackwardPre,
            Callback::Backward(_) => HookKind::Backward,
            Callback::NonFullBackward(_) => HookKind::NonFullBackward,
            Callback::Gradient(..) => HookKind::Gradient,
            Callback::PostAccumulateGrad(..) => HookKind::PostAccumulateGrad,
            Callback::StateDictPre(_) => HookKind::StateDictPre,
            Callback::StateDictPost(_) => HookKind::StateDictPost,
            Callback::LoadStateDictPre(_) => HookKind::LoadStateDictPre,
            Callback::LoadStateDictPost(_) => HookKind::LoadStateDictPost,
            Callback::ParameterRegistration(_) => HookKind::ParameterRegistration,
            Callback::BufferRegistration(_) => HookKind::BufferRegistration,
            Callback::ModuleRegistration(_) => HookKind::ModuleRegistration,
            Callback::Look(look) => look.kind(),
        }
    }

    /// Returns the parameter's own name, of a hook of a parameter.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Callback::Gradient(name, _)
            | Callback::PostAccumulateGrad(name, _)
            | Callback::Look(Look::Gradient(name, _) | Look::PostAccumulateGrad(name, _)) => {
                Some(name)
            }
            _ => None,
        }
    }

    /// Gives a hook of a parameter another name of the parameter; one of a module stays as it is.
    pub fn rename_parameter(&mut self, to: String) {
        if let Callback::Gradient(name, _)
        | Callback::PostAccumulateGrad(name, _)
        | Callback::Look(Look::Gradient(name, _) | Look::PostAccumulateGrad(name, _)) = self
        {
            *name = to;
        }
    }
}

/// How a hook is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookOptions {
    /// Whether it is called before the hooks that are there already.
    pub prepend: bool,
    /// Whether a forward hook is called even if the call failed.
    pub always_call: bool,
}

/// A registered hook.
#[derive(Clone)]
pub struct Hook {
    /// Its key in the table.
    pub key: HookKey,
    /// Its kind.
    pub kind: HookKind,
    /// See [`HookOptions::always_call`].
    pub always_call: bool,
    /// Whether it only looks, as its type says.
    pub only_looks: bool,
    /// The function; locked while it runs.
    pub callback: Arc<Mutex<Callback>>,
}

/// The hooks of one module, or of all, in the order in which they are called.
#[derive(Clone, Default)]
pub struct HookTable {
    hooks: SlotMap<HookKey, Hook>,
    order: Vec<HookKey>,
    /// Whether a backward hook that was registered, removed or not, is full.
    is_full: Option<bool>,
}

impl HookKind {
    /// Returns whether a backward hook is full; `None` of other kinds.
    pub fn is_full(self) -> Option<bool> {
        match self {
            HookKind::Backward => Some(true),
            HookKind::NonFullBackward => Some(false),
            _ => None,
        }
    }
}

impl HookTable {
    fn insert(&mut self, callback: Callback, options: HookOptions) -> HookKey {
        let HookOptions { prepend, always_call } = options;
        let kind = callback.kind();
        self.is_full = kind.is_full().or(self.is_full);
        let only_looks = matches!(callback, Callback::Look(_));
        let callback = Arc::new(Mutex::new(callback));
        let hook = |key| Hook { key, kind, always_call, only_looks, callback };
        let key = self.hooks.insert_with_key(hook);
        let at = if prepend { 0 } else { self.order.len() };
        self.order.insert(at, key);
        key
    }

    fn remove(&mut self, key: HookKey) -> bool {
        self.order.retain(|&known| known != key);
        self.hooks.remove(key).is_some()
    }
}

/// The hooks of a module: a component of its entity. Empty ones are as good as none.
///
/// A clone has the same functions, but its own list. A sparse set holds them, so that the weights of a model stay
/// in the table of its neighbors when it gets hooks. Immutable, because inserting them is what the model notices.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::hook::*;
/// # let mut world = World::new();
/// # let module = world.spawn_empty().id();
/// let mut hooks = Hooks::default();
/// let look = Callback::ForwardPre(Box::new(|_, _| Ok(None)));
/// let handle = hooks.register(look, HookOptions::default());
/// world.entity_mut(module).insert(hooks);
/// assert!(handle.remove());
/// ```
#[derive(Component, Default)]
#[component(storage = "SparseSet", immutable, on_insert = tell, on_remove = tell_of_removal)]
pub struct Hooks {
    table: Arc<Mutex<HookTable>>,
}

/// A model with hooks of its own runs apart from those without. Its mode counts as written to whenever hooks come, so that
/// models are grouped anew.
fn tell(world: DeferredWorld<'_>, context: HookContext) {
    mark_model(world, &context, true);
}

/// A model whose hooks are gone is grouped anew; its next pass takes its mark off.
fn tell_of_removal(world: DeferredWorld<'_>, context: HookContext) {
    mark_model(world, &context, false);
}

fn mark_model(mut world: DeferredWorld<'_>, context: &HookContext, is_hooked: bool) {
    if !world.get::<Hooks>(context.entity).is_some_and(Hooks::watch_passes) {
        return;
    }
    let mut root = context.entity;
    while world.get::<Model>(root).is_none() {
        match world.get::<ChildOf>(root).map(ChildOf::parent) {
            Some(parent) if parent != context.entity => root = parent,
            _ => return,
        }
    }
    if let Some(mut mode) = world.get_mut::<Mode>(root) {
        mode.hooked |= is_hooked;
    }
}

/// The hooks of every module: a resource.
///
/// Source: `torch.nn.modules.module.register_module_forward_hook` and its kin.
#[derive(Resource, Clone, Default)]
pub struct GlobalHooks(pub Hooks);

/// The hooks of a population, by the path of the module: a component of the population's entity. Each is
/// called once for all of its models.
#[derive(Component, Clone, Default)]
pub struct PopulationHooks(pub Vec<(String, Hooks)>);

impl PopulationHooks {
    /// Returns the hooks of the module at `path`, adding an empty list if there is none.
    pub fn at_mut(&mut self, path: &str) -> &mut Hooks {
        let place = self.0.iter().position(|(known, _)| known == path);
        let place = place.unwrap_or_else(|| {
            self.0.push((path.to_owned(), Hooks::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// Returns the hooks of the module at `path`.
    pub fn at(&self, path: &str) -> Option<&Hooks> {
        self.0.iter().find(|(known, _)| known == path).map(|(_, hooks)| hooks)
    }

    /// Returns the same lists once more; see [`Hooks::share`].
    #[must_use]
    pub fn share(&self) -> PopulationHooks {
        let shared = self.0.iter().map(|(path, hooks)| (path.clone(), hooks.share()));
        PopulationHooks(shared.collect())
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, hooks)| hooks.is_empty())
    }

    /// Returns whether any is called while models run or are differentiated.
    pub fn watch_passes(&self) -> bool {
        self.0.iter().any(|(_, hooks)| hooks.watch_passes())
    }
}

impl Hooks {
    /// Registers a hook.
    pub fn register(&mut self, callback: Callback, options: HookOptions) -> RemovableHandle {
        let key = lock(&self.table).insert(callback, options);
        RemovableHandle { table: Arc::downgrade(&self.table), key }
    }

    /// Lists the hooks of a kind, in the order in which they are called. A list once taken does not change
    /// when hooks are removed, as in torch.
    pub fn list(&self, kind: HookKind) -> Vec<Hook> {
        let table = lock(&self.table);
        let hooks = table.order.iter().filter_map(|&key| table.hooks.get(key));
        hooks.filter(|hook| hook.kind == kind).cloned().collect()
    }

    /// Calls `f` with each hook of a kind, in the order in which they are called. The list is locked meanwhile.
    #[doc(hidden)]
    pub fn for_each(&self, kind: HookKind, f: impl FnMut(&Hook)) {
        let table = lock(&self.table);
        let hooks = table.order.iter().filter_map(|&key| table.hooks.get(key));
        hooks.filter(|hook| hook.kind == kind).for_each(f);
    }

    /// Returns whether those that are called while models run or are differentiated only look, as their type says.
    pub fn only_look(&self) -> bool {
        let table = lock(&self.table);
        table.hooks.values().all(|hook| hook.only_looks || !hook.kind.is_of_passes())
    }

    /// Returns whether backward hooks that were registered, removed or not, are full; `None` if there was none.
    ///
    /// Source: `_is_full_backward_hook` of `torch.nn.Module`.
    pub fn is_full_backward(&self) -> Option<bool> {
        lock(&self.table).is_full
    }

    /// Returns the same list once more: what a handle removes is gone from both.
    #[doc(hidden)]
    #[must_use]
    pub fn share(&self) -> Hooks {
        Hooks { table: self.table.clone() }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        lock(&self.table).order.is_empty()
    }

    /// Returns whether any is called while models run or are differentiated.
    pub fn watch_passes(&self) -> bool {
        lock(&self.table).hooks.values().any(|hook| hook.kind.is_of_passes())
    }

    /// Lists the kinds of those that are called while models run or are differentiated.
    pub fn kinds(&self) -> Vec<HookKind> {
        let table = lock(&self.table);
        let kinds = table.hooks.values().map(|hook| hook.kind);
        kinds.filter(|kind| kind.is_of_passes()).collect()
    }

    /// Returns whether any is of one of these kinds.
    pub fn have(&self, kinds: &[HookKind]) -> bool {
        lock(&self.table).hooks.values().any(|hook| kinds.contains(&hook.kind))
    }
}

impl Clone for Hooks {
    fn clone(&self) -> Self {
        Hooks { table: Arc::new(Mutex::new(lock(&self.table).clone())) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({})", lock(&self.table).order.len())
    }
}

/// What registering a hook gives: with it the hook can be removed, from anywhere, even while it runs.
///
/// Dropping it removes nothing; [`guard`](RemovableHandle::guard) gives one that does. Handles can be
/// compared, ordered by nothing, and used as keys.
///
/// Source: `torch.utils.hooks.RemovableHandle`.
#[derive(Clone, Debug)]
pub struct RemovableHandle {
    table: Weak<Mutex<HookTable>>,
    key: HookKey,
}

impl RemovableHandle {
    /// Removes the hook; says whether it was there. Removing twice is harmless.
    pub fn remove(&self) -> bool {
        self.table.upgrade().is_some_and(|table| lock(&table).remove(self.key))
    }

    /// Returns a guard that removes the hook when it is dropped: Python's `with handle:`.
    #[must_use = "the hook is removed when the guard is dropped"]
    pub fn guard(self) -> HookGuard {
        HookGuard(self)
    }
}

impl PartialEq for RemovableHandle {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && Weak::ptr_eq(&self.table, &other.table)
    }
}

impl Eq for RemovableHandle {}

impl std::hash::Hash for RemovableHandle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        self.table.as_ptr().hash(state);
    }
}

/// Removes a hook when it is dropped.
#[derive(Debug)]
pub struct HookGuard(RemovableHandle);

impl Drop for HookGuard {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl fmt::Debug for HookTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.order.iter()).finish()
    }
}

/// Locks a table; one whose lock a panic poisoned is whole, since nothing panics while it is changed.
fn lock(table: &Mutex<HookTable>) -> MutexGuard<'_, HookTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Callback {
        Callback::ForwardPre(Box::new(|_, _| Ok(None)))
    }

    #[test]
    fn hooks_are_listed_in_order_and_prepended_ones_come_first() {
        let mut hooks = Hooks::default();
        let first = hooks.register(nothing(), HookOptions::default());
        let second = hooks.register(nothing(), HookOptions::default());
        let before = HookOptions { prepend: true, ..HookOptions::default() };
        let zeroth = hooks.register(nothing(), before);
        let keys = |hooks: &Hooks| {
            hooks.list(HookKind::ForwardPre).iter().map(|hook| hook.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&hooks), [zeroth.key, first.key, second.key]);
        assert!(hooks.list(HookKind::Backward).is_empty());
        assert!(first.remove() && !first.remove());
        assert_eq!(keys(&hooks), [zeroth.key, second.key]);
    }

    #[test]
    fn a_guard_removes_its_hook_and_a_handle_outlives_its_table() {
        let mut hooks = Hooks::default();
        drop(hooks.register(nothing(), HookOptions::default()).guard());
        assert!(hooks.is_empty());
        let handle = hooks.register(nothing(), HookOptions::default());
        let copy = hooks.clone();
        drop(hooks);
        assert!(!handle.remove());
        assert!(!copy.is_empty());
    }
}
