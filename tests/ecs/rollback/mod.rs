//! Populations go back to a tick, bit for bit.

mod cost;
mod errors;
mod sync;
mod turnover;

use ndarray::{Array2, Array3};
use neurarch::evolve::Noise;
use neurarch::plugin::{Population, RollbackError, Snapshots};
use neurarch::prelude::*;

/// Brains that draw random numbers in a pass, and learn.
fn brains(world: &mut World, models: usize, seed: u64) -> Entity {
    let brain = Sequential::new()
        .push(Linear::new(4, 8))
        .push(BatchNorm1d::new(8))
        .push(Dropout { p: 0.25 })
        .push(Tanh)
        .push(Linear::new(8, 2));
    let mut brains = world.spawn_population(&brain, models, Seed(seed)).unwrap();
    let rate = |model: usize| 0.01 + 0.001 * model as f64;
    brains.insert_with(|model| Adam { lr: rate(model), ..Adam::default() }).unwrap();
    brains.id()
}

/// Trains a step on numbers that follow from the tick.
fn learn(world: &mut World, brains: Entity, tick: u64) {
    let models = world.population(brains).unwrap().models().len();
    let x = Array3::from_shape_fn((models, 6, 4), |(model, item, feature)| {
        let at = (model * 31 + item * 7 + feature * 3) as u64 + tick * 11;
        (at % 17) as f32 / 8.0 - 1.0
    });
    let y = Array2::from_shape_fn((models, 6), |(model, item)| {
        ((model + item) as u64 + tick) as i64 % 2
    });
    let mut brains = world.population_mut(brains).unwrap();
    brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
}

fn save(world: &mut World, brains: Entity, tick: u64) {
    world.population_mut(brains).unwrap().save_snapshot(tick).unwrap();
}

fn checksum(world: &mut World, brains: Entity) -> u64 {
    world.population_mut(brains).unwrap().checksum().unwrap()
}

/// All that decides how models go on: the checksum, and their optimizers.
fn state(world: &mut World, brains: Entity) -> (u64, Vec<Adam>) {
    let roots = world.population(brains).unwrap().models().to_vec();
    let adams = roots.iter().map(|&root| *world.get::<Adam>(root).unwrap()).collect();
    (checksum(world, brains), adams)
}
