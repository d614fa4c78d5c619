//! [`Target`]: the module of one model, or the same one of all models of a population.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::group::Group;

use crate::errors::{AccessError, SignError};
use crate::structure::sign;
use crate::structure::spot::locate;

/// Which modules a function is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A module of one model, by its entity. Where numbers and modes are meant, a population's entity stands for the
    /// roots of its models; hooks and calls of all of them ask for an empty path.
    ///
    /// If a hook of it watches passes, the model runs apart from those whose hooks are others from then on.
    Module(Entity),
    /// The module at a dotted path of all models of a population. A hook of it is called once for all of them.
    Population(Entity, String),
    /// Every module of every model: for hooks alone.
    All,
}

impl From<Entity> for Target {
    fn from(module: Entity) -> Self {
        Target::Module(module)
    }
}

impl From<(Entity, &str)> for Target {
    fn from((population, path): (Entity, &str)) -> Self {
        Target::Population(population, path.to_owned())
    }
}

/// Modules that a target names: those at one position, of models of one group.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub(crate) population: Entity,
    /// The group's place in the population's list.
    pub(crate) group: usize,
    /// The modules' place in the blueprint.
    pub(crate) position: usize,
    /// The models' places in the group.
    pub(crate) places: Vec<usize>,
}

impl Aim {
    pub(crate) fn group<'w>(&self, world: &'w World) -> &'w Group {
        let found = world.get::<Population>(self.population).expect("it was found there");
        &found.groups()[self.group]
    }

    pub(crate) fn blueprint(&self, world: &World) -> Arc<Blueprint> {
        let found = world.resource::<Blueprints>().get(self.group(world).blueprint);
        found.expect("a group holds its blueprint").clone()
    }

    /// Lists the entities at a position of the models' blueprint.
    pub(crate) fn entities(&self, world: &World, position: usize) -> Vec<Entity> {
        let modules = &self.group(world).modules[position];
        self.places.iter().map(|&place| modules[place]).collect()
    }
}

impl Target {
    /// Returns the population whose models are meant from their roots.
    pub(crate) fn whole(&self, world: &World) -> Option<Entity> {
        match self {
            Target::Module(of) => world.get::<Population>(*of).map(|_| *of),
            Target::Population(population, path) => path.is_empty().then_some(*population),
            Target::All => None,
        }
    }

    /// Settles the models, and finds the modules in them.
    ///
    /// # Errors
    ///
    /// If there is no such module, or the target is all of them.
    pub(crate) fn aims(self, world: &mut World) -> Result<Vec<Aim>, AccessError> {
        let (population, path) = match self {
            Target::All => return Err(AccessError::AllModules),
            Target::Module(of) if world.get::<Population>(of).is_some() => (of, String::new()),
            Target::Population(population, path) => (population, path),
            Target::Module(module) => {
                let at = locate(world, module)?;
                let (population, group, position) = (at.population, at.group, at.position);
                return Ok(vec![Aim { population, group, position, places: vec![at.member] }]);
            }
        };
        sign::refresh(world, population)?;
        let found = world.get::<Population>(population);
        let found = found.ok_or(SignError::NotAPopulation(population))?;
        let mut aims = Vec::new();
        for (group, of) in found.groups().iter().enumerate() {
            let blueprint = world.resource::<Blueprints>().get(of.blueprint);
            let Some(blueprint) = blueprint.filter(|_| !of.members.is_empty()) else { continue };
            let position = blueprint.below(0, &path).map_err(|(at, name)| AccessError::Path {
                class: blueprint.class_name(at).into_owned(),
                name: name.to_owned(),
                path: path.clone(),
            })?;
            let places = (0..of.members.len()).collect();
            aims.push(Aim { population, group, position, places });
        }
        Ok(aims)
    }
}
