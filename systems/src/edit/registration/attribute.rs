//! Attributes: assigning, reading and deleting what a module of a live model has under a name.

use bevy_ecs::prelude::*;
use neurarch_components::module::registered::{Attributes, Entry, Value};
use neurarch_kernels::ir::program::Role;

use super::children::{check_use, prepare, put_modules, remove_children};
use super::error::RegistrationError;
use super::put::{Gone, Put, checked_parameter, edit, put, put_alike, put_buffers};
use super::subject::{check_name, check_ties, for_each_structure, subject, subjects};
use crate::edit::lookup::{Attribute, Names};
use crate::edit::{lookup, parametrize};
use crate::execute::hooks::Target;
use crate::structure::spot::Spot;

/// Assigns a value to a name of a module of a live model, or of those of a population.
///
/// A [`Value::Parameter`] and a [`Value::Module`] take the place of whatever has the name; a
/// [`Value::Buffer`] is registered; a tensor replaces the numbers of a buffer; [`Value::None`] keeps the name
/// and takes the value. What is assigned to a name that nothing has, and is none of these, is only kept:
/// [`Attributes`]. A tensor that is assigned to a parametrized name is what its originals are made of from now on, by
/// [`right_inverse`](neurarch_components::module::Module::right_inverse).
///
/// # Errors
///
/// [`RegistrationError`]; nothing is changed then.
///
/// Source: `torch.nn.Module.__setattr__`. Names with dots are refused for modules, too; so is a module under the name
/// of a parametrized tensor, where no attribute would reach it.
pub fn setattr(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    value: Value,
) -> Result<(), RegistrationError> {
    let what = match value {
        Value::Parameter { .. } => "parameters",
        Value::Buffer { .. } => "buffer",
        _ => "module",
    };
    let subjects = subjects(world, target.into(), what)?;
    let mut ways: Vec<(Way, Vec<(Spot, Names)>)> = Vec::new();
    for (at, names) in subjects {
        let way = Way::of(world, &names, name, &value)?;
        match ways.iter_mut().find(|(known, _)| *known == way) {
            Some((_, of)) => of.push((at, names)),
            None => ways.push((way, vec![(at, names)])),
        }
    }
    let assigned = ways.iter().find(|(way, _)| *way == Way::Computed);
    let modules = assigned.iter().flat_map(|(_, of)| of).map(|(_, names)| names.entity);
    let modules: Vec<_> = modules.collect();
    let turned = match value.numbers() {
        Some(numbers) => parametrize::turn_all(world, &modules, name, numbers)?,
        None => Vec::new(),
    };
    ways.iter().try_for_each(|(way, subjects)| way.go(world, subjects, name, &value))?;
    turned.iter().for_each(|turned| turned.commit(world));
    Ok(())
}

/// What an assignment comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A parameter comes, in the place of whatever has the name.
    Parameter,
    /// A parameter loses its value.
    NoParameter,
    /// A module comes, in the place of whatever has the name.
    Module,
    /// A child loses its module.
    NoModule,
    /// A buffer is registered, or gets other numbers.
    Buffer { persistent: bool },
    /// The originals of a parametrized tensor become what makes the value.
    Computed,
    /// The value is only kept.
    Kept,
}

impl Way {
    /// Chooses and checks, in torch's order and words.
    fn of(
        world: &mut World,
        names: &Names,
        name: &str,
        value: &Value,
    ) -> Result<Self, RegistrationError> {
        if names.is_computed(world, name) {
            return Self::of_computed(world, names, name, value);
        }
        let is_parameter = Names::entry(&names.registered.parameters, name).is_some();
        let buffer = Names::entry(&names.registered.buffers, name);
        let is_child = names.child(world, name).is_some();
        let wrong = |what, expected| {
            let (name, given) = (name.to_owned(), value.typename(names.dtype));
            Err(RegistrationError::AssignKind { what, name, given, expected })
        };
        Ok(match value {
            Value::Parameter { .. } => {
                check_name("parameter", name)?;
                if names.is_of_type(name) {
                    return Err(RegistrationError::Exists { name: name.to_owned() });
                }
                Way::Parameter
            }
            Value::None if is_parameter => Way::NoParameter,
            _ if is_parameter => return wrong("parameter", "torch.nn.Parameter or None"),
            Value::Module(_) => {
                check_name("module", name)?;
                Way::Module
            }
            Value::None if is_child => Way::NoModule,
            _ if is_child => return wrong("child module", "torch.nn.Module or None"),
            Value::Other(_) if buffer.is_some() => {
                return wrong("buffer", "torch.nn.Buffer, torch.Tensor or None");
            }
            Value::Buffer { persistent, .. } => Way::Buffer { persistent: *persistent },
            _ => match buffer {
                Some(buffer) => Way::Buffer { persistent: buffer.persistent },
                None => Way::Kept,
            },
        })
    }

    /// [`of`](Self::of) for a tensor that is computed.
    fn of_computed(
        world: &mut World,
        names: &Names,
        name: &str,
        value: &Value,
    ) -> Result<Self, RegistrationError> {
        let is_registered =
            matches!(value, Value::Parameter { .. } | Value::Buffer { .. } | Value::Module(_));
        if is_registered || !names.is_parametrized(world, name) {
            return Err(RegistrationError::Exists { name: name.to_owned() });
        }
        if let Value::Tensor(_) = value {
            return Ok(Way::Computed);
        }
        parametrize::check_inverse(world, names.entity, name)?;
        let (what, expected) = ("parametrized tensor", "torch.Tensor");
        let (name, given) = (name.to_owned(), value.typename(names.dtype));
        Err(RegistrationError::AssignKind { what, name, given, expected })
    }

    /// Does it.
    fn go(
        self,
        world: &mut World,
        subjects: &[(Spot, Names)],
        name: &str,
        value: &Value,
    ) -> Result<(), RegistrationError> {
        match self {
            Way::Parameter => {
                let values = for_each_structure(subjects, |names| {
                    checked_parameter(world, names, name, value.clone())
                })?;
                let puts = subjects.iter().zip(&values).map(|((at, names), value)| {
                    let buffer = Names::entry(&names.registered.buffers, name);
                    let child = names.child(world, name);
                    let gone = buffer.map(|_| Gone::Buffer).into_iter();
                    let gone = gone.chain(child.map(Gone::Child)).collect();
                    Put { at, names, value, gone }
                });
                let puts: Vec<_> = puts.collect();
                put(world, Role::Parameter, name, true, &puts)?;
                forget(world, subjects, name);
            }
            Way::NoParameter => {
                let nothing = vec![Value::None; subjects.len()];
                put_alike(world, Role::Parameter, name, true, (subjects, &nothing))?;
            }
            Way::Module | Way::NoModule => {
                let values = for_each_structure(subjects, |names| {
                    prepare(world, names, name, value.clone())
                })?;
                delete(world, subjects, name, false)?;
                put_modules(world, name, subjects, &values)?;
                forget(world, subjects, name);
            }
            Way::Buffer { persistent } => put_buffers(world, subjects, name, value, persistent)?,
            Way::Computed => {}
            Way::Kept => {
                forget(world, subjects, name);
                for (_, names) in subjects {
                    let mut entity = world.entity_mut(names.entity);
                    let mut kept = entity.take::<Attributes>().unwrap_or_default();
                    kept.0.push((name.to_owned(), value.clone()));
                    entity.insert(kept);
                }
            }
        }
        Ok(())
    }
}

/// Drops kept values; says whether there were some.
fn forget(world: &mut World, subjects: &[(Spot, Names)], name: &str) -> bool {
    let mut were_there = false;
    for (_, names) in subjects {
        let Some(mut kept) = world.get_mut::<Attributes>(names.entity) else { continue };
        let before = kept.0.len();
        kept.0.retain(|(known, _)| known != name);
        were_there |= kept.0.len() < before;
    }
    were_there
}

/// Deletes what a module of a live model, or that of every model of a population, has under a name: a parameter, a
/// buffer, a child with all below it, or a kept value.
///
/// # Errors
///
/// [`RegistrationError::NoAttribute`] if there is nothing; [`RegistrationError::NoDeleter`] if it is parametrized;
/// [`RegistrationError::InUse`] if something that stays is tied to it, which torch allows. Nothing is changed then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::*;
/// # use neurarch_components::population::Population;
/// # use neurarch_components::module::registered::Value;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::registration::*;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::structure::traverse::*;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 1));
/// let brains = spawn_population(&mut world, &brain, 3, 3, 7, Dtype::F32)?;
/// // In all models at once.
/// setattr(&mut world, (brains, "0"), "scale", Value::parameter(ndarray::array![0.5_f32].view()))?;
/// delattr(&mut world, (brains, "0"), "bias")?;
/// let root = world.get::<Population>(brains).unwrap().models()[2];
/// let names = named_parameters(&mut world, root, Listing::default())?;
/// assert_eq!(names.iter().map(|of| of.name.as_str()).collect::<Vec<_>>(), ["0.weight", "0.scale"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.__delattr__`.
pub fn delattr(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
) -> Result<(), RegistrationError> {
    let subjects = subjects(world, target.into(), "module")?;
    for (_, names) in &subjects {
        let is_kept = || {
            let kept = world.get::<Attributes>(names.entity);
            kept.is_some_and(|kept| kept.0.iter().any(|(known, _)| known == name))
        };
        if names.is_computed(world, name) && names.child(world, name).is_none() {
            return Err(RegistrationError::NoDeleter { class: names.class_now(world) });
        }
        let is_there = Names::entry(&names.registered.parameters, name).is_some()
            || Names::entry(&names.registered.buffers, name).is_some()
            || names.child(world, name).is_some()
            || is_kept();
        if !is_there {
            let (class, name) = (names.class_now(world), name.to_owned());
            return Err(RegistrationError::NoAttribute { class, name });
        }
    }
    delete(world, &subjects, name, true)
}

/// Deletes what some modules have under a name; children and kept values, too, or parameters and buffers alone.
fn delete(
    world: &mut World,
    subjects: &[(Spot, Names)],
    name: &str,
    children_too: bool,
) -> Result<(), RegistrationError> {
    let Some((first, _)) = subjects.first() else { return Ok(()) };
    let is_other = |entry: &Entry| entry.name != name;
    let (mut lists, mut children, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (at, names)) in subjects.iter().enumerate() {
        let mut registered = names.registered.clone();
        if Names::entry(&registered.parameters, name).is_some() {
            check_ties(world, at, &registered, name)?;
            registered.parameters.retain(is_other);
            lists.push((names.entity, Some(registered)));
        } else if Names::entry(&registered.buffers, name).is_some() {
            registered.buffers.retain(is_other);
            lists.push((names.entity, Some(registered)));
        } else if let Some(child) = names.child(world, name) {
            check_use(world, at, child)?;
            children.push((at, child));
        } else {
            kept.push(number);
        }
    }
    if !lists.is_empty() {
        edit(world, first.population, lists, name)?;
    }
    if children_too {
        remove_children(world, first.population, &children)?;
        for number in kept {
            forget(world, &subjects[number..=number], name);
        }
    }
    Ok(())
}

/// Returns what a module of a live model has under a name: a parametrized tensor as it is computed.
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
    found.ok_or_else(|| RegistrationError::NoAttribute {
        class: names.class_now(world),
        name: name.to_owned(),
    })
}
