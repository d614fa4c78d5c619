//! Sharing: a parameter of a whole population has one row, and learns from all models.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ndarray::{Array2, Array3, ArrayD, Axis};
use neurarch::kernels::cpu::sum::BLOCK;
use neurarch::prelude::*;

const WEIGHT: &str = "0.weight";

fn net() -> Sequential {
    Sequential::new().push(Linear::new(3, 5)).push(Tanh).push(Linear::new(5, 2))
}

fn inputs(models: usize) -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((models, 4, 3), |(m, i, f)| {
        ((m * 7 + i * 3 + f * 5) % 11) as f32 / 5.0 - 1.0
    });
    let classes = Array2::from_shape_fn((models, 4), |(m, i)| ((m + i) % 2) as i64);
    (x, classes)
}

/// Models that share the first weight.
fn shared(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&net(), models, Seed(3)).unwrap();
    world.share_parameter(population, WEIGHT).unwrap();
    (world, population)
}

/// The same models, each with a copy of it.
fn copies(models: usize) -> (World, Entity) {
    let (mut world, population) = shared(models);
    world.unshare_parameter(population, WEIGHT).unwrap();
    (world, population)
}

fn loss() -> CrossEntropyLoss {
    CrossEntropyLoss::default()
}

fn backward(world: &mut World, population: Entity) {
    let (x, classes) = inputs(world.models(population).unwrap().len());
    world.forward(population, &x).unwrap();
    world.loss::<f32, i64>(population, &classes, &loss()).unwrap();
    world.backward(population).unwrap();
}

/// Sums gradients in blocks, as the documentation says.
fn block_sum(gradients: &[ArrayD<f32>]) -> ArrayD<f32> {
    let sum = |of: &[ArrayD<f32>]| of.iter().cloned().reduce(|a, b| a + b).unwrap();
    sum(&gradients.chunks(BLOCK).map(sum).collect::<Vec<_>>())
}

fn bits(world: &mut World, population: Entity) -> Vec<Vec<u32>> {
    let models = world.models(population).unwrap().to_vec();
    let bits = |root| {
        let names = world.parameter_names(root).unwrap();
        let numbers = names.iter().flat_map(|name| world.parameter::<f32>(root, name).unwrap());
        numbers.map(f32::to_bits).collect()
    };
    models.into_iter().map(bits).collect()
}

#[test]
fn models_that_share_compute_as_models_with_copies() {
    let ((mut world, a), (mut other, b)) = (shared(7), copies(7));
    let (x, _) = inputs(7);
    assert_eq!(world.forward(a, &x).unwrap(), other.forward(b, &x).unwrap());
    assert_eq!(bits(&mut world, a), bits(&mut other, b));
}

#[test]
fn a_gradient_is_the_sum_in_blocks_of_the_models_gradients() {
    for models in [1, 2, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
        let ((mut world, a), (mut other, b)) = (shared(models), copies(models));
        backward(&mut world, a);
        backward(&mut other, b);
        let roots = other.models(b).unwrap().to_vec();
        let of = |root| other.gradient::<f32>(root, WEIGHT).unwrap().unwrap();
        let gradients: Vec<_> = roots.into_iter().map(of).collect();
        let roots = world.models(a).unwrap().to_vec();
        for root in roots {
            assert_eq!(world.gradient::<f32>(root, WEIGHT).unwrap().unwrap(), block_sum(&gradients));
        }
        // What is not shared has a gradient in each model.
        let root = world.models(a).unwrap()[models - 1];
        let own = other.models(b).unwrap()[models - 1];
        assert_eq!(
            world.gradient::<f32>(root, "2.weight").unwrap(),
            other.gradient::<f32>(own, "2.weight").unwrap()
        );
    }
}

#[test]
fn gradients_add_up_until_they_are_zeroed() {
    let (mut world, population) = shared(5);
    let root = world.models(population).unwrap()[3];
    assert_eq!(world.gradient::<f32>(root, WEIGHT).unwrap(), None);
    backward(&mut world, population);
    let once = world.gradient::<f32>(root, WEIGHT).unwrap().unwrap();
    backward(&mut world, population);
    assert_eq!(world.gradient::<f32>(root, WEIGHT).unwrap().unwrap(), &once + &once);
    world.zero_grad(population).unwrap();
    assert_eq!(world.gradient::<f32>(root, WEIGHT).unwrap(), None);
    backward(&mut world, population);
    assert_eq!(world.gradient::<f32>(root, WEIGHT).unwrap().unwrap(), once);
}

#[test]
fn one_step_is_forward_loss_backward_and_step() {
    let optimizers: [fn(&mut World, Entity); 3] = [
        |world, population| {
            let momentum = SGD { momentum: 0.9, nesterov: true, lr: 0.1, ..SGD::default() };
            world.insert(population, momentum).unwrap();
        },
        |world, population| world.insert(population, Adam::default()).unwrap(),
        |world, population| drop(world.entity_mut(population).insert(AdamW::default())),
    ];
    for insert in optimizers {
        let ((mut fused, a), (mut parted, b)) = (shared(BLOCK + 3), shared(BLOCK + 3));
        insert(&mut fused, a);
        insert(&mut parted, b);
        let (x, classes) = inputs(BLOCK + 3);
        for _ in 0..4 {
            fused.train_step(a, &x, &classes, &loss()).unwrap();
            parted.zero_grad(b).unwrap();
            backward(&mut parted, b);
            parted.step(b).unwrap();
            assert_eq!(bits(&mut fused, a), bits(&mut parted, b));
        }
        let weights = fused.stack::<f32>(a, WEIGHT).unwrap();
        assert!(weights.outer_iter().all(|own| own == weights.index_axis(Axis(0), 0)));
    }
}
