//! Registration: parameters, buffers and children come and go in one model, which moves to another
//! blueprint; its neighbors do not notice. Or in all models of a population at once, with `(population, path)` as the
//! target: checked for all, done in all, signed once. Registration hooks are then called once for each structure.
//!
//! The checks, their order and their words are torch's. What is still there by name and type keeps its
//! numbers, its gradient and its optimizer state; what is new starts with the numbers that are given.

mod attribute;
mod children;
mod error;
mod module;
mod put;
mod subject;

use bevy_ecs::prelude::*;
use neurarch_components::module::registered::Value;
use neurarch_kernels::ir::program::Role;

pub use attribute::{delattr, getattr, setattr};
pub(crate) use children::{Sapling, check_going, prepare};
pub use error::RegistrationError;
pub use module::{register_module, set_submodule};
pub(crate) use put::{check_gradient, retype};
pub(crate) use subject::{ask, check_ties};

use crate::edit::lookup::Names;
use crate::execute::hooks::Target;
use put::{checked_parameter, put_alike, put_buffers};
use subject::{check_name, for_each_structure, subjects};

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
/// # use neurarch_components::layers::*;
/// # use neurarch_components::population::Population;
/// # use neurarch_components::module::registered::Value;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::registration::*;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::structure::traverse::*;
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
    let values = for_each_structure(&subjects, |names| {
        checked_parameter(world, names, name, value.clone())
    })?;
    put_alike(world, Role::Parameter, name, true, (&subjects, &values))
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
