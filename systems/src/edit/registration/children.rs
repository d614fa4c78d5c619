//! Children come and go below modules of live models.

use bevy_ecs::prelude::*;
use neurarch_components::builtin;
use neurarch_components::hook::HookKind;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::dtypes::Dtypes;
use neurarch_components::module::registered::Value;
use neurarch_components::module::{DynModule, NoModule};
use neurarch_components::population::tie::{SharedModule, Tie, Ties};
use neurarch_components::population::tree::ModuleName;
use neurarch_kernels::ir::dtype::Dtype;

use super::error::RegistrationError;
use super::subject::ask;
use crate::edit::lookup::{Child, Names};
use crate::errors::room;
use crate::structure::spawn::SpawnError;
use crate::structure::spot::Spot;
use crate::structure::{sign, spawn};

/// Calls the registration hooks, and checks that what they give can be spawned.
pub(crate) fn prepare(
    world: &World,
    names: &Names,
    name: &str,
    value: Value,
) -> Result<Value, RegistrationError> {
    let value = match value {
        Value::Module(module) if module.is::<NoModule>() => Value::None,
        value => ask(world, HookKind::ModuleRegistration, names, name, value)?,
    };
    check_module(names, &value)?;
    if let Value::Module(module) = &value {
        spawn::check_declared(&**module, name)?;
        let blueprint = Blueprint::of(&**module, names.dtype).map_err(SpawnError::from)?;
        room::check(&blueprint, 1).map_err(SpawnError::from)?;
    }
    Ok(value)
}

pub(super) fn check_module(names: &Names, value: &Value) -> Result<(), RegistrationError> {
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
            None => world.spawn((ModuleName(name.into()), ChildOf(names.entity), NoModule)).id(),
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
    /// The population's type.
    dtype: Dtype,
    modules: Vec<Option<Box<dyn DynModule>>>,
}

impl Sapling {
    /// Makes the types of a module and of all below it known, and lists them.
    pub(crate) fn of(
        world: &mut World,
        module: &dyn DynModule,
        dtype: Dtype,
    ) -> Result<Self, SpawnError> {
        builtin::register(world);
        spawn::register_types(world, module);
        let blueprint = Blueprint::of(module, dtype)?;
        let mut modules = Vec::new();
        spawn::list_modules(module, &mut modules);
        Ok(Sapling { blueprint, dtype, modules })
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
            } else if let Some(dtypes) = Dtypes::of(of, self.dtype, None) {
                entity.insert(dtypes);
            }
            entities.push(entity.id());
            if let Some(module) = module.as_ref().filter(|_| !entity.is_despawned()) {
                module.constructed(&mut entity);
            }
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
