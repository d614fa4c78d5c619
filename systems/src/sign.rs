//! Signing: the entity tree of a model becomes its blueprint, again after each change of its structure.
//!
//! What changed is known from lifecycle hooks of the layer components and of `Registered`, from the tables that the modules lie
//! in, and from the change ticks of `Children` (whose order fires nothing). `change::sign` looks at those models alone and
//! changes nothing: it gives a `ChangeSet`. `apply::apply` carries that out: a model that changed moves to the group of its
//! new blueprint, its neighbors stay where they are.

use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{Blueprints, TieError};
use neurarch_components::column::{Columns, row};
use neurarch_components::containers::MAX_DEPTH;
use neurarch_components::population::{Group, Population};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::shared::SharedTensors;
use neurarch_components::tree::{Model, NOT_A_MEMBER};
use neurarch_kernels::program::Role;

use crate::bind::BindError;
use crate::init::Draw;
use crate::room::RoomError;

mod apply;
mod change;
mod look;

pub(crate) use change::would_change;
pub use look::Signed;
pub(crate) use look::look_away;

/// Why a model's tree is not a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The entity is no population.
    #[error("{0} is not a population")]
    NotAPopulation(Entity),
    /// The root has no layer component.
    #[error("model {index}: its root has no module component")]
    NoModule {
        /// The model's index.
        index: u32,
    },
    /// A child's name is empty, contains a dot, or is taken; torch's words.
    #[error("model {index}, {path}: {message}")]
    Name {
        /// The model's index.
        index: u32,
        /// Dotted path of the parent.
        path: String,
        /// What is wrong with the name.
        message: String,
    },
    /// A tie names what is no part of the model, or has another type.
    #[error("model {index}, {0}", .error)]
    Tie {
        /// The model's index.
        index: u32,
        /// What is tied, and why it cannot be.
        error: TieError,
    },
    /// A module is below itself.
    #[error("model {index}: its root is a child of {parent}, which is below it")]
    Cycle {
        /// The model's index.
        index: u32,
        /// The entity that has the root as its child.
        parent: Entity,
    },
    /// Modules are nested deeper than a model may be.
    #[error("model {index}, {path}: expected modules nested at most {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The model's index.
        index: u32,
        /// Dotted path of the module that is too deep.
        path: String,
    },
    /// A component that neurarch keeps was removed from a module.
    #[error("model {index}, {path}: its {component} was removed")]
    Removed {
        /// The model's index.
        index: u32,
        /// Dotted path of the module.
        path: String,
        /// What is missing.
        component: String,
    },
    /// The column of what a population's models share was removed from its entity.
    #[error("{population}, {name}: its {role} was removed")]
    SharedRemoved {
        /// The population's entity.
        population: Entity,
        /// The dotted name of what is shared.
        name: String,
        /// What the column is for.
        role: Role,
    },
    /// Rows of a model cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A resource that neurarch keeps was removed from the world, or replaced by another.
    #[error(
        "the resource {resource} that {population} was spawned with is not in the world any more"
    )]
    Missing {
        /// The population's entity.
        population: Entity,
        /// The resource's type.
        resource: &'static str,
    },
    /// All blueprints in use have more than 2²⁴ modules together.
    #[error("expected fewer than 16777216 modules in all blueprints together")]
    TooManyModules,
    /// A parameter or buffer of a model that was changed is too large for memory.
    #[error(transparent)]
    Room(#[from] RoomError),
}

/// Signs the models of a population that changed, and gives parameters that are new their first numbers.
/// Cheap if none did: a few comparisons for each table, and one for each module with children.
///
/// # Errors
///
/// [`SignError`] of the first model that is none; it stays as it was, and is signed again next time. The
/// others are signed.
pub fn refresh(world: &mut World, population: Entity) -> Result<(), SignError> {
    refresh_drawing(world, population, Draw::First)
}

/// [`refresh`], which says how what is new draws its first numbers.
pub(crate) fn refresh_drawing(
    world: &mut World,
    population: Entity,
    draw: Draw,
) -> Result<(), SignError> {
    if check(world, population)?.is_stale() {
        apply::regroup(world, population);
    }
    let mut signed = Signed::take(world, population);
    let changes = change::sign(world, population, &mut signed);
    signed.put_back(world, population);
    apply::apply(world, population, changes, draw)
}

/// Finds a population, with the resources that its groups speak of: whatever is done with it begins here, so all that
/// follows may take these for granted.
fn check(world: &World, population: Entity) -> Result<&Population, SignError> {
    let found = check_resources(world, population)?;
    found.groups().iter().try_for_each(|group| check_group(world, population, group))?;
    Ok(found)
}

/// Finds a population, with the resources that are the same for all of its groups.
pub(crate) fn check_resources(world: &World, population: Entity) -> Result<&Population, SignError> {
    let found = world.get::<Population>(population);
    let found = found.filter(|found| found.is_of(world.id(), population));
    let found = found.ok_or(SignError::NotAPopulation(population))?;
    let missing = |resource| SignError::Missing { population, resource };
    world.get_resource::<Blueprints>().ok_or(missing("Blueprints"))?;
    world.get_resource::<ModuleTypes>().ok_or(missing("ModuleTypes"))?;
    Columns::of(world).filter(|columns| found.is_in(columns)).ok_or(missing("Columns"))?;
    Ok(found)
}

/// Checks that what a group speaks of is there: its blueprint, and what its models share with others.
pub(crate) fn check_group(
    world: &World,
    population: Entity,
    group: &Group,
) -> Result<(), SignError> {
    let missing = |resource| SignError::Missing { population, resource };
    let blueprints = world.get_resource::<Blueprints>();
    if !blueprints.is_some_and(|blueprints| blueprints.holds(group)) {
        return Err(missing("Blueprints"));
    }
    for shared in group.shared() {
        let tensors = world.get::<SharedTensors>(shared.owner).ok_or(missing("SharedTensors"))?;
        let of = tensors.get(shared.index).ok_or(missing("SharedTensors"))?;
        if row(world, shared.owner, shared.key(of.role, &of.ty)).is_none() {
            let (name, role) = (of.name.clone(), of.role);
            return Err(SignError::SharedRemoved { population, name, role });
        }
    }
    Ok(())
}

/// Walks up to the model's root; gives it and its population.
pub(crate) fn root_of(world: &World, entity: Entity) -> Option<(Entity, Entity)> {
    // A cycle that does not go through `entity` comes back to one of these, which are ever farther apart.
    let (mut at, mut mark) = (entity, entity);
    let (mut steps, mut next_mark) = (0_usize, 1);
    loop {
        if let Some(model) = world.get::<Model>(at) {
            return Some((at, model.population));
        }
        at = world.get::<ChildOf>(at)?.parent();
        steps += 1;
        if at == mark {
            return None;
        }
        if steps == next_mark {
            (mark, next_mark) = (at, 2 * next_mark);
        }
    }
}

/// Finds a model in its population's lists, as it was when it was last signed: its group, and its place there. That other
/// models left since does not matter.
pub(crate) fn place(found: &Population, root: Entity, model: &Model) -> Option<(usize, usize)> {
    found.groups().iter().enumerate().find_map(|(number, group)| {
        if group.blueprint != model.blueprint {
            return None;
        }
        let roots = group.modules.first()?;
        let member = group.members.binary_search(&model.index).ok();
        let member = member.filter(|&member| roots[member] == root);
        // Where others left, the lists do not follow the indices yet, of which most are as they were.
        let moved = || roots.iter().position(|&known| known == root);
        let member = member.or_else(|| found.is_stale().then(moved).flatten())?;
        Some((number, member))
    })
}

/// Says whether a model is put together: an observer of the host's may ask while it is not.
fn is_member(world: &World, root: Entity) -> bool {
    world.get::<Model>(root).is_some_and(|model| model.index != NOT_A_MEMBER)
}
