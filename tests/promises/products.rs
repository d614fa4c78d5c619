//! Matrix products of any size have one order of sums, on any number of threads.

use ndarray::{Array2, Array3};
use neurarch::prelude::*;

/// Numbers between -1 and 1 that do not repeat soon.
fn number(i: usize) -> f32 {
    ((i * 7_919 + i / 1_013) % 100_003) as f32 / 50_000.0 - 1.0
}

/// Trains a network for some steps in a pool of so many threads; gives losses and parameters as bits.
fn train(network: &Sequential, input: (usize, usize), classes: usize, threads: usize) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut world = World::new();
        let population = world.spawn_population(network, 1, Seed(5)).unwrap().id();
        world
            .population_mut(population)
            .unwrap()
            .insert(SGD { lr: 0.1, ..SGD::default() })
            .unwrap();
        let (batch, features) = input;
        let x = Array3::from_shape_fn((1, batch, features), |(_, i, j)| number(i * features + j));
        let targets = Array2::from_shape_fn((1, batch), |(_, i)| (i % classes) as i64);
        let loss = CrossEntropyLoss::default();
        let mut bits = Vec::new();
        for _ in 0..2 {
            let losses =
                world.population_mut(population).unwrap().train_step(&x, &targets, &loss).unwrap();
            bits.extend(losses.iter().map(|loss| loss.to_bits()));
        }
        let root = world.population(population).unwrap().models()[0];
        for name in world.module_mut(root).unwrap().parameter_names().unwrap() {
            let parameter = world.module_mut(root).unwrap().parameter::<f32>(&name).unwrap();
            bits.extend(parameter.iter().map(|number| number.to_bits()));
        }
        bits
    })
}

#[test]
fn a_large_layer_learns_the_same_bits_on_any_number_of_threads() {
    let network = Sequential::new().push(Linear::new(1024, 1024)).push(ReLU);
    let expected = train(&network, (64, 1024), 1024, 1);
    for threads in [2, 7] {
        assert!(train(&network, (64, 1024), 1024, threads) == expected, "{threads} threads");
    }
}

/// More rows than a group of blocks has.
#[test]
fn a_long_batch_is_learned_from_alike_on_any_number_of_threads() {
    let network = Sequential::new().push(Linear::new(6, 20)).push(Tanh).push(Linear::new(20, 18));
    let expected = train(&network, (70_000, 6), 18, 1);
    for threads in [2, 7] {
        assert!(train(&network, (70_000, 6), 18, threads) == expected, "{threads} threads");
    }
}

/// One row alone is a dot product; among 8 or more it is always the same bits.
#[test]
fn a_row_of_a_batch_is_the_same_among_eight_and_among_many() {
    let mut world = World::new();
    let network = Linear::new(700, 300);
    let population = world.spawn_population(&network, 1, Seed(5)).unwrap().id();
    world.set_grad_enabled(false);
    let mut outputs = |batch: usize| {
        let x = Array3::from_shape_fn((1, batch, 700), |(_, i, j)| number(i * 700 + j));
        world.population_mut(population).unwrap().forward(&x).unwrap()
    };
    let expected = outputs(8);
    // 512 rows make a large product.
    for batch in [9, 64, 512] {
        let found = outputs(batch);
        let same = expected.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{batch} rows");
    }
}

/// The gradient of a weight is a sum over all rows: its error does not grow with them.
#[test]
fn a_weights_gradient_over_a_million_rows_is_close_to_that_of_doubles() {
    const ROWS: usize = 1 << 20;
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(2, 3), 1, Seed(5)).unwrap().id();
    let x = Array3::from_shape_fn((1, ROWS, 2), |(_, i, j)| 1.0 + 0.5 * number(2 * i + j));
    let dy = Array3::from_shape_fn((1, ROWS, 3), |(_, i, j)| 1.0 + 0.5 * number(5 * i + 3 * j));
    world.population_mut(population).unwrap().forward(&x).unwrap();
    world.population_mut(population).unwrap().backward_from(&dy).unwrap();
    let root = world.population(population).unwrap().models()[0];
    let found = world.module_mut(root).unwrap().gradient::<f32>("weight").unwrap().unwrap();
    for (at, &found) in found.indexed_iter() {
        let (out, input) = (at[0], at[1]);
        let products = (0..ROWS).map(|i| f64::from(dy[[0, i, out]]) * f64::from(x[[0, i, input]]));
        let expected: f64 = products.sum();
        let error = (f64::from(found) - expected).abs() / expected;
        // Some roundings of 6e-8: one chain over all rows is off by 1e-4.
        assert!(error < 1e-6, "[{out}, {input}]: {found}, not {expected} ({error:e})");
    }
}
