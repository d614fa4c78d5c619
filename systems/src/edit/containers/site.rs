//! Which live modules an operation is for: those of one structure are planned for together.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::population::tree::Model;

use super::EditError;
use super::draft::Draft;
use crate::edit::lookup::{Names, named_children};
use crate::errors::AccessError;
use crate::execute::hooks::Target;
use crate::structure::spot::Spot;
use crate::structure::spot::locate;
use crate::structure::spot::owner;
use crate::structure::traverse::spots;

/// Modules that stand at one position of one blueprint and have equal lists of children.
pub(super) struct Site {
    /// Where the first of them stands.
    pub(super) spot: Spot,
    pub(super) blueprint: Arc<Blueprint>,
    /// What is known of the first one's names.
    pub(super) names: Names,
    pub(super) entries: Vec<Listed>,
    pub(super) members: Vec<Member>,
}

/// One of the modules of a [`Site`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) module: Entity,
    pub(super) root: Entity,
    /// The model's place in its group.
    pub(super) place: usize,
}

/// A child as all members of a site have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Whether it is a module, not a name without one.
    pub(super) is_there: bool,
    /// The place of the child that it is: its own, unless it is a second name of another one.
    pub(super) identity: usize,
}

/// Lists the children of a module, and their entities.
pub(super) fn children(world: &World, module: Entity) -> (Vec<Listed>, Vec<Entity>) {
    let all: Vec<_> = named_children(world, module).collect();
    let entities: Vec<_> = all.iter().map(|(_, child)| child.entity).collect();
    let listed = all.into_iter().enumerate().map(|(place, (name, child))| {
        let owner = owner(world, child.entity);
        let identity = entities.iter().position(|&known| known == owner).unwrap_or(place);
        Listed { name: name.into_owned(), is_there: child.is_there, identity }
    });
    (listed.collect(), entities)
}

/// Finds the modules that a target names.
pub(super) fn sites(world: &mut World, target: impl Into<Target>) -> Result<Vec<Site>, EditError> {
    let (population, path) = match target.into() {
        Target::Module(module) => {
            let spot = locate(world, module)?;
            return Ok(vec![site(world, spot, &[spot.member])?].into_iter().flatten().collect());
        }
        Target::Population(population, path) => (population, path),
        Target::All => return Err(EditError::AllModules),
    };
    let spots = spots(world, population, &path)?;
    let mut sites = Vec::new();
    for (spot, members) in spots {
        sites.extend(site(world, spot, &(0..members).collect::<Vec<_>>())?);
    }
    Ok(sites)
}

/// Puts members of a group together whose modules have equal lists of children.
fn site(world: &World, spot: Spot, members: &[usize]) -> Result<Vec<Site>, EditError> {
    let group = spot.group(world);
    let mut sites: Vec<Site> = Vec::new();
    for &place in members {
        let (root, module) = (group.modules[0][place], group.modules[spot.position][place]);
        let (entries, _) = children(world, module);
        let member = Member { module, root, place };
        match sites.iter_mut().rev().find(|site| site.entries == entries) {
            Some(site) => site.members.push(member),
            None => sites.push(Site {
                spot: Spot { member: place, ..spot },
                blueprint: spot.blueprint(world),
                names: Names::of(world, module).ok_or(AccessError::NotAModule(module))?,
                entries,
                members: vec![member],
            }),
        }
    }
    Ok(sites)
}

impl Site {
    /// Makes the draft of the modules.
    pub(super) fn draft(&self, world: &World) -> Result<Draft, EditError> {
        let module = self.members[0].module;
        let missing = || AccessError::NotAModule(module);
        let types = world.get_resource::<ModuleTypes>().ok_or_else(missing)?;
        let entity = world.get_entity(module).map_err(|_| missing())?;
        let of = types.module(entity).ok_or_else(missing)?;
        let children = self.entries.iter().map(|entry| (entry.name.as_str(), entry.identity));
        let parameters = self.names.registered.parameters.iter().enumerate();
        let parameters = parameters.filter(|(_, entry)| entry.ty.is_some());
        Draft::of(of, children, parameters.map(|(place, entry)| (entry.name.as_str(), place)))
    }
}

/// Returns the model's index.
pub(super) fn index_of(world: &World, root: Entity) -> u32 {
    world.get::<Model>(root).map_or(u32::MAX, |model| model.index)
}
