//! Tying parameters of a live model, and giving a module a second name.

use bevy_ecs::prelude::*;
use neurarch_components::column::{ColumnKey, row, row_mut};
use neurarch_components::module::blueprint::{Blueprint, Parameter};
use neurarch_components::module::names::{Kind, wrong_name};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tie::{SharedModule, Tie, Ties};
use neurarch_components::population::tree::{Model, ModuleName};
use neurarch_components::state::{StateDict, Tensor};
use neurarch_kernels::ir::program::{Role, Slot};

use crate::errors::{AccessError, SignError};
use crate::structure::access::find_slot;
use crate::structure::columns::write_own;
use crate::structure::root::root_of;
use crate::structure::spot::locate;
use crate::structure::{access, sign, spot};

/// Makes the parameter `tied` of a model the same as its parameter `owner`, both by dotted names: from then on
/// there is one, with the numbers of `owner`, trained by all of its uses.
///
/// # Errors
///
/// If there are no such parameters, or their types differ. Nothing is changed then.
///
/// Source: `model.decoder.weight = model.encoder.weight`.
pub fn tie(world: &mut World, root: Entity, tied: &str, owner: &str) -> Result<(), AccessError> {
    let population = world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?.population;
    sign::refresh(world, population)?;
    let known = blueprint(world, root)?;
    let slot = |name: &str| {
        let slot = find_slot(known, name);
        slot.ok_or_else(|| AccessError::NoSuchName {
            module: known.positions[0].module.type_name(),
            name: name.to_owned(),
        })
    };
    let (from, to) = (slot(owner)?, slot(tied)?);
    if let Some(slot) = [&from, &to].into_iter().find(|slot| known.is_uninitialized(slot)) {
        return Err(AccessError::Uninitialized { name: slot.name.clone() });
    }
    if from.ty != to.ty {
        let (expected, given) = (to.ty.shape.to_vec(), from.ty.shape.to_vec());
        return Err(AccessError::Shape { name: tied.to_owned(), expected, given });
    }
    let (path, own) = tied.rsplit_once('.').unwrap_or(("", tied));
    let (owner_path, owner_own) = owner.rsplit_once('.').unwrap_or(("", owner));
    let module = access::module(world, root, path)?;
    let owner_module = access::module(world, root, owner_path)?;
    let numbers = bytes(world, root, &from)?;
    let mut ties = world.get::<Ties>(module).cloned().unwrap_or(Ties(Vec::new()));
    ties.0.retain(|known| known.parameter != own);
    ties.0.push(Tie {
        parameter: own.to_owned(),
        owner: owner_module,
        owner_parameter: owner_own.to_owned(),
    });
    world.entity_mut(module).insert(ties);
    sign::refresh(world, population)?;
    // The first of the names has the column; it may have been the other one's.
    let found = find_slot(blueprint(world, root)?, owner);
    let found = found.ok_or(AccessError::NotAModel(root))?;
    let (entity, key) = home(world, root, &found)?;
    if let Some(row) = row_mut(world, entity, key) {
        row[..numbers.len()].copy_from_slice(&numbers);
    }
    Ok(())
}

/// Unties the parameters below modules of a population that a state dict has tensors of their shape for: each
/// name starts with the numbers that there were, as one of its own. In the tensors as many axes as `leading` come
/// before the shape.
///
/// # Errors
///
/// If one is no module of a model.
///
/// Source: `torch.nn.Module.load_state_dict(state, assign=True)`, which gives each name another parameter.
pub(crate) fn untie_given(
    world: &mut World,
    modules: &[Entity],
    state: &StateDict,
    leading: usize,
) -> Result<(), AccessError> {
    let (mut population, mut own, mut apart) = (None, Vec::new(), Vec::new());
    for &module in modules {
        let spot = locate(world, module)?;
        population = Some(spot.population);
        let group = spot.group(world);
        let Some(blueprint) = world.resource::<Blueprints>().get(group.blueprint) else { continue };
        let top = &blueprint.positions[spot.position].path;
        let is_given = |position: usize, of: &Parameter| {
            let path = blueprint.path_below(position, &of.name);
            let key = match top.is_empty() {
                true => Some(path.as_str()),
                false => path.strip_prefix(top.as_str()).and_then(|key| key.strip_prefix('.')),
            };
            let shape = key.and_then(|key| state.get(key)).map(Tensor::shape);
            shape.and_then(|shape| shape.get(leading..)).is_some_and(|shape| *shape == *of.ty.shape)
        };
        for (position, at) in blueprint.positions.iter().enumerate() {
            for of in &at.parameters {
                let Some((owner, index)) = of.tied else { continue };
                let owner_of = &blueprint.positions[owner].parameters[index];
                let [tied, owner_module] =
                    [position, owner].map(|at| group.modules[at][spot.member]);
                let key = group.contents[owner].key(Role::Parameter, index);
                let given = is_given(position, of) || is_given(owner, owner_of);
                let Some(numbers) = row(world, owner_module, key).filter(|_| given) else {
                    continue;
                };
                own.push((tied, of.name.clone(), numbers.to_vec()));
                // A live tie is in the module that got it, wherever that stands.
                apart.push((tied, of.name.clone()));
                apart.push((owner_module, owner_of.name.clone()));
            }
        }
    }
    let Some(population) = population.filter(|_| !own.is_empty()) else { return Ok(()) };
    for (module, name) in apart {
        let Some(mut ties) = world.get::<Ties>(module).cloned() else { continue };
        ties.0.retain(|tie| tie.parameter != name);
        world.entity_mut(module).insert(ties);
    }
    sign::refresh(world, population)?;
    for (module, name, numbers) in own {
        write_own(world, module, Role::Parameter, &name, &numbers);
    }
    Ok(())
}

/// Gives the module at a dotted path of a model, `owner`, a second name in the module `parent`.
///
/// # Errors
///
/// If there is no such module, or the name cannot be.
///
/// Source: `model.again = model.block`.
pub fn share(
    world: &mut World,
    parent: Entity,
    name: &str,
    owner: Entity,
) -> Result<Entity, SignError> {
    let root = |entity| root_of(world, entity).ok_or(SignError::NotAPopulation(entity));
    let (found, population) = root(parent)?;
    let index = world.get::<Model>(found).map_or(0, |model| model.index);
    let refuse = |message: String| SignError::Name { index, path: name.to_owned(), message };
    if root(owner)?.0 != found {
        return Err(refuse(format!("{owner} is no module of this model")));
    }
    let children = world.get::<Children>(parent).into_iter().flat_map(|all| all.iter());
    let names = children.filter_map(|child| world.get::<ModuleName>(child));
    let taken: Vec<&str> = names.map(|name| &*name.0).collect();
    let types = world.get_resource::<ModuleTypes>();
    let module = types.zip(world.get_entity(parent).ok());
    let of =
        module.and_then(|(types, parent)| types.module(parent)).map_or("", |of| of.type_name());
    if let Some(message) = wrong_name(Kind::Module, of, name, |name| taken.contains(&name)) {
        return Err(refuse(message));
    }
    let bundle = (ModuleName(name.into()), ChildOf(parent), SharedModule(owner));
    let alias = world.spawn(bundle).id();
    sign::refresh(world, population)?;
    Ok(alias)
}

fn blueprint(world: &World, root: Entity) -> Result<&Blueprint, AccessError> {
    let model = world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?;
    let found = world.resource::<Blueprints>().get(model.blueprint);
    found.map(|found| &**found).ok_or(AccessError::NotAModel(root))
}

fn home(world: &World, root: Entity, slot: &Slot) -> Result<(Entity, ColumnKey), AccessError> {
    let (group, member, _) = spot::place(world, root)?;
    Ok(group.home(slot, member))
}

fn bytes(world: &World, root: Entity, slot: &Slot) -> Result<Vec<u8>, AccessError> {
    let (entity, key) = home(world, root, slot)?;
    let row = row(world, entity, key);
    let missing = || AccessError::NoColumn { name: slot.name.clone(), role: slot.role };
    Ok(row.ok_or_else(missing)?[..slot.ty.size_bytes()].to_vec())
}
