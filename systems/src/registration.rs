//! Registration: parameters, buffers and children come and go in one model, which moves to another
//! blueprint; its neighbors do not notice.
//!
//! The checks, their order and their words are torch's. What is still there by name and type keeps its
//! numbers, its gradient and its optimizer state; what is new starts with the numbers that are given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::Blueprint;
use neurarch_components::column::{ColumnKey, row_mut};
use neurarch_components::hook::{Callback, GlobalHooks, HookKind, RegisterAt};
use neurarch_components::layers;
use neurarch_components::module::DynModule;
use neurarch_components::registered::{Attributes, Entry, Numbers, Registered, Value};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tie::{SharedModule, Tie, Ties};
use neurarch_components::tree::{Columned, ModuleName};
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::{Role, Slot};
use neurarch_kernels::shape::Type;

use crate::access::AccessError;
use crate::hooks::panic_message;
use crate::init::{self, InitError};
use crate::lookup::{self, Attribute, Child, LookupError, Names};
use crate::sign::{self, SignError};
use crate::spawn::{self, SpawnError};
use crate::traverse::{Spot, locate, owner};

/// Why nothing was registered, assigned or deleted. Everything is as it was then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The name is empty; torch's words.
    #[error("{what} name can't be empty string \"\"")]
    EmptyName {
        /// What was registered: `parameter`, `buffer` or `module`.
        what: &'static str,
    },
    /// The name has a dot; torch's words.
    #[error("{what} name can't contain \".\"{got}", got = if *.what == "module" { format!(", got: {name}") } else { String::new() })]
    Dot {
        /// What was registered.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The module has something else of that name; torch's words.
    #[error("attribute '{name}' already exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// The value is of the wrong kind to be registered; torch's words.
    #[error("cannot assign '{given}' object to {what} '{name}' ({expected} required)")]
    Kind {
        /// What was registered.
        what: &'static str,
        /// The name.
        name: String,
        /// The type of the value.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The value is of the wrong kind to be assigned over what is there; torch's words.
    #[error("cannot assign '{given}' as {what} '{name}' ({expected} expected)")]
    AssignKind {
        /// What is there: `parameter`, `child module` or `buffer`.
        what: &'static str,
        /// The name.
        name: String,
        /// The type of the value.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A child is no module; torch's words.
    #[error("{given} is not a Module subclass")]
    NotAModuleType {
        /// The type of the value.
        given: String,
    },
    /// The entity has no layer component; torch's words.
    #[error("cannot assign {what} before Module.__init__() call")]
    NotInitialized {
        /// What was registered.
        what: &'static str,
    },
    /// There is nothing of that name; torch's words.
    #[error("'{class}' object has no attribute '{name}'")]
    NoAttribute {
        /// The module's type.
        class: &'static str,
        /// The name.
        name: String,
    },
    /// A submodule is to be set at the empty path; torch's words.
    #[error("Cannot set the submodule without a target name!")]
    NoTarget,
    /// Parameters can have elements of `f32` and `f64` only, for now.
    #[error("parameter '{name}': expected elements of f32 or f64, got {given}")]
    Dtype {
        /// The name.
        name: String,
        /// The element type.
        given: Dtype,
    },
    /// Something that stays is the same under another name.
    #[error("'{name}' is in use as '{by}'")]
    InUse {
        /// What was to go.
        name: String,
        /// The other name.
        by: String,
    },
    /// A registration hook failed.
    #[error("{kind} {number}: {message}")]
    Hook {
        /// Which kind.
        kind: HookKind,
        /// Its place among those of the kind.
        number: usize,
        /// What it said.
        message: String,
    },
    /// A part of a path is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The numbers cannot be drawn.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The child cannot be spawned.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The model's tree would be no model.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl From<AccessError> for RegistrationError {
    fn from(error: AccessError) -> Self {
        RegistrationError::Lookup(error.into())
    }
}

impl RegistrationError {
    /// Names the exception that torch raises: `KeyError`, `TypeError`, `AttributeError`, `ValueError`; or
    /// `RuntimeError` where it has none.
    pub fn exception(&self) -> &'static str {
        match self {
            RegistrationError::EmptyName { .. }
            | RegistrationError::Dot { .. }
            | RegistrationError::Exists { .. } => "KeyError",
            RegistrationError::Kind { .. }
            | RegistrationError::AssignKind { .. }
            | RegistrationError::NotAModuleType { .. } => "TypeError",
            RegistrationError::NotInitialized { .. }
            | RegistrationError::NoAttribute { .. }
            | RegistrationError::Lookup(_) => "AttributeError",
            RegistrationError::NoTarget => "ValueError",
            RegistrationError::Dtype { .. }
            | RegistrationError::InUse { .. }
            | RegistrationError::Hook { .. }
            | RegistrationError::Init(_)
            | RegistrationError::Spawn(_)
            | RegistrationError::Sign(_) => "RuntimeError",
        }
    }
}

/// Finds the module that is to be edited; `what` is what an entity without layer component is told.
fn subject(
    world: &mut World,
    module: Entity,
    what: &'static str,
) -> Result<(Spot, Names), RegistrationError> {
    let entity = owner(world, module);
    let found = world.get_entity(entity).map_err(|_| AccessError::NotAModule(module))?;
    let types = world.get_resource::<ModuleTypes>();
    if types.and_then(|types| types.module(found)).is_none() {
        return Err(RegistrationError::NotInitialized { what });
    }
    let at = locate(world, entity)?;
    let names = Names::of(world, entity).ok_or(AccessError::NotAModule(module))?;
    Ok((at, names))
}

/// Refuses names that nothing can have. torch asks for the dot before it asks whether it is empty.
fn check_name(what: &'static str, name: &str) -> Result<(), RegistrationError> {
    if name.contains('.') {
        return Err(RegistrationError::Dot { what, name: name.to_owned() });
    }
    if name.is_empty() { Err(RegistrationError::EmptyName { what }) } else { Ok(()) }
}

/// Registers a parameter of a module of a live model, in the place of the one of that name or as the last.
///
/// `value` is a [`Value::Parameter`], or [`Value::None`] for a name without a value, which neither
/// `named_parameters` nor a state dict has.
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population, registered::Value};
/// # use neurarch_kernels::dtype::Dtype;
/// # use neurarch_systems::{registration::*, spawn::spawn_population, traverse::*};
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(2, 1), 3, 3, 7, Dtype::F32)?;
/// let root = world.get::<Population>(layers).unwrap().models()[1];
/// let scale = Value::parameter(ndarray::array![0.5_f32].view());
/// register_parameter(&mut world, root, "scale", scale)?;
/// let names = named_parameters(&mut world, root, Listing::default())?;
/// assert_eq!(names.last().unwrap().name, "scale");
///
/// let error = register_parameter(&mut world, root, "forward", Value::None).unwrap_err();
/// assert_eq!(error.to_string(), "attribute 'forward' already exists");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.register_parameter`.
pub fn register_parameter(
    world: &mut World,
    module: Entity,
    name: &str,
    value: Value,
) -> Result<(), RegistrationError> {
    let (at, names) = subject(world, module, "parameter")?;
    check_name("parameter", name)?;
    let is_known = Names::entry(&names.registered.parameters, name).is_some();
    if !is_known && names.has(world, name) {
        return Err(RegistrationError::Exists { name: name.to_owned() });
    }
    put_parameter(world, &at, &names, name, value, Vec::new())
}

/// [`register_parameter`] of what was checked; what is in `gone` goes.
fn put_parameter(
    world: &mut World,
    at: &Spot,
    names: &Names,
    name: &str,
    value: Value,
    gone: Vec<Gone>,
) -> Result<(), RegistrationError> {
    let check = |value: &Value| match value {
        Value::None | Value::Parameter(_) => Ok(()),
        other => Err(RegistrationError::Kind {
            what: "parameter",
            name: name.to_owned(),
            given: other.typename(names.dtype),
            expected: "torch.nn.Parameter or None",
        }),
    };
    check(&value)?;
    let value = match value {
        Value::None => Value::None,
        value => ask(world, HookKind::ParameterRegistration, names, name, value)?,
    };
    check(&value)?;
    if let Some(numbers) = value.numbers() {
        let given = numbers.ty(names.dtype).dtype;
        if !matches!(given, Dtype::F32 | Dtype::F64) {
            return Err(RegistrationError::Dtype { name: name.to_owned(), given });
        }
    }
    put(world, at, names, Role::Parameter, name, value.numbers(), true, gone)
}

/// Registers a buffer of a module of a live model, in the place of the one of that name or as the last.
///
/// `value` is a [`Value::Tensor`], [`Value::Buffer`] or [`Value::Parameter`], whose numbers are taken, or
/// [`Value::None`]. A state dict has it if it is `persistent`.
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.register_buffer`.
pub fn register_buffer(
    world: &mut World,
    module: Entity,
    name: &str,
    value: Value,
    persistent: bool,
) -> Result<(), RegistrationError> {
    let (at, names) = subject(world, module, "buffer")?;
    check_name("buffer", name)?;
    let is_known = Names::entry(&names.registered.buffers, name).is_some();
    if !is_known && names.has(world, name) {
        return Err(RegistrationError::Exists { name: name.to_owned() });
    }
    let check = |value: &Value| match value.is_none() || value.numbers().is_some() {
        true => Ok(()),
        false => Err(RegistrationError::Kind {
            what: "buffer",
            name: name.to_owned(),
            given: value.typename(names.dtype),
            expected: "torch Tensor or None",
        }),
    };
    check(&value)?;
    let value = ask(world, HookKind::BufferRegistration, &names, name, value)?;
    check(&value)?;
    put(world, &at, &names, Role::Buffer, name, value.numbers(), persistent, Vec::new())
}

/// Calls the registration hooks; gives what is to be registered.
fn ask(
    world: &World,
    kind: HookKind,
    names: &Names,
    name: &str,
    mut value: Value,
) -> Result<Value, RegistrationError> {
    let hooks = world.get_resource::<GlobalHooks>().map(|hooks| hooks.0.list(kind));
    let at = RegisterAt { module: names.entity, class: names.class, name };
    for (number, hook) in hooks.into_iter().flatten().enumerate() {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut callback = hook.callback.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *callback {
                Callback::ParameterRegistration(hook)
                | Callback::BufferRegistration(hook)
                | Callback::ModuleRegistration(hook) => hook(&at, &value),
                _ => Ok(None),
            }
        }));
        let result = result.unwrap_or_else(|panic| Err(panic_message(&*panic).into()));
        let message = |error: Box<dyn std::error::Error + Send + Sync>| error.to_string();
        let new = result.map_err(|error| RegistrationError::Hook {
            kind,
            number,
            message: message(error),
        })?;
        value = new.unwrap_or(value);
    }
    Ok(value)
}

/// What goes when something of its name comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Buffer,
    Child(Child),
}

/// Writes down a parameter or buffer, and gives it its numbers.
#[expect(clippy::too_many_arguments, reason = "what register_parameter and register_buffer share")]
fn put(
    world: &mut World,
    at: &Spot,
    names: &Names,
    role: Role,
    name: &str,
    numbers: Option<&Numbers>,
    persistent: bool,
    gone: Vec<Gone>,
) -> Result<(), RegistrationError> {
    let ty = numbers.map(|numbers| numbers.ty(names.dtype));
    if let (Some(Numbers::Drawn { init, .. }), Some(ty)) = (numbers, &ty) {
        let slot = Slot { name: name.to_owned(), role, position: 0, index: 0, ty: ty.clone() };
        init::check(name, &slot, *init)?;
    }
    let is_parameter = role == Role::Parameter;
    let list = |registered: &mut Registered, ty: Option<Type>| {
        if gone.contains(&Gone::Buffer) {
            registered.buffers.retain(|entry| entry.name != name);
        }
        let entries = match is_parameter {
            true => &mut registered.parameters,
            false => &mut registered.buffers,
        };
        let entry = Entry { name: name.to_owned(), ty, persistent, uninitialized: false };
        match entries.iter_mut().find(|entry| entry.name == name) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
    };
    let known = if is_parameter { &names.registered.parameters } else { &names.registered.buffers };
    let known = Names::entry(known, name).is_some_and(|entry| entry.ty.is_some());
    if is_parameter && known {
        check_ties(world, at, &names.registered, name)?;
    }
    if known {
        // What was there goes first, so that nothing of it is left: no gradient, no optimizer state.
        let mut registered = names.registered.clone();
        list(&mut registered, None);
        edit(world, names, Some(registered), name)?;
    }
    for gone in &gone {
        if let Gone::Child(child) = gone {
            remove_child(world, at, *child, name)?;
        }
    }
    if known && ty.is_none() {
        return Ok(());
    }
    let mut registered = names.registered.clone();
    list(&mut registered, ty);
    edit(world, names, Some(registered), name)?;
    match numbers {
        None => Ok(()),
        Some(Numbers::Given(tensor)) => {
            write(world, names.entity, role, name, &tensor.to_native());
            Ok(())
        }
        Some(Numbers::Drawn { init, .. }) => {
            let at = locate(world, names.entity)?;
            let blueprint = at.blueprint(world);
            let slot = match is_parameter {
                true => blueprint.parameter(at.position, name),
                false => blueprint.buffer(at.position, name),
            };
            if let Some(slot) = slot {
                init::draw(world, &at, slot, *init);
            }
            Ok(())
        }
    }
}

/// Gives a module another list, or the one that its type declares, and signs its model; a tie of `name` goes.
/// If the model is none then, everything is put back.
fn edit(
    world: &mut World,
    names: &Names,
    registered: Option<Registered>,
    name: &str,
) -> Result<(), SignError> {
    let before = world.get::<Registered>(names.entity).cloned();
    let ties = world.get::<Ties>(names.entity).cloned();
    let set = |world: &mut World, registered: Option<Registered>, ties: Option<Ties>| {
        let Ok(mut entity) = world.get_entity_mut(names.entity) else { return };
        match registered {
            Some(registered) => entity.insert(registered),
            None => entity.remove::<Registered>(),
        };
        match ties.filter(|ties| !ties.0.is_empty()) {
            Some(ties) => drop(entity.insert(ties)),
            None => drop(entity.remove::<Ties>()),
        }
    };
    let kept = ties
        .as_ref()
        .map(|ties| Ties(ties.0.iter().filter(|tie| tie.parameter != name).cloned().collect()));
    set(world, registered, kept);
    let result = sign::refresh(world, names.population);
    if result.is_err() {
        set(world, before, ties);
        // It was a model before.
        sign::refresh(world, names.population)?;
    }
    result
}

/// Writes the numbers of a parameter or buffer of an entity that was just signed.
fn write(world: &mut World, entity: Entity, role: Role, name: &str, numbers: &[u8]) {
    let Some(columned) = world.get::<Columned>(entity) else { return };
    let contents = &columned.0;
    let among = if role == Role::Buffer { &contents.buffers } else { &contents.parameters };
    let Some(index) = among.iter().position(|of| of.name == name) else { return };
    let key = ColumnKey::new(role, index, &among[index].ty);
    if let Some(row) = row_mut(world, entity, key) {
        row[..numbers.len()].copy_from_slice(numbers);
    }
}

/// Gives a parameter or buffer another element type, and its numbers.
pub(crate) fn retype(
    world: &mut World,
    module: Entity,
    slot: &Slot,
    dtype: Dtype,
    numbers: &[u8],
) -> Result<(), SignError> {
    let names = Names::of(world, module).ok_or(SignError::NotAPopulation(module))?;
    let name = slot.name.rsplit('.').next().unwrap_or_default().to_owned();
    let mut registered = names.registered.clone();
    let entries = match slot.role {
        Role::Buffer => &mut registered.buffers,
        _ => &mut registered.parameters,
    };
    let entry = entries.iter_mut().find(|entry| entry.name == name);
    entry.into_iter().for_each(|entry| {
        entry.ty = Some(Type { dtype, shape: slot.ty.shape.clone() });
    });
    edit(world, &names, Some(registered), "")?;
    write(world, module, slot.role, &name, numbers);
    Ok(())
}

/// Refuses to take a parameter away that others are tied to.
fn check_ties(
    world: &World,
    at: &Spot,
    registered: &Registered,
    name: &str,
) -> Result<(), RegistrationError> {
    let there = registered.parameters.iter().filter(|entry| entry.ty.is_some());
    let index = there.into_iter().position(|entry| entry.name == name);
    let owner = index.map(|index| (at.position, index));
    let blueprint = at.blueprint(world);
    for (position, of) in blueprint.positions.iter().enumerate() {
        for parameter in &of.parameters {
            if parameter.tied.is_some() && parameter.tied == owner {
                let (name, by) = (name.to_owned(), blueprint.path_below(position, &parameter.name));
                return Err(RegistrationError::InUse { name, by });
            }
        }
    }
    Ok(())
}

/// Registers a child of a module of a live model, in the place of the one of that name or as the last; gives
/// its entity.
///
/// `value` is a [`Value::Module`], or [`Value::None`] for a name without a module. The module that had the
/// name is despawned, unless it has another name: it moves there.
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population, registered::Value};
/// # use neurarch_kernels::dtype::Dtype;
/// # use neurarch_systems::{registration::*, spawn::spawn_population};
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3));
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// let root = world.get::<Population>(brains).unwrap().models()[1];
/// let tanh = register_module(&mut world, root, "1", Value::module(Tanh))?.unwrap();
/// assert!(world.get::<Tanh>(tanh).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.register_module`, `add_module`.
pub fn register_module(
    world: &mut World,
    module: Entity,
    name: &str,
    value: Value,
) -> Result<Option<Entity>, RegistrationError> {
    let (at, names) = subject(world, module, "module")?;
    check_module(&names, &value)?;
    if names.child(world, name).is_none() && names.has(world, name) {
        return Err(RegistrationError::Exists { name: name.to_owned() });
    }
    check_name("module", name)?;
    put_module(world, &at, &names, name, value)
}

fn check_module(names: &Names, value: &Value) -> Result<(), RegistrationError> {
    match value {
        Value::None | Value::Module(_) => Ok(()),
        other => Err(RegistrationError::NotAModuleType { given: other.typename(names.dtype) }),
    }
}

/// [`register_module`] of what was checked.
fn put_module(
    world: &mut World,
    at: &Spot,
    names: &Names,
    name: &str,
    value: Value,
) -> Result<Option<Entity>, RegistrationError> {
    let value = ask(world, HookKind::ModuleRegistration, names, name, value)?;
    check_module(names, &value)?;
    let old = names.child(world, name);
    if let Some(old) = old {
        check_use(world, at, old, name)?;
    }
    let new = match &value {
        Value::Module(module) => spawn_below(world, names, name, &**module)?,
        _ => world.spawn((ModuleName(name.into()), ChildOf(names.entity))).id(),
    };
    if let Some(old) = old {
        world.entity_mut(names.entity).insert_child(old.place, new);
        world.entity_mut(old.entity).remove::<ChildOf>();
    }
    if let Err(error) = sign::refresh(world, names.population) {
        world.despawn(new);
        if let Some(old) = old {
            world.entity_mut(names.entity).insert_child(old.place, old.entity);
        }
        sign::refresh(world, names.population)?;
        return Err(error.into());
    }
    if let Some(old) = old {
        world.despawn(old.entity);
    }
    Ok(matches!(value, Value::Module(_)).then_some(new))
}

/// Refuses to take a child away that is in use, as a whole or in part, outside of it.
fn check_use(world: &World, at: &Spot, child: Child, name: &str) -> Result<(), RegistrationError> {
    if world.get::<SharedModule>(child.entity).is_some() || !child.is_there {
        return Ok(());
    }
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let mut positions = 0..blueprint.positions.len();
    let found = positions.find(|&position| group.modules[position][at.member] == child.entity);
    let Some(found) = found else { return Ok(()) };
    let below = blueprint.subtree(found);
    for (position, of) in blueprint.positions.iter().enumerate() {
        if below.contains(&position) {
            continue;
        }
        let in_use = |by: String| Err(RegistrationError::InUse { name: name.to_owned(), by });
        if of.alias.is_some_and(|alias| below.contains(&alias)) {
            return in_use(of.path.clone());
        }
        for parameter in &of.parameters {
            if parameter.tied.is_some_and(|(owner, _)| below.contains(&owner)) {
                return in_use(blueprint.path_below(position, &parameter.name));
            }
        }
    }
    Ok(())
}

/// Spawns a module and all below it as a child of a live module.
fn spawn_below(
    world: &mut World,
    names: &Names,
    name: &str,
    module: &dyn DynModule,
) -> Result<Entity, SpawnError> {
    spawn::check_declared(module, name)?;
    layers::register(world);
    spawn::register_types(world, module);
    let blueprint = Blueprint::of(module, names.dtype)?;
    let mut modules = Vec::new();
    spawn::list_modules(module, &mut modules);
    let mut entities: Vec<Entity> = Vec::with_capacity(modules.len());
    for (of, module) in blueprint.positions.iter().zip(modules) {
        let (parent, name) = match of.parent {
            None => (names.entity, name),
            Some(parent) => (entities[parent], of.name.as_str()),
        };
        let mut entity = world.spawn((ModuleName(name.into()), ChildOf(parent)));
        if let Some(module) = module {
            module.insert_into(&mut entity);
        }
        if let Some(alias) = of.alias {
            entity.insert(SharedModule(entities[alias]));
        }
        entities.push(entity.id());
    }
    for (position, of) in blueprint.positions.iter().enumerate() {
        let ties = spawn::ties(&blueprint, of).into_iter();
        let ties: Vec<_> = ties
            .map(|(parameter, owner, owner_parameter)| Tie {
                parameter,
                owner: entities[owner],
                owner_parameter,
            })
            .collect();
        if !ties.is_empty() {
            world.entity_mut(entities[position]).insert(Ties(ties));
        }
    }
    Ok(entities[0])
}

/// Takes a child away, and signs.
fn remove_child(
    world: &mut World,
    at: &Spot,
    child: Child,
    name: &str,
) -> Result<(), RegistrationError> {
    check_use(world, at, child, name)?;
    world.despawn(child.entity);
    sign::refresh(world, at.population)?;
    Ok(())
}

/// Assigns a value to a name of a module of a live model.
///
/// A [`Value::Parameter`] and a [`Value::Module`] take the place of whatever has the name; a
/// [`Value::Buffer`] is registered; a tensor replaces the numbers of a buffer; [`Value::None`] keeps the name
/// and takes the value. What is assigned to a name that nothing has, and is none of these, is only kept:
/// [`Attributes`].
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.__setattr__`. Names with dots are refused for modules, too.
pub fn setattr(
    world: &mut World,
    module: Entity,
    name: &str,
    value: Value,
) -> Result<(), RegistrationError> {
    let what = match value {
        Value::Parameter(_) => "parameters",
        Value::Buffer { .. } => "buffer",
        _ => "module",
    };
    let (at, names) = subject(world, module, what)?;
    let is_parameter = Names::entry(&names.registered.parameters, name).is_some();
    let buffer = Names::entry(&names.registered.buffers, name);
    let child = names.child(world, name);
    let wrong = |what, expected| {
        let (name, given) = (name.to_owned(), value.typename(names.dtype));
        Err(RegistrationError::AssignKind { what, name, given, expected })
    };
    match &value {
        Value::Parameter(_) => {
            check_name("parameter", name)?;
            if names.is_of_type(name) {
                return Err(RegistrationError::Exists { name: name.to_owned() });
            }
            let gone = buffer.map(|_| Gone::Buffer).into_iter().chain(child.map(Gone::Child));
            put_parameter(world, &at, &names, name, value, gone.collect())?;
            forget(world, &names, name);
        }
        Value::None if is_parameter => {
            put(world, &at, &names, Role::Parameter, name, None, true, Vec::new())?;
        }
        _ if is_parameter => return wrong("parameter", "torch.nn.Parameter or None"),
        Value::Module(_) => {
            check_name("module", name)?;
            if buffer.is_some() {
                delattr(world, module, name)?;
            }
            put_module(world, &at, &names, name, value)?;
            forget(world, &names, name);
        }
        Value::None if child.is_some() => {
            put_module(world, &at, &names, name, value)?;
        }
        _ if child.is_some() => {
            return wrong("child module", "torch.nn.Module or None");
        }
        Value::Other(_) if buffer.is_some() => {
            return wrong("buffer", "torch.nn.Buffer, torch.Tensor or None");
        }
        Value::Buffer { persistent, .. } => {
            let persistent = *persistent;
            register_buffer(world, module, name, value, persistent)?;
        }
        _ if buffer.is_some() => {
            let persistent = buffer.is_some_and(|buffer| buffer.persistent);
            register_buffer(world, module, name, value, persistent)?;
        }
        _ => {
            forget(world, &names, name);
            let mut entity = world.entity_mut(names.entity);
            let mut kept = entity.take::<Attributes>().unwrap_or_default();
            kept.0.push((name.to_owned(), value));
            entity.insert(kept);
        }
    }
    Ok(())
}

/// Drops a kept value.
fn forget(world: &mut World, names: &Names, name: &str) -> bool {
    let Some(mut kept) = world.get_mut::<Attributes>(names.entity) else { return false };
    let before = kept.0.len();
    kept.0.retain(|(known, _)| known != name);
    kept.0.len() < before
}

/// Deletes what a module of a live model has under a name: a parameter, a buffer, a child with all below it,
/// or a kept value.
///
/// # Errors
///
/// [`RegistrationError::NoAttribute`] if there is nothing; [`RegistrationError::InUse`] if something that
/// stays is tied to it, which torch allows. Nothing is changed then.
///
/// Source: `torch.nn.Module.__delattr__`.
pub fn delattr(world: &mut World, module: Entity, name: &str) -> Result<(), RegistrationError> {
    let (at, names) = subject(world, module, "module")?;
    let mut registered = names.registered.clone();
    let is_other = |entry: &Entry| entry.name != name;
    if Names::entry(&registered.parameters, name).is_some() {
        check_ties(world, &at, &registered, name)?;
        registered.parameters.retain(is_other);
        edit(world, &names, Some(registered), name)?;
    } else if Names::entry(&registered.buffers, name).is_some() {
        registered.buffers.retain(is_other);
        edit(world, &names, Some(registered), name)?;
    } else if let Some(child) = names.child(world, name) {
        remove_child(world, &at, child, name)?;
    } else if !forget(world, &names, name) {
        return Err(RegistrationError::NoAttribute { class: names.class, name: name.to_owned() });
    }
    Ok(())
}

/// Gives what a module of a live model has under a name.
///
/// # Errors
///
/// [`RegistrationError::NoAttribute`] if there is nothing.
///
/// Source: `torch.nn.Module.__getattr__`.
pub fn getattr(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<Attribute, RegistrationError> {
    let (_, names) = subject(world, module, "module")?;
    let found = lookup::attribute(world, module, name)?;
    found
        .ok_or_else(|| RegistrationError::NoAttribute { class: names.class, name: name.to_owned() })
}

/// Puts a module at a dotted path, in the place of the one that is there; gives its entity.
///
/// With `strict` there must be one; otherwise its parent is enough.
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.set_submodule`.
pub fn set_submodule(
    world: &mut World,
    module: Entity,
    target: &str,
    new: Box<dyn DynModule>,
    strict: bool,
) -> Result<Entity, RegistrationError> {
    if target.is_empty() {
        return Err(RegistrationError::NoTarget);
    }
    let (path, name) = target.rsplit_once('.').unwrap_or(("", target));
    let parent = lookup::get_submodule(world, module, path)?;
    match lookup::attribute(world, parent, name)? {
        Some(Attribute::Module(Some(_))) => {}
        Some(_) => return Err(LookupError::NotAModule { name: name.to_owned() }.into()),
        None if strict => {
            // Says that it is not there.
            lookup::get_submodule(world, parent, name)?;
        }
        None => {}
    }
    setattr(world, parent, name, Value::Module(new))?;
    Ok(lookup::get_submodule(world, parent, name)?)
}
