//! Writes parameters and buffers down in the lists of modules, and gives them their numbers.

use bevy_ecs::prelude::*;
use neurarch_components::hook::HookKind;
use neurarch_components::module::registered::{Entry, Numbers, Registered, Value};
use neurarch_components::parametrizations::RegisteredAgain;
use neurarch_components::population::tie::Ties;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use super::children::{check_use, remove_children};
use super::error::RegistrationError;
use super::subject::{ask, check_name, check_ties, for_each_structure};
use crate::draw;
use crate::edit::lookup::{Child, Names};
use crate::errors::SignError;
use crate::structure::columns::write_own;
use crate::structure::sign;
use crate::structure::spot::{Spot, find};

/// What goes when something of its name comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Buffer,
    Child(Child),
}

/// A parameter or buffer that one module gets.
pub(super) struct Put<'a> {
    pub(super) at: &'a Spot,
    pub(super) names: &'a Names,
    /// A parameter, a buffer, or torch's `None`.
    pub(super) value: &'a Value,
    pub(super) gone: Vec<Gone>,
}

impl Put<'_> {
    fn numbers(&self) -> Option<&Numbers> {
        self.value.numbers()
    }

    /// Returns what the module has afterwards, the new entry with that type.
    fn listed(&self, role: Role, name: &str, ty: Option<Type>, persistent: bool) -> Registered {
        let mut registered = self.names.registered.clone();
        if self.gone.contains(&Gone::Buffer) {
            registered.buffers.retain(|entry| entry.name != name);
        }
        let entries = match role {
            Role::Buffer => &mut registered.buffers,
            _ => &mut registered.parameters,
        };
        let requires_grad = !matches!(self.value, Value::Parameter { requires_grad: false, .. });
        let name = name.to_owned();
        let entry = Entry { name, ty, persistent, uninitialized: false, requires_grad };
        match entries.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
        registered
    }

    /// Returns the type that the new entry has.
    fn ty(&self) -> Option<Type> {
        self.numbers().map(|numbers| numbers.ty(self.names.dtype))
    }

    /// Returns whether there is something with numbers under the name.
    fn is_known(&self, role: Role, name: &str) -> bool {
        let registered = &self.names.registered;
        let known = if role == Role::Buffer { &registered.buffers } else { &registered.parameters };
        Names::entry(known, name).is_some_and(|entry| entry.ty.is_some())
    }

    fn check(&self, world: &World, role: Role, name: &str) -> Result<(), RegistrationError> {
        if let (Some(Numbers::Drawn { init, .. }), Some(ty)) = (self.numbers(), self.ty()) {
            let slot = Slot { name: name.to_owned(), role, position: 0, index: 0, ty };
            draw::check(name, &slot, init)?;
        }
        if role == Role::Parameter && self.is_known(role, name) {
            check_ties(world, self.at, &self.names.registered, name)?;
        }
        Ok(())
    }
}

/// Writes down a parameter or buffer of one module, or of those of a population, and gives it its numbers.
pub(super) fn put(
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
        match put.numbers() {
            None => {}
            Some(Numbers::Given(tensor)) => {
                write_own(world, put.names.entity, role, name, &tensor.to_native());
            }
            Some(Numbers::Drawn { init, .. }) => {
                let at = find(world, put.names.entity)?;
                let blueprint = at.blueprint(world);
                let slot = match role {
                    Role::Buffer => blueprint.buffer(at.position, name),
                    _ => blueprint.parameter(at.position, name),
                };
                if let Some(slot) = slot {
                    draw::fill_one(world, at.population, (at.group, at.member), slot, init.clone())
                        .map_err(SignError::from)?;
                }
            }
        }
    }
    Ok(())
}

/// Checks what a parameter is to be, and asks the registration hooks.
pub(super) fn checked_parameter(
    world: &World,
    names: &Names,
    name: &str,
    value: Value,
) -> Result<Value, RegistrationError> {
    let check = |value: &Value| match value {
        Value::None | Value::Parameter { .. } => Ok(()),
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
    check_gradient(names, name, &value)?;
    Ok(value)
}

/// Refuses a parameter of integers that is to have a gradient.
pub(crate) fn check_gradient(
    names: &Names,
    name: &str,
    value: &Value,
) -> Result<(), RegistrationError> {
    match value {
        Value::Parameter { numbers, requires_grad: true }
            if !numbers.ty(names.dtype).dtype.is_float() =>
        {
            Err(RegistrationError::RequiresGrad { name: name.to_owned() })
        }
        _ => Ok(()),
    }
}

pub(super) fn put_buffers(
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
    let values = for_each_structure(subjects, |names| {
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
        Ok(value)
    })?;
    put_alike(world, Role::Buffer, name, persistent, (subjects, &values))
}

/// [`put`] where nothing goes: in each subject its value.
pub(super) fn put_alike(
    world: &mut World,
    role: Role,
    name: &str,
    persistent: bool,
    (subjects, values): (&[(Spot, Names)], &[Value]),
) -> Result<(), RegistrationError> {
    let puts = subjects.iter().zip(values);
    let puts = puts.map(|((at, names), value)| Put { at, names, value, gone: Vec::new() });
    put(world, role, name, persistent, &puts.collect::<Vec<_>>())
}

/// Gives modules of a population other lists, or the ones that their types declare, and signs the models; a tie of
/// `name` goes. If a model is none then, everything is put back.
pub(super) fn edit(
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
    write_own(world, module, slot.role, &name, numbers);
    Ok(())
}
