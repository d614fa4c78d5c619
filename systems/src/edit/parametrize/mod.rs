//! Parametrizations of live models: registering, assigning, removing, for one module or a whole population.
//!
//! Source: `torch.nn.utils.parametrize` and `torch.nn.utils.parametrizations`.

mod companions;
mod constraints;
pub(crate) mod current;
pub(crate) mod register;
mod remove;
pub(crate) mod site;
pub mod weight_norm;

use bevy_ecs::prelude::*;
use ndarray::ArrayViewD;
use neurarch_components::module::Module;
use neurarch_components::module::blueprint::UNINITIALIZED;
use neurarch_components::module::call::Call;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registered::Numbers;
use neurarch_components::parametrizations::{PARAMETRIZATIONS, Parametrizations};
use neurarch_components::population::Population;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::program::Slot;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::Tree;

pub use constraints::{orthogonal, spectral_norm, weight_norm};
pub use register::RegisterOptions;
pub use remove::{remove_parametrizations, remove_spectral_norm};

use crate::draw::Draw;
use crate::draw::op::Fill;
pub use crate::errors::ParametrizeError;
use crate::errors::SignError;
use crate::execute::hooks::Target;
use current::current;
use site::{Rows, Site, child, modules, sites};

/// Computes a parameter or buffer of a module by a parametrization from now on.
///
/// The target is a module's entity, or `(population, path)` for that module of every model. The tensor's
/// numbers become the originals that the parametrization's
/// [`right_inverse`](neurarch_components::module::Module::right_inverse) makes of them; without one, they are the
/// original. A tensor that is parametrized already gets one more parametrization, after the others.
///
/// Optimizer state and gradient of a tensor that has one original become that original's.
///
/// # Errors
///
/// [`ParametrizeError`]: there is no such tensor, or the parametrization does not fit it.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::{Linear, Tanh};
/// # use neurarch_components::population::Population;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::parametrize::*;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::state::dict::state_dict;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 7, Dtype::F32)?;
/// register_parametrization(&mut world, (layers, ""), "weight", Tanh, RegisterOptions::default())?;
/// let model = world.get::<Population>(layers).unwrap().models()[0];
/// let tensors = state_dict(&mut world, model, "")?;
/// let names: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
/// assert_eq!(names, ["bias", "parametrizations.weight.original"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.utils.parametrize.register_parametrization`.
pub fn register_parametrization(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    parametrization: impl Module,
    options: RegisterOptions,
) -> Result<(), ParametrizeError> {
    let modules = modules(world, target)?;
    register::register(world, &modules, name, &|_| Ok(Box::new(parametrization.clone())), options)
}

/// Returns whether a tensor of a module is parametrized; any, if no name is given.
///
/// Source: `torch.nn.utils.parametrize.is_parametrized`.
pub fn is_parametrized(world: &World, module: Entity, name: Option<&str>) -> bool {
    let container = child(world, module, PARAMETRIZATIONS);
    let container = container.filter(|&found| world.get::<Parametrizations>(found).is_some());
    container.is_some_and(|container| match name {
        Some(name) => child(world, container, name).is_some(),
        None => world.get::<Children>(container).is_some_and(|children| !children.is_empty()),
    })
}

/// Copies a parameter or buffer of a module, computed if it is parametrized: of one module, or of that of every
/// model of a population, in the order of groups; nothing is written.
///
/// # Errors
///
/// [`ParametrizeError`] if there is no such module or tensor.
///
/// Source: `module.weight`.
pub(crate) fn values(
    world: &mut World,
    of: &[Entity],
    name: &str,
) -> Result<Vec<(Entity, Type, Vec<u8>)>, ParametrizeError> {
    let mut all = Vec::new();
    for site in sites(world, of)? {
        let rows = current(world, &site, name)?;
        let members = site.members.iter().enumerate();
        all.extend(
            members.map(|(i, member)| (member.module, rows.ty.clone(), rows.row(i).to_vec())),
        );
    }
    Ok(all)
}

/// Copies a tensor of a module, computed if it is parametrized; nothing is written.
///
/// # Errors
///
/// [`ParametrizeError`] if there is no such module or tensor, or its elements are not `T`.
///
/// Source: `module.weight`. A power iteration in training mode is done, but not kept.
pub fn tensor<T: Element>(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<ndarray::ArrayD<T>, ParametrizeError> {
    let (_, ty, bytes) = values(world, &[module], name)?.swap_remove(0);
    check_dtype(ty.dtype, T::DTYPE)?;
    let numbers = bytemuck::pod_collect_to_vec::<u8, T>(&bytes);
    let shape = ndarray::IxDyn(&ty.shape);
    ndarray::ArrayD::from_shape_vec(shape, numbers)
        .map_err(|error| ParametrizeError::Invalid(error.to_string()))
}

/// Gives a parametrized tensor of a module new numbers: the originals become what makes them.
///
/// # Errors
///
/// [`ParametrizeError::NoInverse`] if one of its parametrizations cannot be turned around; others if the module
/// or the tensor is not there, or the numbers do not fit. Nothing is written then.
///
/// Source: `module.weight = tensor`.
pub fn assign<T: Element>(
    world: &mut World,
    module: Entity,
    name: &str,
    numbers: ArrayViewD<'_, T>,
) -> Result<(), ParametrizeError> {
    let numbers = Numbers::Given(Tensor::new(name, numbers));
    let turned = turn_all(world, &[module], name, &numbers)?;
    turned.iter().for_each(|turned| turned.commit(world));
    Ok(())
}

/// Originals that were computed of a tensor that is assigned, and are not written yet.
pub(crate) struct Turned(Site, Trace);

impl Turned {
    pub(crate) fn commit(&self, world: &mut World) {
        self.0.commit(world, &self.1);
    }
}

/// Computes what the originals of a tensor of some modules become when it is assigned.
pub(crate) fn turn_all(
    world: &mut World,
    modules: &[Entity],
    name: &str,
    numbers: &Numbers,
) -> Result<Vec<Turned>, ParametrizeError> {
    let sites = sites(world, modules)?;
    let turn = |site: Site| {
        let list = list_of(&site, name)?;
        let members = site.members.len();
        let dtype = world.get::<Population>(site.population).map_or(Dtype::F32, |of| of.dtype());
        let ty = numbers.ty(dtype);
        let record = |call: &Call<'_>| match numbers {
            Numbers::Given(tensor) => {
                let rows = Rows { ty, bytes: tensor.to_native().repeat(members) };
                turn_around(call, rows.record(call.trace, members))
            }
            Numbers::Drawn { init, .. } => {
                let slot = site.slots_of(list).into_iter().next();
                let slot = slot.ok_or_else(|| ParametrizeError::Invalid(UNINITIALIZED.into()))?;
                let fill = Fill::new(&Slot { ty, ..slot }, init.clone());
                turn_around(call, call.trace.apply(fill, &[]))
            }
        };
        let ((), trace) = site.evaluate(world, list, record)?;
        Ok(Turned(site, trace))
    };
    sites.into_iter().map(turn).collect()
}

/// Checks that a tensor of a module can be assigned.
pub(crate) fn check_inverse(
    world: &mut World,
    module: Entity,
    name: &str,
) -> Result<(), ParametrizeError> {
    let site = sites(world, &[module])?.swap_remove(0);
    let (list, rows) = (list_of(&site, name)?, current(world, &site, name)?);
    let record = |call: &Call<'_>| turn_around(call, rows.record(call.trace, 1));
    site.evaluate(world, list, record).map(drop)
}

fn check_dtype(expected: Dtype, given: Dtype) -> Result<(), ParametrizeError> {
    if expected == given {
        return Ok(());
    }
    let message = format!("expected elements of {expected}, got {given}");
    Err(ParametrizeError::Invalid(message))
}

/// Finds the position of a tensor's parametrizations.
pub(crate) fn list_of(site: &Site, name: &str) -> Result<usize, ParametrizeError> {
    let list = site.blueprint.parametrization(site.position, name);
    list.ok_or_else(|| ParametrizeError::NotParametrized {
        module: site.class_name(),
        name: name.to_owned(),
    })
}

/// Records, in a call of a list, that its originals become what makes `tensor`.
fn turn_around(call: &Call<'_>, tensor: Var) -> Result<(), ParametrizeError> {
    let at = call.at();
    let (is_tensor, originals) = match call.turn_around(tensor)? {
        Tree::Tuple(items) => (false, items),
        item => (true, vec![item]),
    };
    let of = at.parameters.iter().chain(&at.buffers).map(|of| {
        let parameter = call.blueprint.parameter(call.position, &of.name);
        parameter.or_else(|| call.blueprint.buffer(call.position, &of.name))
    });
    let slots: Vec<_> = of.flatten().collect();
    if slots.len() != originals.len() {
        return Err(ParametrizeError::Invalid(format!(
            "'right_inverse' must return a sequence of tensors of length {}. Got a sequence of length {}.",
            slots.len(),
            originals.len()
        )));
    }
    for (number, (slot, original)) in slots.into_iter().zip(&originals).enumerate() {
        let Tree::Leaf(original) = original else {
            let given = original.type_name();
            let message = format!("`right_inverse` should return a tensor. Got {given}");
            return Err(ParametrizeError::Invalid(message));
        };
        if original.id().is_some() && original.dtype() != slot.ty.dtype {
            let (given, expected, own) = (original.dtype(), slot.ty.dtype, slot.own_name());
            let what = if is_tensor { "The tensor".to_owned() } else { format!("Tensor {number}") };
            return Err(ParametrizeError::Invalid(format!(
                "{what} returned by `right_inverse` has dtype {given} while `{own}` has dtype {expected}"
            )));
        }
        if original.id().is_some() && *original.ty() != slot.ty {
            return Err(ParametrizeError::Invalid(format!(
                "Tensor {number} returned by `right_inverse` has type {} while `{}` has type {}",
                original.ty(),
                slot.name,
                slot.ty
            )));
        }
        call.trace.store(&call.trace.slot(slot), original);
    }
    Ok(())
}

/// Gives the originals of the parametrized tensors of some modules, and of all below them, the numbers that make what
/// their modules ask for at first: after these modules' parameters and buffers were reset.
pub(crate) fn reset_originals(world: &mut World, modules: &[Entity], draw: Draw) {
    let Ok(mut sites) = sites(world, modules) else { return };
    for site in &mut sites {
        site.draw(world, draw);
        let types = site.blueprint.subtree(site.position);
        let containers = types.filter_map(|position| site.blueprint.parametrizations(position));
        let lists = containers.flat_map(|at| site.blueprint.positions[at].children.clone());
        for list in lists {
            let Some(of) = site.originals(list) else { continue };
            let drawn = site.slots_of(list).into_iter().next().and_then(|mut slot| {
                let dtype = of.tensor.dtype.unwrap_or(slot.ty.dtype);
                slot.ty = Type { dtype, shape: of.tensor.shape.clone() };
                let fill = Fill::new(&slot, of.init.clone());
                let record = |call: &Call<'_>| turn_around(call, call.trace.apply(fill, &[]));
                site.evaluate(world, list, record).ok()
            });
            if let Some((_, trace)) = drawn {
                site.commit(world, &trace);
            }
        }
        weight_norm::reset_lengths(world, site);
    }
}

/// Runs `run` while the parametrized tensors of a population's models are computed once in a pass, however often
/// they are read.
///
/// # Errors
///
/// If `population` is no population; `run` is not called then.
///
/// Source: `torch.nn.utils.parametrize.cached`, which keeps tensors from one pass to the next, too: here each
/// pass computes its own.
pub fn cached<R>(
    world: &mut World,
    population: Entity,
    run: impl FnOnce(&mut World) -> R,
) -> Result<R, ParametrizeError> {
    set_cached(world, population, true)?;
    let result = run(world);
    // The population may be gone.
    let _ = set_cached(world, population, false);
    Ok(result)
}

fn set_cached(world: &mut World, population: Entity, is_cached: bool) -> Result<(), SignError> {
    let found = world.get::<Population>(population);
    let models = found.ok_or(SignError::NotAPopulation(population))?.models().to_vec();
    for root in models {
        if let Some(mut mode) = world.get_mut::<Mode>(root)
            && mode.cached != is_cached
        {
            mode.cached = is_cached;
        }
    }
    Ok(())
}
