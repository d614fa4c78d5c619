//! Promise 1: a model does not feel its neighbors. The same bits alone, among a thousand, on one thread
//! or two, whatever the tile.

use ndarray::{Array2, Array3, Axis};
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;

/// What a model looks like after training: its losses and parameters, as bits.
type Trace = Vec<u32>;

const STEPS: usize = 5;
const BATCH: usize = 7;

fn brain() -> Sequential {
    Sequential::new()
        .push(Linear::new(4, 16))
        .push(Tanh)
        .push(Dropout { p: 0.3 })
        .push(Linear::new(16, 9))
        .push(ReLU)
        .push(Linear::new(9, 3))
}

/// The numbers that the model of that number meets in a step.
fn batch(number: usize, step: usize) -> (Array2<f32>, Vec<i64>) {
    let x = Array2::from_shape_fn((BATCH, 4), |(item, feature)| {
        ((number * 31 + step * 17 + item * 5 + feature * 3) % 23) as f32 / 7.0 - 1.5
    });
    let targets = (0..BATCH).map(|item| ((number + step + item) % 3) as i64).collect();
    (x, targets)
}

/// Trains models with the numbers from `first` on; gives the trace of each.
fn train(first: u64, models: usize, tile: Option<usize>, threads: usize) -> Vec<Trace> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut world = World::new();
        world.get_resource_or_init::<Plans>().options.tile = tile;
        let settings = PopulationSettings {
            models,
            seed: 7,
            first_number: first,
            ..PopulationSettings::default()
        };
        let population = world.spawn_population_with(&brain(), settings).unwrap().id();
        let rate = |index: usize| 1e-3 * (1 + (first as usize + index) % 5) as f64;
        world
            .population_mut(population)
            .unwrap()
            .insert_with(|index| Adam { lr: rate(index), ..Adam::default() })
            .unwrap();
        let mut traces = vec![Trace::new(); models];
        for step in 0..STEPS {
            let mut x = Array3::zeros((models, BATCH, 4));
            let mut targets = Array2::zeros((models, BATCH));
            for model in 0..models {
                let (own_x, own_targets) = batch(first as usize + model, step);
                x.index_axis_mut(Axis(0), model).assign(&own_x);
                targets.row_mut(model).assign(&ndarray::aview1(&own_targets));
            }
            let loss = CrossEntropyLoss::default();
            let losses =
                world.population_mut(population).unwrap().train_step(&x, &targets, &loss).unwrap();
            traces.iter_mut().zip(&losses).for_each(|(trace, loss)| trace.push(loss.to_bits()));
        }
        for (model, trace) in traces.iter_mut().enumerate() {
            let root = world.population(population).unwrap().models()[model];
            for name in world.module_mut(root).unwrap().parameter_names().unwrap() {
                let parameter = world.module_mut(root).unwrap().parameter::<f32>(&name).unwrap();
                trace.extend(parameter.iter().map(|number| number.to_bits()));
            }
        }
        traces
    })
}

#[test]
fn a_model_is_the_same_alone_and_among_a_thousand() {
    let among = train(0, 1_000, None, 2);
    for number in [0, 1, 499, 999] {
        assert_eq!(train(number, 1, None, 1), among[number as usize..][..1], "model {number}");
    }
}

#[test]
fn threads_and_tiles_change_no_bit() {
    let expected = train(0, 37, None, 1);
    for threads in [1, 2, 3] {
        for tile in [Some(1), Some(2), Some(5), Some(64), None] {
            assert_eq!(train(0, 37, tile, threads), expected, "tile {tile:?}, {threads} threads");
        }
    }
}
