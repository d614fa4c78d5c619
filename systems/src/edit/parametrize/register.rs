//! Registering: a tensor's numbers become originals, and the module's tree gets the parametrization.

use std::collections::HashMap;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::call::Call;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::module::{Declare, Declared, DynModule, Init};
use neurarch_components::parametrizations::{
    PARAMETRIZATIONS, ParametrizationList, Parametrizations,
};
use neurarch_components::population::tree::ModuleName;
use neurarch_kernels::ir::program::Slot;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use super::companions::Companions;
use super::current::{current, is_buffer, next_name};
use super::site::{Rows, Site, child, descend, read, reset, sites, stores, write};
use crate::errors::ParametrizeError;
use crate::structure::{mode, sign};

/// How [`register_parametrization`](super::register_parametrization) treats what a parametrization gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegisterOptions {
    /// Whether the parametrization may change the tensor's dtype and shape: torch's `unsafe=True`.
    pub is_unsafe: bool,
}

/// Makes the parametrization of a tensor, given its type and what it is called in torch's errors.
pub(crate) type Make<'a> = dyn Fn(&Tensor<'_>) -> Result<Box<dyn DynModule>, ParametrizeError> + 'a;

/// A tensor that is to be parametrized.
pub(crate) struct Tensor<'a> {
    pub(crate) ty: &'a Type,
}

/// What one module gets.
struct Prepared {
    module: Entity,
    parametrization: Box<dyn DynModule>,
    /// The list of originals, if it is the tensor's first parametrization, and their numbers.
    list: Option<(ParametrizationList, Vec<Vec<u8>>)>,
    /// The numbers of the parametrization's own parameters and buffers, by path and name.
    own: Vec<(String, String, Vec<u8>)>,
    companions: Companions,
    is_evaluating: bool,
}

/// See [`register_parametrization`](super::register_parametrization).
pub(crate) fn register(
    world: &mut World,
    modules: &[Entity],
    name: &str,
    make: &Make<'_>,
    options: RegisterOptions,
) -> Result<(), ParametrizeError> {
    let mut prepared = Vec::new();
    let mut populations = Vec::new();
    for site in sites(world, modules)? {
        prepared.extend(prepare(world, &site, name, make, options)?);
        populations.push(site.population);
    }
    ModuleTypes::register::<Parametrizations>(world);
    ModuleTypes::register::<ParametrizationList>(world);
    let mut added = Vec::with_capacity(prepared.len());
    for of in &prepared {
        added.push(add(world, of, name));
    }
    populations.dedup();
    for population in populations {
        sign::refresh(world, population)?;
    }
    for (of, (list, parametrization)) in prepared.into_iter().zip(added) {
        fill(world, of, list, parametrization);
    }
    Ok(())
}

/// Checks everything, and computes the numbers that the originals will have.
fn prepare(
    world: &World,
    site: &Site,
    name: &str,
    make: &Make<'_>,
    options: RegisterOptions,
) -> Result<Vec<Prepared>, ParametrizeError> {
    let slot = site.slot(name);
    check_place(world, site, slot.as_ref())?;
    let tensor = current(world, site, name)?;
    let module = make(&Tensor { ty: &tensor.ty })?;
    let declared = Blueprint::of(&*module, tensor.ty.dtype)
        .map_err(|error| ParametrizeError::Invalid(error.to_string()))?;
    let made = compute(site, &declared, &tensor, slot.is_some(), options)?;
    let list = slot.as_ref().map(|slot| {
        let own = slot.own_name();
        let at = &site.blueprint.positions[site.position];
        let among = if is_buffer(slot.role) { &at.buffers } else { &at.parameters };
        let persistent = among.iter().find(|of| of.name == own).is_none_or(|of| of.persistent);
        let tensor = Declared {
            name: own.to_owned(),
            shape: slot.ty.shape.clone(),
            dtype: Some(slot.ty.dtype),
            persistent,
            uninitialized: false,
            is_none: false,
            requires_grad: true,
        };
        let (originals, is_buffer) = (Vec::new(), is_buffer(slot.role));
        let init: Init = at.module.reset(own);
        let shapes = made.originals.iter().map(|rows| rows.ty.shape.clone());
        ParametrizationList { tensor, originals, is_buffer, init }.named(shapes, made.is_tensor)
    });
    let members = site.members.iter().enumerate().map(|(i, member)| {
        let own = made.own.iter().map(|(slot, rows)| {
            let path = declared.positions[slot.position].path.clone();
            let own = slot.own_name();
            (path, own.to_owned(), rows.row(i).to_vec())
        });
        let originals = made.originals.iter().map(|rows| rows.row(i).to_vec());
        let mode = world.get::<Mode>(member.root);
        Prepared {
            module: member.module,
            parametrization: module.clone(),
            list: list.clone().map(|list| (list, originals.collect())),
            own: own.collect(),
            companions: slot
                .as_ref()
                .map(|slot| Companions::of(world, site, member, slot))
                .unwrap_or_default(),
            is_evaluating: mode.is_some_and(|mode| mode.evaluating.contains(site.position)),
        }
    });
    Ok(members.collect())
}

/// Checks that a tensor is nobody else's, and that there is room for its parametrizations.
pub(crate) fn check_place(
    world: &World,
    site: &Site,
    slot: Option<&Slot>,
) -> Result<(), ParametrizeError> {
    let of = &site.blueprint;
    let has_other_home =
        |slot: &Slot| of.shared(slot).is_some() || site.other_name(site.position, slot).is_some();
    if let Some(slot) = slot.filter(|slot| has_other_home(slot)) {
        return Err(ParametrizeError::Tied { name: slot.name.clone() });
    }
    let is_taken = site.blueprint.parametrizations(site.position).is_none()
        && site
            .members
            .first()
            .is_some_and(|member| child(world, member.module, PARAMETRIZATIONS).is_some());
    if is_taken {
        return Err(ParametrizeError::Taken { name: PARAMETRIZATIONS.to_owned() });
    }
    Ok(())
}

/// What a parametrization makes of a tensor.
struct Made {
    is_tensor: bool,
    originals: Vec<Rows>,
    /// The parametrization's own parameters and buffers.
    own: Vec<(Slot, Rows)>,
}

/// Computes the originals, and the first numbers of the parametrization's own parameters and buffers, by itself:
/// before it is part of a model.
fn compute(
    site: &Site,
    declared: &Blueprint,
    tensor: &Rows,
    is_first: bool,
    options: RegisterOptions,
) -> Result<Made, ParametrizeError> {
    let trace = site.trace();
    let mut own = reset(site, declared, &trace);
    let training = vec![false; declared.positions.len()];
    let call = Call {
        trace: &trace,
        blueprint: declared,
        position: 0,
        training: &training,
        watcher: None,
        cache: None,
        checkpoints: None,
    };
    let x = tensor.record(&trace, site.members.len());
    // Without an inverse the original is the tensor as it is.
    let originals = call.turn_around(x.clone()).unwrap_or_else(|_| Tree::from(&x));
    let (is_tensor, originals) = match originals {
        Tree::Tuple(items) => (false, items),
        item => (true, vec![item]),
    };
    if let Some(error) = trace.error() {
        return Err(error.into());
    }
    let stored: HashMap<_, _> = stores(&trace)
        .into_iter()
        .map(|(slot, rows)| ((slot.role, slot.position, slot.index), rows))
        .collect();
    let mut stored = stored;
    for (slot, rows) in &mut own {
        if let Some(newer) = stored.remove(&(slot.role, slot.position, slot.index)) {
            *rows = newer;
        }
    }
    let mut read_all = Vec::new();
    for original in &originals {
        let Tree::Leaf(original) = original else {
            return Err(ParametrizeError::Invalid(format!(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got {}",
                original.type_name()
            )));
        };
        read_all.push(read(&trace, original)?);
    }
    if is_tensor && read_all[0].ty.dtype != tensor.ty.dtype {
        return Err(ParametrizeError::Invalid(format!(
            "When `right_inverse` outputs one tensor, it may not change the dtype.\n\
             original.dtype: {}\nright_inverse(original).dtype: {}",
            tensor.ty.dtype, read_all[0].ty.dtype
        )));
    }
    if !options.is_unsafe {
        // A second parametrization takes what the first one gives.
        let of = if is_first { originals } else { vec![Tree::from(&x)] };
        check_result(&call, of, &tensor.ty)?;
    }
    Ok(Made { is_tensor, originals: read_all, own })
}

/// Checks that a parametrization gives a tensor like the one that it takes the place of.
fn check_result(
    call: &Call<'_>,
    originals: Vec<Tree>,
    expected: &Type,
) -> Result<(), ParametrizeError> {
    let result = call.run(Arguments { positional: originals, keyword: Vec::new() });
    if let Some(error) = call.trace.error() {
        return Err(error.into());
    }
    let Tree::Leaf(made) = result else {
        return Err(ParametrizeError::Invalid(format!(
            "A parametrization must return a tensor. Got {}.",
            result.type_name()
        )));
    };
    let refuse = |what: &str, before: String, after: String| {
        Err(ParametrizeError::Invalid(format!(
            "Registering a parametrization may not change the {what} of the tensor, unless `unsafe` \
             flag is enabled.\nunparametrized {what}: {before}\nparametrized {what}: {after}"
        )))
    };
    if made.dtype() != expected.dtype {
        return refuse("dtype", expected.dtype.to_string(), made.dtype().to_string());
    }
    if *made.shape() != expected.shape {
        return refuse("shape", expected.shape.to_string(), made.shape().to_string());
    }
    Ok(())
}

/// Adds the parametrization's entities below a module; gives those of the list and of the parametrization.
fn add(world: &mut World, of: &Prepared, name: &str) -> (Entity, Entity) {
    let container = child(world, of.module, PARAMETRIZATIONS).unwrap_or_else(|| {
        let name = ModuleName(PARAMETRIZATIONS.into());
        world.spawn((name, ChildOf(of.module), Parametrizations)).id()
    });
    let list = match &of.list {
        Some((list, _)) => {
            world.spawn((ModuleName(name.into()), ChildOf(container), list.clone())).id()
        }
        None => child(world, container, name).unwrap_or(container),
    };
    let name = next_name(world, list);
    (list, spawn(world, &*of.parametrization, name, list))
}

/// Spawns the entities of a module below a parent.
fn spawn(world: &mut World, module: &dyn DynModule, name: ModuleName, parent: Entity) -> Entity {
    module.plain().register(world);
    let mut entity = world.spawn((name, ChildOf(parent)));
    module.plain().insert_into(&mut entity);
    let entity = entity.id();
    let mut declared = Declare::default();
    module.declare(&mut declared);
    for (name, child) in &declared.children {
        spawn(world, &**child, ModuleName(name.as_str().into()), entity);
    }
    entity
}

/// Writes the numbers that were computed before, and passes on what the tensor had beside them.
fn fill(world: &mut World, of: Prepared, list: Entity, parametrization: Entity) {
    if let Some((description, originals)) = &of.list {
        for (declared, bytes) in description.originals.iter().zip(originals) {
            write(world, list, &declared.name, bytes);
        }
        let names: Vec<_> = description.originals.iter().map(|of| of.name.as_str()).collect();
        of.companions.give(world, list, &names);
    }
    for (path, name, bytes) in &of.own {
        if let Some(module) = descend(world, parametrization, path) {
            write(world, module, name, bytes);
        }
    }
    if of.is_evaluating {
        let whole = if of.list.is_some() { list } else { parametrization };
        // The module was just signed.
        let _ = mode::eval(world, whole);
    }
}
