//! Thinking: from a component of bodies to another one, wherever the bodies lie.

use bytemuck::{Pod, Zeroable};
use ndarray::Array2;
use neurarch::bevy_ecs::error::{BevyError, Severity};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::module::mode::Mode;
use neurarch::plugin::{Brain, BrainCommands, BrainOf, Outlives, Parking, ThinkEvery, think};
use neurarch::prelude::*;
use neurarch::systems::structure::mode::set_active;

use super::{Sight, Steer, models, net, sight, world};

#[derive(Component)]
struct Tag<const N: usize>;

/// Tags a body with the bits of a number, so that bodies lie in eight tables.
fn tag(world: &mut World, body: Entity, number: usize) {
    let mut body = world.entity_mut(body);
    body.remove::<(Tag<0>, Tag<1>, Tag<2>)>();
    if number & 1 == 1 {
        body.insert(Tag::<0>);
    }
    if number & 2 == 2 {
        body.insert(Tag::<1>);
    }
    if number & 4 == 4 {
        body.insert(Tag::<2>);
    }
}

/// Bodies with a brain each, whose models are in another order.
fn bodies(world: &mut World, brains: Entity) -> Vec<Entity> {
    let all = models(world, brains);
    let n = all.len();
    let bodies: Vec<_> = (0..n).map(|i| world.spawn((sight(i), Steer::default())).id()).collect();
    for (i, &body) in bodies.iter().enumerate() {
        tag(world, body, i % 8);
        world.entity_mut(all[(i * 7 + 3) % n]).insert(BrainOf(body));
    }
    bodies
}

/// What bare arrays give, by model; also compares it with what the bodies have.
fn check(world: &mut World, brains: Entity) {
    let all = models(world, brains);
    let mut x = Array2::zeros((all.len(), 6));
    let body_of = |world: &World, root: Entity| world.get::<BrainOf>(root).map(|of| of.0);
    for (&root, mut row) in all.iter().zip(x.outer_iter_mut()) {
        if let Some(&sight) = body_of(world, root).and_then(|body| world.get::<Sight>(body)) {
            row.iter_mut().zip(bytemuck::cast::<_, [f32; 6]>(sight)).for_each(|(x, y)| *x = y);
        }
    }
    let y = world.no_grad(|world| world.population_mut(brains).unwrap().forward(&x)).unwrap();
    let mut seen = 0;
    for (index, &root) in all.iter().enumerate() {
        let Some(body) = body_of(world, root) else { continue };
        if world.get::<Sight>(body).is_some() {
            let expected = Steer([y[[index, 0]], y[[index, 1]]]);
            assert_eq!(world.get::<Steer>(body), Some(&expected), "model {index}");
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn bodies_in_eight_tables_that_are_tagged_between_ticks_get_their_own_outputs() {
    let (mut world, brains) = world(41);
    let bodies = bodies(&mut world, brains);
    let mut schedule = Schedule::default();
    schedule.add_systems(think::<Sight, Steer>(brains));
    for tick in 0..20 {
        for (i, &body) in bodies.iter().enumerate() {
            if world.get_entity(body).is_err() {
                continue;
            }
            if (i + tick) % 3 == 0 {
                tag(&mut world, body, (i * 5 + tick) % 8);
            }
            if let Some(mut own) = world.get_mut::<Sight>(body) {
                *own = sight(i + tick);
            }
        }
        match tick {
            3 => drop(world.despawn(bodies[5])),
            5 => {
                let brain = world.get::<Brain>(bodies[6]).unwrap().id();
                world.entity_mut(brain).insert(BrainOf(bodies[7]));
            }
            7 => {
                let body = world.spawn((sight(3), Steer::default())).id();
                world.commands().entity(body).with_brain(brains);
                world.flush();
            }
            9 => {
                let brain = world.get::<Brain>(bodies[9]).unwrap().id();
                world.despawn(brain);
            }
            11 => drop(world.entity_mut(bodies[2]).remove::<Sight>()),
            13 => drop(world.entity_mut(bodies[2]).insert(sight(1))),
            15 => {
                world.population_mut(brains).unwrap().clone_models(&[0, 1]).unwrap();
            }
            _ => {}
        }
        schedule.run(&mut world);
        check(&mut world, brains);
    }
}

#[test]
fn who_sees_nothing_does_not_think_and_is_inactive_until_it_does() {
    let (mut world, brains) = world(4);
    let bodies = bodies(&mut world, brains);
    let brain = |world: &World, i: usize| world.get::<Brain>(bodies[i]).unwrap().id();
    let is_active = |world: &World, root: Entity| !world.get::<Mode>(root).unwrap().inactive;
    world.entity_mut(bodies[1]).remove::<Sight>();
    let outlives = brain(&world, 2);
    world.entity_mut(outlives).insert(Outlives);
    world.despawn(bodies[2]);
    let rests = brain(&world, 3);
    set_active(&mut world, rests, false).unwrap();
    let mut schedule = Schedule::default();
    schedule.add_systems(think::<Sight, Steer>(brains));
    schedule.run(&mut world);
    let steer = |world: &World, i: usize| *world.get::<Steer>(bodies[i]).unwrap();
    assert_ne!(steer(&world, 0), Steer::default());
    assert_eq!(steer(&world, 1), Steer::default());
    assert_eq!(steer(&world, 3), Steer::default(), "the host made it inactive");
    let blind = brain(&world, 1);
    assert!(!is_active(&world, blind) && !is_active(&world, outlives) && !is_active(&world, rests));

    world.entity_mut(bodies[1]).insert(sight(4));
    let body = world.spawn(sight(5)).id();
    world.entity_mut(outlives).insert(BrainOf(body));
    set_active(&mut world, rests, true).unwrap();
    schedule.run(&mut world);
    assert!(is_active(&world, blind) && is_active(&world, outlives));
    assert_ne!(steer(&world, 1), Steer::default());
    assert_ne!(steer(&world, 3), Steer::default());
    assert!(world.get::<Steer>(body).is_some(), "a body without an output gets one");
    check(&mut world, brains);
    // All blind: nothing happens, and that is no error.
    for body in bodies.into_iter().chain([body]) {
        if let Ok(mut body) = world.get_entity_mut(body) {
            body.remove::<Sight>();
        }
    }
    schedule.run(&mut world);
}

#[test]
fn turnover_of_parked_models_moves_nothing_and_allots_right_outputs() {
    let (mut world, brains) = world(30);
    world.entity_mut(brains).insert(Parking::default());
    let mut bodies = bodies(&mut world, brains);
    let before = models(&world, brains);
    let mut schedule = Schedule::default();
    schedule.add_systems(think::<Sight, Steer>(brains));
    let mut late = None;
    for tick in 0..40 {
        if let Some(body) = late.take().filter(|body| world.get_entity(*body).is_ok()) {
            world.commands().entity(body).with_brain(brains);
        }
        world.flush();
        for i in 0..3 {
            let at = (tick * 7 + i * 11) % 30;
            world.despawn(bodies[at]);
            bodies[at] = world.spawn((sight(tick + i), Steer::default())).id();
            let parent = bodies[(at + 5) % 30];
            match i {
                // A tick later in half of the cases, so that some are parked meanwhile.
                2 if tick % 2 == 0 => late = Some(bodies[at]),
                1.. if world.get::<Brain>(parent).is_some() => {
                    world.commands().entity(bodies[at]).clone_brain(parent);
                }
                _ => drop(world.commands().entity(bodies[at]).with_brain(brains)),
            }
            world.flush();
        }
        schedule.run(&mut world);
        check(&mut world, brains);
    }
    assert_eq!(models(&world, brains), before);
}

#[test]
fn thinking_may_be_staggered() {
    let (mut world, brains) = world(30);
    let bodies = bodies(&mut world, brains);
    world.entity_mut(brains).insert(ThinkEvery(4));
    let mut system = think::<Sight, Steer>(brains);
    let mut counts = Vec::new();
    for _ in 0..4 {
        for &body in &bodies {
            *world.get_mut::<Steer>(body).unwrap() = Steer([9.0; 2]);
        }
        system(&mut world).unwrap();
        let thought = |body: &&Entity| *world.get::<Steer>(**body).unwrap() != Steer([9.0; 2]);
        counts.push(bodies.iter().filter(thought).copied().collect::<Vec<_>>());
    }
    let mut sizes: Vec<_> = counts.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [7, 7, 8, 8]);
    let mut all: Vec<_> = counts.concat();
    all.sort_unstable();
    let mut expected = bodies.clone();
    expected.sort_unstable();
    assert_eq!(all, expected, "each of them once");
    // The bits of all at once.
    for _ in 0..4 {
        system(&mut world).unwrap();
    }
    check(&mut world, brains);
    let wide = error(think::<Steer, Sight>(brains), &mut world);
    assert!(wide.contains("mat1 and mat2 shapes cannot be multiplied"), "{wide}");
    let narrow = error(think::<Sight, Sight>(brains), &mut world);
    assert!(narrow.contains("6 numbers"), "{narrow}");
}

fn error(system: impl FnMut(&mut World) -> Result<(), BevyError>, world: &mut World) -> String {
    let mut system = system;
    let error = system(world).unwrap_err();
    assert!(matches!(error.severity(), Severity::Warning));
    error.to_string()
}

#[derive(Component, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Bytes([u8; 3]);

#[test]
fn components_that_do_not_fit_are_errors_that_name_them_at_the_first_run() {
    let (mut world, brains) = world(3);
    let bodies = bodies(&mut world, brains);
    for &body in &bodies {
        world.entity_mut(body).insert(Bytes([0; 3]));
    }
    let before: Vec<_> = bodies.iter().map(|&body| *world.get::<Steer>(body).unwrap()).collect();
    let wide = error(think::<Steer, Sight>(brains), &mut world);
    let names = ["Sequential", "brains::Steer` (2 numbers)", "brains::Sight` (6 numbers)"];
    assert!(names.iter().all(|name| wide.contains(name)), "{wide}");
    assert!(wide.contains("mat1 and mat2 shapes cannot be multiplied"), "{wide}");
    let narrow = error(think::<Sight, Sight>(brains), &mut world);
    assert!(narrow.contains("expected") && narrow.contains("6 numbers"), "{narrow}");
    let bytes = error(think::<Bytes, Steer>(brains), &mut world);
    assert!(bytes.contains("Bytes` of 3 bytes"), "{bytes}");
    let none = error(think::<Sight, Steer>(bodies[0]), &mut world);
    assert!(none.contains("population"), "{none}");
    let after: Vec<_> = bodies.iter().map(|&body| *world.get::<Steer>(body).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn one_system_thinks_in_several_worlds() {
    let (mut one, brains) = world(3);
    let (mut other, others) = world(3);
    assert_eq!(brains, others);
    bodies(&mut one, brains);
    bodies(&mut other, others);
    let mut system = think::<Sight, Steer>(brains);
    for world in [&mut one, &mut other] {
        system(world).unwrap();
        check(world, brains);
    }
    one.despawn(brains);
    system(&mut one).unwrap_err();
    let brains = one.spawn_population(&net(), 2, Seed(1)).unwrap().id();
    bodies(&mut one, brains);
    think::<Sight, Steer>(brains)(&mut one).unwrap();
    check(&mut one, brains);
}
