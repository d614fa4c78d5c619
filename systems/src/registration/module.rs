//! Children: registering, replacing and removing modules of a live model.

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::Blueprint;
use neurarch_components::hook::HookKind;
use neurarch_components::layers;
use neurarch_components::module::DynModule;
use neurarch_components::registered::Value;
use neurarch_components::tie::{SharedModule, Tie, Ties};
use neurarch_components::tree::ModuleName;
use neurarch_kernels::dtype::Dtype;

use super::{RegistrationError, ask, check_name, setattr, subject};
use crate::errors::LookupError;
use crate::lookup;
use crate::lookup::Attribute;
use crate::lookup::Child;
use crate::lookup::Names;
use crate::room;
use crate::sign;
use crate::spawn::{self, SpawnError};
use crate::spot::Spot;

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
    let value = prepare(world, &names, name, value)?;
    let mut new = put_modules(world, name, &[(at, names)], &[value])?;
    Ok(new.pop().flatten())
}

/// Calls the registration hooks, and checks that what they give can be spawned.
pub(crate) fn prepare(
    world: &World,
    names: &Names,
    name: &str,
    value: Value,
) -> Result<Value, RegistrationError> {
    let value = ask(world, HookKind::ModuleRegistration, names, name, value)?;
    check_module(names, &value)?;
    if let Value::Module(module) = &value {
        spawn::check_declared(&**module, name)?;
        let blueprint = Blueprint::of(&**module, names.dtype).map_err(SpawnError::from)?;
        room::check(&blueprint, 1).map_err(SpawnError::from)?;
    }
    Ok(value)
}

fn check_module(names: &Names, value: &Value) -> Result<(), RegistrationError> {
    match value {
        Value::None | Value::Module(_) => Ok(()),
        other => Err(RegistrationError::NotAModuleType { given: other.typename(names.dtype) }),
    }
}

/// [`register_module`] of what was prepared, in one module or in those of a population.
pub(super) fn put_modules(
    world: &mut World,
    name: &str,
    subjects: &[(Spot, Names)],
    values: &[Value],
) -> Result<Vec<Option<Entity>>, RegistrationError> {
    let Some((first, _)) = subjects.first() else { return Ok(Vec::new()) };
    let population = first.population;
    let mut olds = Vec::with_capacity(subjects.len());
    let mut saplings: Vec<(usize, Option<Sapling>)> = Vec::new();
    for ((at, names), value) in subjects.iter().zip(values) {
        let old = names.child(world, name);
        old.map_or(Ok(()), |old| check_use(world, at, old))?;
        olds.push(old);
        if saplings.last().is_none_or(|(group, _)| *group != at.group) {
            let sapling = match value {
                Value::Module(module) => Some(Sapling::of(world, &**module, names.dtype)?),
                _ => None,
            };
            saplings.push((at.group, sapling));
        }
    }
    let mut news = Vec::with_capacity(subjects.len());
    for ((at, names), old) in subjects.iter().zip(&olds) {
        let sapling = saplings.iter().find(|(group, _)| *group == at.group);
        let new = match sapling.and_then(|(_, sapling)| sapling.as_ref()) {
            Some(sapling) => sapling.plant(world, names.entity, name),
            None => world.spawn((ModuleName(name.into()), ChildOf(names.entity))).id(),
        };
        if let Some(old) = old {
            world.entity_mut(names.entity).insert_child(old.place, new);
            world.entity_mut(old.entity).remove::<ChildOf>();
        }
        news.push(new);
    }
    if let Err(error) = sign::refresh(world, population) {
        for (((_, names), old), new) in subjects.iter().zip(&olds).zip(news) {
            world.despawn(new);
            if let Some(old) = old {
                world.entity_mut(names.entity).insert_child(old.place, old.entity);
            }
        }
        sign::refresh(world, population)?;
        return Err(error.into());
    }
    for old in olds.into_iter().flatten() {
        world.despawn(old.entity);
    }
    let is_module = values.iter().map(|value| matches!(value, Value::Module(_)));
    Ok(news.into_iter().zip(is_module).map(|(new, is_module)| is_module.then_some(new)).collect())
}

/// Refuses to take a child away that is in use, as a whole or in part, outside of it.
pub(super) fn check_use(world: &World, at: &Spot, child: Child) -> Result<(), RegistrationError> {
    if world.get::<SharedModule>(child.entity).is_some() || !child.is_there {
        return Ok(());
    }
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let mut positions = 0..blueprint.positions.len();
    let found = positions.find(|&position| group.modules[position][at.member] == child.entity);
    found.map_or(Ok(()), |found| check_going(&blueprint, &[found]))
}

/// Refuses to take modules with all below them away if what stays is the same as one of them, or as a part.
pub(crate) fn check_going(blueprint: &Blueprint, going: &[usize]) -> Result<(), RegistrationError> {
    let below: Vec<_> = going.iter().map(|&position| blueprint.subtree(position)).collect();
    let part = |position: usize| below.iter().find(|below| below.contains(&position));
    for (position, of) in blueprint.positions.iter().enumerate() {
        if part(position).is_some() {
            continue;
        }
        let check = |owner: usize, by: String| match part(owner) {
            Some(part) => {
                let name = blueprint.positions[part.start].name.clone();
                Err(RegistrationError::InUse { name, by })
            }
            None => Ok(()),
        };
        of.alias.map_or(Ok(()), |alias| check(alias, of.path.clone()))?;
        for parameter in &of.parameters {
            if let Some((owner, _)) = parameter.tied {
                check(owner, blueprint.path_below(position, &parameter.name))?;
            }
        }
    }
    Ok(())
}

/// A module that is to be spawned in live models, once or often.
pub(crate) struct Sapling {
    blueprint: Blueprint,
    modules: Vec<Option<Box<dyn DynModule>>>,
}

impl Sapling {
    /// Makes the types of a module and of all below it known, and lists them.
    pub(crate) fn of(
        world: &mut World,
        module: &dyn DynModule,
        dtype: Dtype,
    ) -> Result<Self, SpawnError> {
        layers::register(world);
        spawn::register_types(world, module);
        let blueprint = Blueprint::of(module, dtype)?;
        let mut modules = Vec::new();
        spawn::list_modules(module, &mut modules);
        Ok(Sapling { blueprint, modules })
    }

    /// Spawns the module and all below it as a child of a live module.
    pub(crate) fn plant(&self, world: &mut World, below: Entity, name: &str) -> Entity {
        let mut entities: Vec<Entity> = Vec::with_capacity(self.modules.len());
        for (of, module) in self.blueprint.positions.iter().zip(&self.modules) {
            let (parent, name) = match of.parent {
                None => (below, name),
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
        for (position, of) in self.blueprint.positions.iter().enumerate() {
            let ties = spawn::ties(&self.blueprint, of).into_iter();
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
        entities[0]
    }
}

/// Takes children away that nobody else uses, and signs.
pub(super) fn remove_children(
    world: &mut World,
    population: Entity,
    children: &[(&Spot, Child)],
) -> Result<(), RegistrationError> {
    for (_, child) in children {
        world.despawn(child.entity);
    }
    if !children.is_empty() {
        sign::refresh(world, population)?;
    }
    Ok(())
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
