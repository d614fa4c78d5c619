//! [`BrainOf`] and [`Brain`]: which model is the brain of which body.

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;

use crate::components::module::mode::Mode;
use crate::components::population::parking::{Parked, Parking};
use crate::components::population::tree::Model;
use crate::systems::evolve::park::{park, unpark};

/// Makes a model, by its root, the brain of a body: one brain, one body.
///
/// A brain whose `BrainOf` is taken away dies, unless it [outlives](Outlives): it is [parked](Parking) where its population
/// parks its dead, else despawned. It is taken away when the body is despawned, when another brain comes to the body, and
/// by `remove`. Inserted anew it moves the brain to another body, and the old body is left without.
///
/// A parked brain that is given a body is alive again, as it was, if no birth took over its rows.
///
/// Despawning the brain leaves the body. A clone of the brain is a model without a body, and a clone of the body has no
/// brain.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch::plugin::{Brain, BrainOf, Outlives};
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(3, 2), 2, Seed(1))?.id();
/// let [first, second] = world.population(brains)?.models()[..] else { unreachable!() };
/// let body = world.spawn_empty().id();
/// world.entity_mut(first).insert(BrainOf(body));
/// assert_eq!(world.get::<Brain>(body).unwrap().id(), first);
///
/// world.entity_mut(second).insert((BrainOf(body), Outlives)); // The first one has to go.
/// assert!(world.get_entity(first).is_err());
/// world.despawn(body);
/// assert_eq!(world.population(brains)?.models(), [second]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// No `Clone`: bevy clones a relationship by it, and a clone would take the body away from the original.
#[derive(Component, Debug, PartialEq, Eq)]
#[component(storage = "SparseSet", on_add = begin, on_remove = end)]
#[relationship(relationship_target = Brain)]
pub struct BrainOf(#[entities] pub Entity);

/// The brain of a body: kept by bevy, after [`BrainOf`].
#[derive(Component, Debug, PartialEq, Eq)]
#[component(storage = "SparseSet")]
#[relationship_target(relationship = BrainOf)]
pub struct Brain(Entity);

/// Lets a brain live on without a body: a component of its root.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[component(storage = "SparseSet")]
pub struct Outlives;

impl Brain {
    /// Returns the root of the brain.
    pub fn id(&self) -> Entity {
        self.0
    }
}

/// Has a parked brain that is given a body live again.
fn begin(mut world: DeferredWorld<'_>, context: HookContext) {
    let brain = context.entity;
    if world.get::<Parked>(brain).is_some() {
        world.commands().queue(move |world: &mut World| unpark(world, &[brain]));
    }
}

/// Ends the life of a brain that lost its body.
fn end(mut world: DeferredWorld<'_>, context: HookContext) {
    let brain = context.entity;
    world.commands().queue(move |world: &mut World| {
        let Ok(entity) = world.get_entity(brain) else { return };
        // It may have another body by now.
        let lives = entity.contains::<Outlives>() || entity.contains::<BrainOf>();
        if !lives && !entity.contains::<Parked>() {
            retire(world, &[brain]);
        }
    });
}

/// Parks brains, or despawns them where their population does not park. A brain with hooks of its own is despawned in any
/// case, for another one is not to have them.
pub(crate) fn retire(world: &mut World, brains: &[Entity]) {
    let is_parked = |&&brain: &&Entity| {
        let Ok(brain) = world.get_entity(brain) else { return false };
        let population = brain.get::<Model>().map(|model| model.population);
        let is_hooked = brain.get::<Mode>().is_some_and(|mode| mode.hooked);
        !is_hooked && population.is_some_and(|of| world.get::<Parking>(of).is_some())
    };
    let (parked, others): (Vec<Entity>, Vec<Entity>) = brains.iter().partition(is_parked);
    park(world, &parked);
    for brain in parked {
        if let Ok(mut brain) = world.get_entity_mut(brain) {
            brain.remove::<(BrainOf, Outlives)>();
        }
    }
    for brain in others {
        if let Ok(brain) = world.get_entity_mut(brain) {
            brain.despawn();
        }
    }
}
