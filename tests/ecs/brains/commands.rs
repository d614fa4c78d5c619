//! Births and deaths by [`Commands`] and [`Brains`].

use std::sync::Mutex;

use neurarch::bevy_ecs::error::{BevyError, ErrorContext, FallbackErrorHandler, Severity};
use neurarch::bevy_ecs::prelude::*;
use neurarch::plugin::{Brain, BrainCommands, Brains, Outlives, Parking};

use super::{bias, models, world};

static ERRORS: Mutex<Vec<(Severity, String)>> = Mutex::new(Vec::new());

fn note(error: BevyError, _: ErrorContext) {
    ERRORS.lock().unwrap().push((error.severity(), error.to_string()));
}

fn brain(world: &World, body: Entity) -> Option<Entity> {
    world.get::<Brain>(body).map(Brain::id)
}

#[test]
fn commands_give_bodies_new_brains_and_clones() {
    let (mut world, brains) = world(1);
    let [first] = models(&world, brains)[..] else { unreachable!() };
    let bodies: [Entity; 4] = std::array::from_fn(|_| world.spawn_empty().id());
    let mut commands = world.commands();
    commands.entity(bodies[0]).with_brain(brains);
    commands.entity(bodies[1]).clone_brain(bodies[0]);
    commands.entity(bodies[2]).clone_brain(first);
    // Gone when it is born.
    commands.entity(bodies[3]).despawn();
    commands.entity(bodies[3]).with_brain(brains);
    world.flush();
    let all = models(&world, brains);
    assert_eq!(all.len(), 4);
    assert_eq!(
        bodies[..3].iter().map(|&body| brain(&world, body)).collect::<Vec<_>>(),
        [Some(all[1]), Some(all[2]), Some(all[3])]
    );
    let numbers: Vec<_> = all.iter().map(|&root| bias(&mut world, root)).collect();
    assert_ne!(numbers[0], numbers[1]);
    assert_eq!(numbers[1], numbers[2]);
    assert_eq!(numbers[0], numbers[3]);
    // The numbers of a model that was there from the start.
    let (mut other, others) = super::world(2);
    let second = models(&other, others)[1];
    assert_eq!(numbers[1], bias(&mut other, second));
}

#[test]
fn a_system_bears_and_kills_many_in_one_call() {
    for parks in [false, true] {
        let (mut world, brains) = world(3);
        if parks {
            world.entity_mut(brains).insert(Parking::default());
        }
        let all = models(&world, brains);
        let bodies: [Entity; 5] = std::array::from_fn(|_| world.spawn_empty().id());
        let mut schedule = Schedule::default();
        schedule.add_systems(move |mut commands: Commands, mut own: Brains| {
            own.kill(all[1]);
            own.spawn(bodies[0], brains);
            own.clone_brain(bodies[1], all[1]);
            own.clone_brain(bodies[2], all[2]);
            own.spawn(bodies[3], brains);
            commands.entity(bodies[3]).despawn();
        });
        let numbers =
            models(&world, brains).iter().map(|&m| bias(&mut world, m)).collect::<Vec<_>>();
        let first = models(&world, brains);
        schedule.run(&mut world);
        let now = models(&world, brains);
        // Two stay and three are born; a parked row is taken over by one of them.
        assert_eq!(now.len(), 5);
        assert_eq!(now.contains(&first[1]), parks);
        assert_eq!(
            brain(&world, bodies[0]) == Some(first[1]),
            parks,
            "the first birth has its rows"
        );
        let of = |world: &mut World, body: Entity| {
            let brain = brain(world, body).unwrap();
            bias(world, brain)
        };
        assert_eq!(of(&mut world, bodies[1]), numbers[1], "of one that dies at the same time");
        assert_eq!(of(&mut world, bodies[2]), numbers[2]);
        assert!(!numbers.contains(&of(&mut world, bodies[0])));
        assert_eq!(bias(&mut world, first[0]), numbers[0]);
    }
}

#[test]
fn whom_a_system_kills_dies_even_if_it_outlives_its_body() {
    let (mut world, brains) = world(2);
    let [a, b] = models(&world, brains)[..] else { unreachable!() };
    let body = world.spawn_empty().id();
    world.entity_mut(a).insert((neurarch::plugin::BrainOf(body), Outlives));
    let mut schedule = Schedule::default();
    schedule.add_systems(move |mut brains: Brains| {
        brains.kill(body);
        brains.kill(body);
        brains.kill(Entity::PLACEHOLDER);
    });
    schedule.run(&mut world);
    assert_eq!(models(&world, brains), [b]);
    assert!(world.get_entity(body).is_ok() && brain(&world, body).is_none());
}

#[test]
fn errors_are_warnings_that_name_the_types() {
    let (mut world, brains) = world(1);
    world.insert_resource(FallbackErrorHandler(note));
    let bodies: [Entity; 3] = std::array::from_fn(|_| world.spawn_empty().id());
    world.commands().entity(bodies[0]).clone_brain(bodies[1]);
    world.commands().entity(bodies[1]).with_brain(bodies[0]);
    world.flush();
    let mut schedule = Schedule::default();
    schedule.add_systems(move |mut own: Brains| {
        own.clone_brain(bodies[0], bodies[1]);
        own.spawn(bodies[2], brains);
    });
    schedule.run(&mut world);
    assert!(brain(&world, bodies[2]).is_some(), "the others are born");
    let errors = std::mem::take(&mut *ERRORS.lock().unwrap());
    assert!(errors.iter().all(|(severity, _)| matches!(severity, Severity::Warning)));
    let expected =
        format!("clone_brain: expected a model or an entity with a `Brain`, got {}", bodies[1]);
    assert_eq!(errors[0].1.trim(), expected);
    assert_eq!(errors[2].1.trim(), expected);
    assert!(errors[1].1.contains("can be born as a `Brain`"), "{}", errors[1].1);
    assert_eq!(errors.len(), 3);
}
