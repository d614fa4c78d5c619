//! Containers of live models: torch's operations on `Sequential`, `ModuleList`, `ModuleDict`, `ParameterList` and
//! `ParameterDict` whose models are spawned.
//!
//! The rules are those of the descriptions in [`neurarch_components::containers`]: an operation is done on a
//! description of what is there, and what comes out is done to the entities. Names and places change, numbers
//! do not move: a module that gets another index keeps its weights, gradients, optimizer state, modes, hooks
//! and ties. What is new starts with numbers that its model has not drawn before.
//!
//! A target is a module's entity, for one model, or `(population, path)`, for the containers of all models of a
//! population at once: planned for each structure, done in all, signed once.

mod children;
mod draft;
mod edit;
mod error;
mod key;
mod parameters;
mod read;
mod site;

use bevy_ecs::prelude::*;
use neurarch_components::module::registered::{IntoValue, Value};
use neurarch_components::state::Tensor;

pub use error::EditError;
pub use key::Key;
pub use read::{Item, add, contains, get, items, len, mul, slice, union};

use crate::execute::hooks::Target;
use draft::{Draft, Taken};
use edit::{Out, edit};

/// What was taken out of live containers, model after model by their indices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Popped {
    /// Modules, which are part of no model any more: put in again by
    /// [`LiveModule`](neurarch_components::containers::LiveModule), or despawned.
    pub modules: Vec<Entity>,
    /// Copies of parameters, which are gone.
    pub parameters: Vec<Tensor>,
}

impl From<Out> for Popped {
    fn from(out: Out) -> Self {
        let parameters = out.parameters.into_iter().flatten().collect();
        Popped { modules: out.modules, parameters }
    }
}

/// Does an operation that takes nothing out.
fn change(
    world: &mut World,
    target: impl Into<Target>,
    deed: impl Fn(&mut Draft) -> Result<(), EditError>,
) -> Result<(), EditError> {
    edit(world, target, |draft| deed(draft).map(|()| Taken::default())).map(drop)
}

fn values<V: IntoValue>(values: impl IntoIterator<Item = V>) -> Vec<Value> {
    values.into_iter().map(IntoValue::into_value).collect()
}

/// Appends a module to a live list of modules, or a parameter to one of parameters.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::containers;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::structure::traverse;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// let root = world.get::<Population>(brains).unwrap().models()[1];
/// containers::append(&mut world, root, Linear::new(3, 1))?; // The one model.
/// containers::insert(&mut world, (brains, ""), 0, Linear::new(2, 2))?; // All of them.
/// assert_eq!(containers::len(&mut world, root)?, 4);
/// assert_eq!(traverse::repr(&mut world, root)?, "\
/// Sequential(
///   (0): Linear(in_features=2, out_features=2, bias=True)
///   (1): Linear(in_features=2, out_features=3, bias=True)
///   (2): Tanh()
///   (3): Linear(in_features=3, out_features=1, bias=True)
/// )");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `append` of torch's lists.
pub fn append(
    world: &mut World,
    target: impl Into<Target>,
    value: impl IntoValue,
) -> Result<(), EditError> {
    let value = value.into_value();
    change(world, target, |draft| draft.append(value.clone()))
}

/// Inserts a module before the one at an index of a live list.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `insert` of torch's lists: that of `ModuleList` takes no negative index.
pub fn insert(
    world: &mut World,
    target: impl Into<Target>,
    index: isize,
    value: impl IntoValue,
) -> Result<(), EditError> {
    let value = value.into_value();
    change(world, target, |draft| draft.insert(index, value.clone()))
}

/// Appends modules or parameters to a live list.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `extend` of torch's lists.
pub fn extend<V: IntoValue>(
    world: &mut World,
    target: impl Into<Target>,
    new: impl IntoIterator<Item = V>,
) -> Result<(), EditError> {
    let new = values(new);
    change(world, target, |draft| draft.extend(new.clone()))
}

/// Appends modules or parameters to a live list: `list += new`. Names them as torch does, which differs from
/// [`extend`] in a `Sequential` whose modules are not named by their numbers.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `__iadd__` of torch's lists.
pub fn add_assign<V: IntoValue>(
    world: &mut World,
    target: impl Into<Target>,
    new: impl IntoIterator<Item = V>,
) -> Result<(), EditError> {
    let new = values(new);
    change(world, target, |draft| draft.add_assign(new.clone()))
}

/// Appends the modules of a live `Sequential` to it until each is there `times` times: `sequential *= times`.
/// They are the same modules under more names, as in torch.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `torch.nn.Sequential.__imul__`.
pub fn repeat(world: &mut World, target: impl Into<Target>, times: isize) -> Result<(), EditError> {
    change(world, target, |draft| draft.repeat(times))
}

/// Registers a module under a name, in any live module, in the place of the one that has the name or as the
/// last.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.add_module`.
pub fn add_module(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    value: impl IntoValue,
) -> Result<(), EditError> {
    let value = value.into_value();
    change(world, target, |draft| draft.add_module(name, value.clone()))
}

/// Puts a module or parameter in the place of another one of a live container, or, in a dictionary, under a new
/// name: `container[key] = value`.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `__setitem__` of torch's containers.
pub fn set(
    world: &mut World,
    target: impl Into<Target>,
    key: impl Into<Key>,
    value: impl IntoValue,
) -> Result<(), EditError> {
    let (key, value) = (key.into(), value.into_value());
    change(world, target, |draft| draft.set(key.clone(), value.clone()))
}

/// Sets modules or parameters of a live dictionary under names, in their order.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `update` of torch's dictionaries.
pub fn update<N: Into<String>, V: IntoValue>(
    world: &mut World,
    target: impl Into<Target>,
    new: impl IntoIterator<Item = (N, V)>,
) -> Result<(), EditError> {
    let new: Vec<_> = new.into_iter().map(|(name, of)| (name.into(), of.into_value())).collect();
    change(world, target, |draft| draft.update(new.clone()))
}

/// Sets a parameter of a live dictionary, unless there is one of that name.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `torch.nn.ParameterDict.setdefault`.
pub fn setdefault(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    value: impl IntoValue,
) -> Result<(), EditError> {
    let value = value.into_value();
    change(world, target, |draft| draft.setdefault(name, value.clone()))
}

/// Takes out of a live container what `key` names. Modules live on, part of no model; what is left in a list is
/// named by its numbers.
///
/// # Errors
///
/// [`EditError`], also if something that stays is tied to what would go; nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::containers;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 2)).push(Tanh).push(Linear::new(2, 2));
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// let root = world.get::<Population>(brains).unwrap().models()[1];
///
/// // The last layer becomes the first, with all that it has learned.
/// let popped = containers::pop(&mut world, root, -1)?;
/// containers::insert(&mut world, root, 0, LiveModule(popped.modules[0]))?;
/// let first = containers::get(&mut world, root, 0)?;
/// assert_eq!(first.module(), Some(popped.modules[0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `pop` of torch's containers.
pub fn pop(
    world: &mut World,
    target: impl Into<Target>,
    key: impl Into<Key>,
) -> Result<Popped, EditError> {
    let key = key.into();
    Ok(edit(world, target, |draft| draft.pop(key.clone()))?.into())
}

/// Takes the last parameter out of a live dictionary.
///
/// # Errors
///
/// [`EditError`]; nothing is changed then.
///
/// Source: `torch.nn.ParameterDict.popitem`.
pub fn popitem(world: &mut World, target: impl Into<Target>) -> Result<Popped, EditError> {
    Ok(edit(world, target, Draft::popitem)?.into())
}

/// Removes from a live container what `key` names: `del container[key]`. What is left in a list is named by its
/// numbers.
///
/// # Errors
///
/// [`EditError`], also if something that stays is tied to what would go; nothing is changed then.
///
/// Source: `__delitem__` of torch's containers.
pub fn remove(
    world: &mut World,
    target: impl Into<Target>,
    key: impl Into<Key>,
) -> Result<(), EditError> {
    let key = key.into();
    change(world, target, |draft| draft.remove(key.clone()))
}

/// Removes all entries of a live dictionary.
///
/// # Errors
///
/// [`EditError`], also if something that stays is tied to what would go; nothing is changed then.
///
/// Source: `clear` of torch's dictionaries.
pub fn clear(world: &mut World, target: impl Into<Target>) -> Result<(), EditError> {
    change(world, target, Draft::clear)
}
