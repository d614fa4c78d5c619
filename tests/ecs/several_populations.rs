//! Several populations in one call: the bits of one call after the other.

use ndarray::{Array1, Array2, Array3, ArrayD};
use neurarch::prelude::*;

/// Populations of several kinds: one that draws, one with a hook on one model, one that shares a parameter, one of one
/// model.
fn world() -> (World, [Entity; 4]) {
    let mut world = World::new();
    let drawing =
        Sequential::new().push(Linear::new(3, 4)).push(Dropout { p: 0.5 }).push(Linear::new(4, 2));
    let plain =
        Sequential::new().push(Linear::new(3, 5)).push(BatchNorm1d::new(5)).push(Linear::new(5, 2));
    let populations = [
        world.spawn_population(&drawing, 5, Seed(1)).unwrap().id(),
        world.spawn_population(&plain, 4, Seed(2)).unwrap().id(),
        world.spawn_population(&Linear::new(3, 2), 3, Seed(3)).unwrap().id(),
        world.spawn_population(&Linear::new(3, 2), 1, Seed(4)).unwrap().id(),
    ];
    for population in populations {
        world
            .population_mut(population)
            .unwrap()
            .insert(Adam { lr: 0.01, ..Adam::default() })
            .unwrap();
    }
    let first = world.population(populations[1]).unwrap().models()[0];
    let doubled = |y: &Tree| y.leaves().first().map(|&y| Tree::from(y * 2.0));
    world
        .module_mut(first)
        .unwrap()
        .register_forward_hook(move |_, _, y| Ok(y.and_then(doubled)))
        .unwrap();
    world.population_mut(populations[2]).unwrap().share_parameter("bias").unwrap();
    (world, populations)
}

fn data(number: usize, models: usize) -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((models, 6, 3), |(m, i, f)| {
        ((m * 7 + i * 5 + f * 3 + number) % 11) as f32 / 11.0
    });
    (x, Array2::from_shape_fn((models, 6), |(m, i)| ((m + i + number) % 2) as i64))
}

/// The bytes of all parameters and buffers.
fn state(world: &mut World, populations: &[Entity]) -> Vec<Vec<u8>> {
    let mut of = |&population: &Entity| {
        let dict = world.population_mut(population).unwrap().stacked_state_dict().unwrap();
        dict.tensors.iter().flat_map(|tensor| tensor.little_endian().to_vec()).collect()
    };
    populations.iter().map(&mut of).collect()
}

fn sizes(world: &World, populations: &[Entity]) -> Vec<usize> {
    populations
        .iter()
        .map(|&population| world.population(population).unwrap().models().len())
        .collect()
}

#[test]
fn a_step_of_all_is_a_step_of_each() {
    let (mut one, populations) = world();
    let (mut other, same) = world();
    let loss = CrossEntropyLoss::default();
    for step in 0..4 {
        let data: Vec<_> =
            sizes(&one, &populations).iter().enumerate().map(|(n, &m)| data(n + step, m)).collect();
        let steps: Vec<_> = populations
            .iter()
            .zip(&data)
            .map(|(&population, (x, y))| TrainStep::new(population, x, y, &loss))
            .collect();
        let losses: Vec<Array1<f32>> = one.train_step_all(&steps).unwrap();
        for ((&population, (x, y)), losses) in same.iter().zip(&data).zip(losses) {
            assert_eq!(
                other.population_mut(population).unwrap().train_step(x, y, &loss).unwrap(),
                losses
            );
        }
        assert_eq!(state(&mut one, &populations), state(&mut other, &same));
    }
}

#[test]
fn a_pass_of_all_is_a_pass_of_each_and_each_goes_on() {
    let (mut one, populations) = world();
    let (mut other, same) = world();
    let loss = CrossEntropyLoss::default();
    let data: Vec<_> =
        sizes(&one, &populations).iter().enumerate().map(|(n, &m)| data(n, m)).collect();
    let calls: Vec<_> =
        populations.iter().zip(&data).map(|(&of, (x, _))| (of, AnyInput::from(x))).collect();
    let results: Vec<ArrayD<f32>> = one.forward_all(&calls).unwrap();
    for (number, (x, y)) in data.iter().enumerate() {
        assert_eq!(
            other.population_mut(same[number]).unwrap().forward(x).unwrap(),
            results[number]
        );
        for (world, population) in [(&mut one, populations[number]), (&mut other, same[number])] {
            world.population_mut(population).unwrap().loss::<f32, i64>(y, &loss).unwrap();
            world.population_mut(population).unwrap().backward().unwrap();
            world.population_mut(population).unwrap().step().unwrap();
        }
    }
    assert_eq!(state(&mut one, &populations), state(&mut other, &same));
    let none: Vec<ArrayD<f32>> = one.forward_all(&[]).unwrap();
    assert!(none.is_empty());
}

#[test]
fn what_does_not_fit_says_of_which_call_and_trains_nobody() {
    let (mut world, populations) = world();
    let before = state(&mut world, &populations);
    let loss = CrossEntropyLoss::default();
    let ([(x, y), (wrong, _)], population) = ([data(0, 5), data(0, 3)], populations[0]);
    let steps = [
        TrainStep::new(population, &x, &y, &loss),
        TrainStep::new(populations[1], &wrong, &y, &loss),
    ];
    let error = world.train_step_all::<f32>(&steps).unwrap_err();
    assert_eq!(error.to_string(), "call 1: x: expected numbers for 4 models, got 3");
    let steps = [0, 1].map(|_| TrainStep::new(population, &x, &y, &loss));
    let error = world.train_step_all::<f32>(&steps).unwrap_err();
    assert!(matches!(error, StepError::Busy(of) if of == population), "{error}");
    let error = world.forward_all::<f64>(&[(population, (&x).into())]).unwrap_err();
    assert!(matches!(error, StepError::Call { number: 0, .. }), "{error}");
    assert_eq!(state(&mut world, &populations), before);
    // They are whole afterwards.
    world.population_mut(population).unwrap().train_step(&x, &y, &loss).unwrap();
}
