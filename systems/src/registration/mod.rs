//! Registration: parameters, buffers and children come and go in one model, which moves to another
//! blueprint; its neighbors do not notice. Or in all models of a population at once, with `(population, path)` as the
//! target: checked for all, done in all, signed once. Registration hooks are then called once for each structure.
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
use neurarch_components::parametrizations::RegisteredAgain;
use neurarch_components::registered::{Entry, Numbers, Registered, Value};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tie::Ties;
use neurarch_components::tree::Columned;
use neurarch_kernels::program::trace::panic_message;
use neurarch_kernels::program::{Role, Slot};
use neurarch_kernels::shape::Type;

pub use attribute::{delattr, getattr, setattr};
pub use error::RegistrationError;
pub use module::{register_module, set_submodule};

use crate::errors::AccessError;
use crate::errors::SignError;
use crate::hooks::Target;
use crate::init;
use crate::lookup::{Child, Names};
use crate::sign;
use crate::spot::Spot;
use crate::spot::find;
use crate::spot::locate;
use crate::spot::owner;
use crate::traverse::spots;
pub(crate) use module::{Sapling, check_going, prepare};
use module::{check_use, remove_children};

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

/// Finds the modules that are to be edited: one, or that of every model of a population.
fn subjects(
    world: &mut World,
    target: Target,
    what: &'static str,
) -> Result<Vec<(Spot, Names)>, RegistrationError> {
    let (population, path) = match target {
        Target::Module(module) => return Ok(vec![subject(world, module, what)?]),
        Target::Population(population, path) => (population, path),
        Target::All => return Err(RegistrationError::AllModules),
    };
    let mut subjects = Vec::new();
    for (spot, members) in spots(world, population, &path)? {
        for (member, &module) in spot.group(world).modules[spot.position].iter().enumerate() {
            debug_assert!(member < members);
            let names = Names::of(world, module).ok_or(AccessError::NotAModule(module))?;
            subjects.push((Spot { member, ..spot }, names));
        }
    }
    Ok(subjects)
}

/// Gives each subject what `of` gives for the first one of its structure.
fn for_each_structure<T: Clone>(
    subjects: &[(Spot, Names)],
    mut of: impl FnMut(&Names) -> Result<T, RegistrationError>,
) -> Result<Vec<T>, RegistrationError> {
    let mut last: Option<(usize, T)> = None;
    let mut all = Vec::with_capacity(subjects.len());
    for (at, names) in subjects {
        let made = match last.take() {
            Some((group, made)) if group == at.group => made,
            _ => of(names)?,
        };
        all.push(made.clone());
        last = Some((at.group, made));
    }
    Ok(all)
}

/// Refuses names that nothing can have. torch asks for the dot before it asks whether it is empty.
fn check_name(what: &'static str, name: &str) -> Result<(), RegistrationError> {
    if name.contains('.') {
        return Err(RegistrationError::Dot { what, name: name.to_owned() });
    }
    if name.is_empty() { Err(RegistrationError::EmptyName { what }) } else { Ok(()) }
}

/// Registers a parameter of a module of a live model, or of those of a population, in the place of the one of that
/// name or as the last.
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
    target: impl Into<Target>,
    name: &str,
    value: Value,
) -> Result<(), RegistrationError> {
    let subjects = subjects(world, target.into(), "parameter")?;
    check_name("parameter", name)?;
    for (_, names) in &subjects {
        let is_known = Names::entry(&names.registered.parameters, name).is_some();
        if names.is_computed(world, name) || !is_known && names.has(world, name) {
            return Err(RegistrationError::Exists { name: name.to_owned() });
        }
    }
    let numbers = for_each_structure(&subjects, |names| {
        parameter_numbers(world, names, name, value.clone())
    })?;
    let puts = subjects.iter().zip(&numbers).map(|((at, names), numbers)| Put {
        at,
        names,
        numbers: numbers.as_ref(),
        gone: Vec::new(),
    });
    put(world, Role::Parameter, name, true, &puts.collect::<Vec<_>>())
}

/// Checks what a parameter is to be, and asks the registration hooks; gives its numbers.
fn parameter_numbers(
    world: &World,
    names: &Names,
    name: &str,
    value: Value,
) -> Result<Option<Numbers>, RegistrationError> {
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
    Ok(value.numbers().cloned())
}

/// Registers a buffer of a module of a live model, or of those of a population, in the place of the one of that name
/// or as the last.
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
    target: impl Into<Target>,
    name: &str,
    value: Value,
    persistent: bool,
) -> Result<(), RegistrationError> {
    let subjects = subjects(world, target.into(), "buffer")?;
    put_buffers(world, &subjects, name, &value, persistent)
}

fn put_buffers(
    world: &mut World,
    subjects: &[(Spot, Names)],
    name: &str,
    value: &Value,
    persistent: bool,
) -> Result<(), RegistrationError> {
    check_name("buffer", name)?;
    for (_, names) in subjects {
        let is_known = Names::entry(&names.registered.buffers, name).is_some();
        if names.is_computed(world, name) || !is_known && names.has(world, name) {
            return Err(RegistrationError::Exists { name: name.to_owned() });
        }
    }
    let numbers = for_each_structure(subjects, |names| {
        let check = |value: &Value| match value.is_none() || value.numbers().is_some() {
            true => Ok(()),
            false => Err(RegistrationError::Kind {
                what: "buffer",
                name: name.to_owned(),
                given: value.typename(names.dtype),
                expected: "torch Tensor or None",
            }),
        };
        check(value)?;
        let value = ask(world, HookKind::BufferRegistration, names, name, value.clone())?;
        check(&value)?;
        Ok(value.numbers().cloned())
    })?;
    let puts = subjects.iter().zip(&numbers).map(|((at, names), numbers)| Put {
        at,
        names,
        numbers: numbers.as_ref(),
        gone: Vec::new(),
    });
    put(world, Role::Buffer, name, persistent, &puts.collect::<Vec<_>>())
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

/// A parameter or buffer that one module gets.
struct Put<'a> {
    at: &'a Spot,
    names: &'a Names,
    numbers: Option<&'a Numbers>,
    gone: Vec<Gone>,
}

impl Put<'_> {
    /// Gives what the module has afterwards, the new entry with that type.
    fn listed(&self, role: Role, name: &str, ty: Option<Type>, persistent: bool) -> Registered {
        let mut registered = self.names.registered.clone();
        if self.gone.contains(&Gone::Buffer) {
            registered.buffers.retain(|entry| entry.name != name);
        }
        let entries = match role {
            Role::Buffer => &mut registered.buffers,
            _ => &mut registered.parameters,
        };
        let entry = Entry { name: name.to_owned(), ty, persistent, uninitialized: false };
        match entries.iter_mut().find(|entry| entry.name == name) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
        registered
    }

    /// Gives the type that the new entry has.
    fn ty(&self) -> Option<Type> {
        self.numbers.map(|numbers| numbers.ty(self.names.dtype))
    }

    /// Says whether there is something with numbers under the name.
    fn is_known(&self, role: Role, name: &str) -> bool {
        let registered = &self.names.registered;
        let known = if role == Role::Buffer { &registered.buffers } else { &registered.parameters };
        Names::entry(known, name).is_some_and(|entry| entry.ty.is_some())
    }

    fn check(&self, world: &World, role: Role, name: &str) -> Result<(), RegistrationError> {
        if let (Some(Numbers::Drawn { init, .. }), Some(ty)) = (self.numbers, self.ty()) {
            let slot = Slot { name: name.to_owned(), role, position: 0, index: 0, ty };
            init::check(name, &slot, init)?;
        }
        if role == Role::Parameter && self.is_known(role, name) {
            check_ties(world, self.at, &self.names.registered, name)?;
        }
        Ok(())
    }
}

/// Writes down a parameter or buffer of one module, or of those of a population, and gives it its numbers.
fn put(
    world: &mut World,
    role: Role,
    name: &str,
    persistent: bool,
    puts: &[Put<'_>],
) -> Result<(), RegistrationError> {
    let Some(population) = puts.first().map(|put| put.names.population) else { return Ok(()) };
    puts.iter().try_for_each(|put| put.check(world, role, name))?;
    let children: Vec<_> = puts
        .iter()
        .flat_map(|put| {
            put.gone.iter().filter_map(move |gone| match gone {
                Gone::Child(child) => Some((put.at, *child)),
                Gone::Buffer => None,
            })
        })
        .collect();
    children.iter().try_for_each(|(at, child)| check_use(world, at, *child))?;
    // What was there goes first, so that nothing of it is left: no gradient, no optimizer state.
    let known = puts.iter().filter(|put| put.is_known(role, name));
    let cleared: Vec<_> = known
        .map(|put| (put.names.entity, Some(put.listed(role, name, None, persistent))))
        .collect();
    if !cleared.is_empty() {
        edit(world, population, cleared, name)?;
    }
    remove_children(world, population, &children)?;
    let missing = puts.iter().filter(|put| put.ty().is_some() || !put.is_known(role, name));
    let lists: Vec<_> = missing
        .map(|put| (put.names.entity, Some(put.listed(role, name, put.ty(), persistent))))
        .collect();
    if !lists.is_empty() {
        edit(world, population, lists, name)?;
    }
    for put in puts {
        match put.numbers {
            None => {}
            Some(Numbers::Given(tensor)) => {
                write(world, put.names.entity, role, name, &tensor.to_native());
            }
            Some(Numbers::Drawn { init, .. }) => {
                let at = find(world, put.names.entity)?;
                let blueprint = at.blueprint(world);
                let slot = match role {
                    Role::Buffer => blueprint.buffer(at.position, name),
                    _ => blueprint.parameter(at.position, name),
                };
                if let Some(slot) = slot {
                    init::draw(world, &at, slot, init.clone())?;
                }
            }
        }
    }
    Ok(())
}

/// Gives modules of a population other lists, or the ones that their types declare, and signs the models; a tie of
/// `name` goes. If a model is none then, everything is put back.
fn edit(
    world: &mut World,
    population: Entity,
    lists: Vec<(Entity, Option<Registered>)>,
    name: &str,
) -> Result<(), SignError> {
    type Lists = (Option<Registered>, Option<RegisteredAgain>);
    let set = |world: &mut World, at: Entity, (registered, again): Lists, ties: Option<Ties>| {
        let Ok(mut entity) = world.get_entity_mut(at) else { return };
        match again {
            Some(again) => entity.insert(again),
            None => entity.remove::<RegisteredAgain>(),
        };
        match registered {
            Some(registered) => entity.insert::<Registered>(registered),
            None => entity.remove::<Registered>(),
        };
        match ties.filter(|ties| !ties.0.is_empty()) {
            Some(ties) => drop(entity.insert(ties)),
            None => drop(entity.remove::<Ties>()),
        }
    };
    let mut before = Vec::with_capacity(lists.len());
    for (at, registered) in lists {
        let ties = world.get::<Ties>(at).cloned();
        let again = world.get::<RegisteredAgain>(at).cloned();
        before.push((at, (world.get::<Registered>(at).cloned(), again), ties.clone()));
        let others = |ties: Ties| ties.0.into_iter().filter(|tie| tie.parameter != name).collect();
        // The lists are in their order by now.
        set(world, at, (registered, None), ties.map(|ties| Ties(others(ties))));
    }
    let result = sign::refresh(world, population);
    if result.is_err() {
        for (at, lists, ties) in before {
            set(world, at, lists, ties);
        }
        // They were models before.
        sign::refresh(world, population)?;
    }
    result
}

/// Writes the numbers of a parameter or buffer of an entity that was just signed.
pub(crate) fn write(world: &mut World, entity: Entity, role: Role, name: &str, numbers: &[u8]) {
    let Some(columned) = world.get::<Columned>(entity) else { return };
    let contents = columned.contents();
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
    let name = slot.own_name().to_owned();
    let mut registered = names.registered.clone();
    let entries = match slot.role {
        Role::Buffer => &mut registered.buffers,
        _ => &mut registered.parameters,
    };
    let entry = entries.iter_mut().find(|entry| entry.name == name);
    entry.into_iter().for_each(|entry| {
        (entry.ty, entry.uninitialized) = (Some(ty.clone()), false);
    });
    edit(world, names.population, vec![(names.entity, Some(registered))], "")?;
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
