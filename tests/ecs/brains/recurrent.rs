//! Brains that remember: their state is a component of each model, and a birth begins without.

use bytemuck::{Pod, Zeroable};
use ndarray::{Array2, s};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::population::tree::Model;
use neurarch::plugin::{Brain, BrainCommands, Hidden, Parking, think_recurrent};
use neurarch::prelude::*;

use super::{Sight, Steer, models, sight};

/// A cell, and a layer on what it remembers.
#[derive(Component, Clone, Debug, PartialEq)]
struct Remember;

impl Module for Remember {
    fn declare(&self, declare: &mut Declare) {
        declare.child("cell", GRUCell::new(6, 4)).child("head", Linear::new(4, 2));
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([x, h]) = call.values(arguments) else { return call.trace.poison().into() };
        let next = call.child_with("cell", Arguments::each([x, h]));
        let [next] = next.leaves()[..] else { return call.trace.poison().into() };
        (call.child("head", next), next.clone()).into()
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct State([f32; 4]);

fn state(world: &World, root: Entity) -> Option<[f32; 4]> {
    world.get::<Hidden<State>>(root).map(|hidden| hidden.state.0)
}

#[test]
fn states_are_those_of_torch_s_loop_and_begin_anew_with_a_birth() {
    let mut world = World::new();
    let brains = world.spawn_population(&Remember, 3, Seed(2)).unwrap().id();
    world.entity_mut(brains).insert(Parking::default());
    let all = models(&world, brains);
    let spawn = |world: &mut World, i: usize| world.spawn((sight(i), Steer::default())).id();
    let bodies: Vec<_> = (0..3).map(|i| spawn(&mut world, i)).collect();
    for (&root, &body) in all.iter().zip(&bodies) {
        world.entity_mut(root).insert(neurarch::plugin::BrainOf(body));
    }
    let mut schedule = Schedule::default();
    schedule.add_systems(think_recurrent::<Sight, State, Steer>(brains));
    let mut h = Array2::<f32>::zeros((3, 4));
    let rows = |of: &[Sight]| {
        let row = |m: usize| bytemuck::cast::<_, [f32; 6]>(of[m]);
        Array2::from_shape_fn((of.len(), 6), |(m, i)| row(m)[i])
    };
    for tick in 0..4 {
        let seen: Vec<_> = (0..3).map(|i| sight(i + tick * 5)).collect();
        for (&body, &seen) in bodies.iter().zip(&seen) {
            *world.get_mut::<Sight>(body).unwrap() = seen;
        }
        schedule.run(&mut world);
        let x = rows(&seen);
        let arguments = Arguments::each([AnyInput::from(&x), AnyInput::from(&h)]);
        let made = world.population_mut(brains).unwrap().forward_with::<f32>(arguments).unwrap();
        let [y, next] = made.leaves()[..] else { unreachable!() };
        h = next.clone().into_dimensionality().unwrap();
        for (m, (&root, &body)) in all.iter().zip(&bodies).enumerate() {
            assert_eq!(state(&world, root).unwrap(), h.slice(s![m, ..]).to_vec()[..]);
            assert_eq!(world.get::<Steer>(body).unwrap().0, [y[[m, 0]], y[[m, 1]]]);
        }
    }
    // One dies and another one is born in its rows: it remembers nothing, the others do.
    world.despawn(bodies[1]);
    let body = spawn(&mut world, 8);
    world.commands().entity(body).clone_brain(bodies[0]);
    world.flush();
    assert_eq!(world.get::<Brain>(body).unwrap().id(), all[1]);
    assert_eq!(world.get::<Model>(all[1]).unwrap().number, 3);
    h.row_mut(1).fill(0.0);
    schedule.run(&mut world);
    let seen = [*world.get::<Sight>(bodies[0]).unwrap(), sight(8), *world.get(bodies[2]).unwrap()];
    let x = rows(&seen);
    let arguments = Arguments::each([AnyInput::from(&x), AnyInput::from(&h)]);
    let made = world.population_mut(brains).unwrap().forward_with::<f32>(arguments).unwrap();
    for (m, &root) in all.iter().enumerate() {
        assert_eq!(state(&world, root).unwrap(), made.leaves()[1].slice(s![m, ..]).to_vec()[..]);
    }
}

#[test]
fn a_model_that_gives_one_value_is_an_error() {
    let mut world = World::new();
    let brains = world.spawn_population(&GRUCell::new(6, 4), 1, Seed(2)).unwrap().id();
    let body = world.spawn(sight(0)).id();
    world.commands().entity(body).with_brain(brains);
    world.flush();
    let error = think_recurrent::<Sight, State, Steer>(brains)(&mut world).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("expected `GRUCell` to give an output and a state, got 1 values"),
        "{text}"
    );
    assert!(world.get::<Steer>(body).is_none());
}
