//! Long programs are planned in time that grows with their length, and plans take bounded memory.

use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, Array3, Array4};
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;

/// Walks over time with a cell, one call a time step, as a loop in Python does.
#[derive(Component, Clone, Debug, PartialEq)]
struct Walk;

impl Module for Walk {
    fn declare(&self, declare: &mut Declare) {
        declare.child("cell", LSTMCell::new(2, 3)).child("head", Linear::new(3, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let &[steps, batch, features] = &x.shape()[..] else {
            return call.trace.fail("expected three axes");
        };
        let mut state = Tree::None;
        for step in 0..steps {
            let now = x.slice(0, step..step + 1).reshape([batch, features]);
            let positional = vec![Tree::Leaf(now), state];
            state = call.child_with("cell", Arguments { positional, keyword: Vec::new() });
        }
        match state.into_items().into_iter().next() {
            Some(Tree::Leaf(h)) => call.child("head", &h),
            _ => call.trace.fail("no time steps"),
        }
    }
}

fn walks(world: &mut World) -> Entity {
    let population = world.spawn_population(&Walk, 2, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    population
}

fn train(world: &mut World, population: Entity, steps: usize) -> Array1<f32> {
    let x = Array4::from_shape_fn((2, steps, 1, 2), |(m, t, _, f)| ((m + 3 * t + f) % 7) as f32);
    world
        .population_mut(population)
        .unwrap()
        .train_step(&x, &Array2::<i64>::ones((2, 1)), &CrossEntropyLoss::default())
        .unwrap()
}

/// The shortest time of some first calls, each in a world of its own.
fn first_call(tries: usize, mut call: impl FnMut(&mut World, Entity)) -> Duration {
    let time = |_| {
        let mut world = World::new();
        let population = walks(&mut world);
        let start = Instant::now();
        call(&mut world, population);
        start.elapsed()
    };
    (0..tries).map(time).min().unwrap()
}

/// Asserts that a call of four times as many time steps takes less than eight times as long.
fn assert_linear(what: &str, call: impl Fn(&mut World, Entity, usize)) {
    let short = first_call(3, |world, population| call(world, population, 1000));
    let long = first_call(2, |world, population| call(world, population, 4000));
    assert!(long < short * 8, "{what}: {short:?} for 1,000 time steps, {long:?} for 4,000");
}

#[test]
fn the_first_step_takes_time_that_grows_with_the_loop() {
    assert_linear("train_step", |world, population, steps| drop(train(world, population, steps)));
}

#[test]
fn a_forward_pass_and_the_way_back_take_time_that_grows_with_the_loop() {
    assert_linear("backward", |world, population, steps| {
        let x = Array4::<f32>::ones((2, steps, 1, 2));
        let y = world.population_mut(population).unwrap().forward(&x).unwrap();
        world.population_mut(population).unwrap().backward_from(&y).unwrap();
    });
}

#[test]
fn hooks_that_look_or_change_take_time_that_grows_with_the_loop() {
    for changes in [false, true] {
        assert_linear("hooks", |world, population, steps| {
            world
                .population_mut(population)
                .unwrap()
                .at("cell")
                .register_forward_hook(move |_, _, result| {
                    let result = result.cloned().filter(|_| changes);
                    Ok(result.map(|result| result.map(&mut |y: Var| &y * 2.0)))
                })
                .unwrap();
            world
                .population_mut(population)
                .unwrap()
                .at("cell")
                .register_full_backward_hook(|_, _, _| Ok(None))
                .unwrap();
            train(world, population, steps);
        });
    }
}

#[test]
fn five_thousand_time_steps_train() {
    let mut world = World::new();
    let population = walks(&mut world);
    let losses: Vec<_> = (0..3).map(|_| train(&mut world, population, 5000)).collect();
    assert!(losses.iter().flatten().all(|loss| loss.is_finite()));
    assert!(losses.windows(2).all(|pair| pair[0] != pair[1]), "{losses:?}");
}

/// Trains on ever other shapes in three ways, again and again; gives all results.
fn train_on_many_shapes(world: &mut World) -> Vec<u32> {
    let population = walks(world);
    let linear = world.spawn_population(&Linear::new(2, 2), 3, Seed(2)).unwrap().id();
    world.population_mut(linear).unwrap().insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let mut all = Vec::new();
    for round in 0..3 {
        for size in 1..12 {
            all.extend(train(world, population, size).iter().map(|loss| loss.to_bits()));
            let x =
                Array3::from_shape_fn((3, size, 2), |(m, b, f)| (m + b * round + f) as f32 / 9.0);
            let y = world.population_mut(linear).unwrap().forward(&x).unwrap();
            all.extend(y.iter().map(|y| y.to_bits()));
            // Other plans come between a forward pass and the way back from it.
            train(world, population, 12 - size);
            let targets = Array2::<i64>::zeros((3, size));
            world
                .population_mut(linear)
                .unwrap()
                .loss::<f32, i64>(&targets, &CrossEntropyLoss::default())
                .unwrap();
            world.population_mut(linear).unwrap().backward().unwrap();
            world.population_mut(linear).unwrap().step().unwrap();
            world.population_mut(linear).unwrap().zero_grad().unwrap();
        }
    }
    all
}

#[test]
fn plans_that_are_made_anew_compute_the_same_bits() {
    let mut world = World::new();
    let expected = train_on_many_shapes(&mut world);
    let n_plans = world.resource::<Plans>().plans().count();
    for max_bytes in [0, world.resource::<Plans>().bytes() / 3] {
        let mut world = World::new();
        world.get_resource_or_init::<Plans>().max_bytes = max_bytes;
        assert_eq!(train_on_many_shapes(&mut world), expected, "with {max_bytes} bytes");
        assert!(world.resource::<Plans>().plans().count() < n_plans / 2);
    }
}

#[test]
fn plans_of_many_shapes_take_no_more_bytes_than_were_set() {
    const MAX_BYTES: usize = 1 << 20;
    let mut world = World::new();
    world.get_resource_or_init::<Plans>().max_bytes = MAX_BYTES;
    let population = world.spawn_population(&Linear::new(2, 2), 2, Seed(1)).unwrap().id();
    let mut most = 0;
    for size in 1..=3000 {
        world
            .population_mut(population)
            .unwrap()
            .forward(&Array3::<f32>::ones((2, size, 2)))
            .unwrap();
        let plans = world.resource::<Plans>();
        assert!(plans.bytes() <= MAX_BYTES, "{} bytes after {size} shapes", plans.bytes());
        most = most.max(plans.bytes());
    }
    assert!(most > MAX_BYTES / 2);
    let plans = world.resource::<Plans>().plans().count();
    assert!((10..3000).contains(&plans), "{plans} plans");
    // What was used last is there still.
    world.population_mut(population).unwrap().forward(&Array3::<f32>::ones((2, 2990, 2))).unwrap();
    assert_eq!(world.resource::<Plans>().plans().count(), plans);
}

#[test]
fn what_models_need_for_a_plan_counts_with_it() {
    let mut bytes = [10, 1000].map(|models| {
        let mut world = World::new();
        let layer = Sequential::new().push(Linear::new(2, 2)).push(Dropout { p: 0.1 });
        let population = world.spawn_population(&layer, models, Seed(1)).unwrap().id();
        world
            .population_mut(population)
            .unwrap()
            .forward(&Array3::<f32>::ones((models, 1, 2)))
            .unwrap();
        world.resource::<Plans>().bytes()
    });
    bytes[0] += 990 * size_of::<f64>();
    assert_eq!(bytes[1], bytes[0], "the probability of each model");
}
