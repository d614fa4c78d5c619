//! Registration: parameters, buffers and children come and go in one model, which moves to another
//! blueprint; its neighbors do not notice.
//!
//! The checks, their order and their words are torch's. What is still there by name and type keeps its
//! numbers, its gradient and its optimizer state; what is new starts with the numbers that are given.

mod attribute;
mod error;
mod module;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use neurarch_components::column::{ColumnKey, row_mut};
use neurarch_components::hook::{Callback, GlobalHooks, HookKind, RegisterAt};
use neurarch_components::registered::{Entry, Numbers, Registered, Value};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tie::Ties;
use neurarch_components::tree::Columned;
use neurarch_kernels::program::{Role, Slot};
use neurarch_kernels::shape::Type;

pub use attribute::{delattr, getattr, setattr};
pub use error::RegistrationError;
pub use module::{register_module, set_submodule};

use crate::access::AccessError;
use crate::hooks::panic_message;
use crate::init;
use crate::lookup::{Child, Names};
use crate::sign::{self, SignError};
use crate::traverse::{Spot, locate, owner};
use module::remove_child;
pub(crate) use module::{Sapling, check_going, prepare};

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
        if !given.is_float() {
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
pub(crate) fn ask(
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
        init::check(name, &slot, init)?;
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
            remove_child(world, at, *child)?;
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
                init::draw(world, &at, slot, init.clone());
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
pub(crate) fn write(world: &mut World, entity: Entity, role: Role, name: &str, numbers: &[u8]) {
    let Some(columned) = world.get::<Columned>(entity) else { return };
    let contents = &columned.0;
    let among = if role == Role::Buffer { &contents.buffers } else { &contents.parameters };
    let Some(index) = among.iter().position(|of| of.name == name) else { return };
    let key = ColumnKey::new(role, index, &among[index].ty);
    if let Some(row) = row_mut(world, entity, key) {
        row[..numbers.len()].copy_from_slice(numbers);
    }
}

/// Gives a parameter or buffer another type, and its numbers.
pub(crate) fn retype(
    world: &mut World,
    module: Entity,
    slot: &Slot,
    ty: &Type,
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
        (entry.ty, entry.uninitialized) = (Some(ty.clone()), false);
    });
    edit(world, &names, Some(registered), "")?;
    write(world, module, slot.role, &name, numbers);
    Ok(())
}

/// Refuses to take a parameter away that others are tied to.
pub(crate) fn check_ties(
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
