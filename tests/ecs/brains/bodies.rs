//! One brain, one body: [`BrainOf`], whatever is inserted, removed, cloned and despawned.

use neurarch::bevy_ecs::prelude::*;
use neurarch::plugin::{Brain, BrainOf, Outlives, Parked, Parking};
use neurarch::prelude::*;

use super::{models, world};

/// A world with a body for each of two models.
fn two() -> (World, Entity, [Entity; 2], [Entity; 2]) {
    let (mut world, brains) = world(2);
    let [a, b] = models(&world, brains)[..] else { unreachable!() };
    let bodies = [a, b].map(|brain| {
        let body = world.spawn_empty().id();
        world.entity_mut(brain).insert(BrainOf(body));
        body
    });
    (world, brains, [a, b], bodies)
}

fn brain(world: &World, body: Entity) -> Option<Entity> {
    world.get::<Brain>(body).map(Brain::id)
}

#[test]
fn a_brain_goes_with_its_body_and_a_body_stays_without_its_brain() {
    let (mut world, brains, [a, b], [of_a, of_b]) = two();
    assert_eq!((brain(&world, of_a), brain(&world, of_b)), (Some(a), Some(b)));
    let below = world.module_mut(a).unwrap().at("0").unwrap().id();
    world.despawn(of_a);
    assert_eq!(models(&world, brains), [b]);
    assert!(world.get_entity(below).is_err(), "its modules, too");
    world.despawn(b);
    assert!(world.get_entity(of_b).is_ok() && brain(&world, of_b).is_none());
    assert_eq!(models(&world, brains), []);
}

#[test]
fn a_brain_that_moves_displaces_the_one_that_is_there() {
    let (mut world, brains, [a, b], [of_a, of_b]) = two();
    world.entity_mut(a).insert(BrainOf(of_b));
    assert_eq!((brain(&world, of_a), brain(&world, of_b)), (None, Some(a)));
    assert!(world.get_entity(b).is_err());
    assert_eq!(models(&world, brains), [a]);
    // Back to the free body: nobody dies.
    world.entity_mut(a).insert(BrainOf(of_a));
    assert_eq!((brain(&world, of_a), brain(&world, of_b)), (Some(a), None));
    assert_eq!(models(&world, brains), [a]);
    // The same once more.
    world.entity_mut(a).insert(BrainOf(of_a));
    assert_eq!(brain(&world, of_a), Some(a));
    world.entity_mut(a).remove::<BrainOf>();
    assert_eq!(models(&world, brains), []);
    assert!(brain(&world, of_a).is_none());
}

#[test]
fn who_outlives_lives_on_and_takes_another_body() {
    let (mut world, brains, [a, b], [of_a, of_b]) = two();
    world.entity_mut(a).insert(Outlives);
    world.despawn(of_a);
    assert_eq!(models(&world, brains), [a, b]);
    assert!(world.get::<BrainOf>(a).is_none());
    world.entity_mut(b).insert(Outlives);
    world.entity_mut(a).insert(BrainOf(of_b));
    assert_eq!(brain(&world, of_b), Some(a));
    assert_eq!(models(&world, brains), [a, b], "displaced, and alive");
    assert!(world.get::<BrainOf>(b).is_none());
}

#[test]
fn a_clone_of_a_brain_leaves_the_body_and_a_clone_of_a_body_has_no_brain() {
    let (mut world, brains, [a, _], [of_a, _]) = two();
    let clone = world.entity_mut(a).clone_and_spawn();
    world.flush();
    assert_eq!(brain(&world, of_a), Some(a));
    assert!(world.get::<BrainOf>(clone).is_none());
    let cloned = world.population_mut(brains).unwrap().clone_models(&[0]).unwrap();
    assert_eq!(brain(&world, of_a), Some(a));
    assert!(world.get::<BrainOf>(cloned[0]).is_none());
    let other = world.entity_mut(of_a).clone_and_spawn();
    world.flush();
    assert_eq!((brain(&world, of_a), brain(&world, other)), (Some(a), None));
}

#[test]
fn where_the_dead_are_parked_nothing_is_despawned() {
    let (mut world, brains, [a, b], [of_a, of_b]) = two();
    world.entity_mut(brains).insert(Parking::default());
    world.despawn(of_a);
    assert_eq!(models(&world, brains), [a, b]);
    assert!(world.get::<Parked>(a).is_some() && world.get::<BrainOf>(a).is_none());
    // One with hooks of its own is not for another one to have.
    world.module_mut(b).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
    world.despawn(of_b);
    assert!(world.get_entity(b).is_err());
    assert_eq!(models(&world, brains), [a]);
}

#[test]
fn a_body_that_is_gone_gets_no_brain() {
    let (mut world, brains, [a, _], [of_a, of_b]) = two();
    world.despawn(of_b);
    // As bevy has it for any relationship: it is taken away again, so the brain has no body.
    world.entity_mut(a).insert(BrainOf(of_b));
    assert_eq!(models(&world, brains), []);
    assert!(brain(&world, of_a).is_none());
}
