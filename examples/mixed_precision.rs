//! The same classifiers in four precisions: all in single; forward passes under autocast in bfloat16; in f16, with a gradient
//! scaler; weights in bfloat16. Then a population goes from one to another where it lies, and one model alone.
//!
//! ```text
//! cargo run --release --example mixed_precision
//! ```
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;

use ndarray::{Array2, Array3, ArrayD};
use neurarch::nn::bf16;
use neurarch::prelude::*;

const MODELS: usize = 64;
const BATCH: usize = 32;
const STEPS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let (x, classes) = data();
    let mut world = World::new();
    let single = spawn(&mut world)?;
    let autocast = spawn(&mut world)?;
    let halves = spawn(&mut world)?;
    let bfloats = spawn(&mut world)?;

    let loss = CrossEntropyLoss::default();
    // Each precision takes the place of the same first weights.
    world.population_mut(halves)?.insert(GradScaler::default())?;
    world.population_mut(bfloats)?.bfloat16()?;
    let xb = x.mapv(bf16::from_f32);
    for _ in 0..STEPS {
        world.population_mut(single)?.train_step(&x, &classes, &loss)?;
        world.autocast(Dtype::BF16, |world| {
            world.population_mut(autocast)?.train_step(&x, &classes, &loss)
        })?;
        // torch scales no gradients of f16: weights stay in single precision.
        world.autocast(Dtype::F16, |world| {
            world.population_mut(halves)?.train_step_scaled(&x, &classes, &loss)?;
            Ok::<(), Box<dyn Error>>(())
        })?;
        world.population_mut(bfloats)?.train_step(&xb, &classes, &loss)?;
    }

    // All of them are asked in single precision, whatever they were trained in.
    let mut accuracies = Vec::new();
    for (name, id) in
        [("f32", single), ("autocast bf16", autocast), ("autocast f16", halves), ("bf16", bfloats)]
    {
        let mut brains = world.population_mut(id)?;
        let dtype = brains.as_ref()?.dtype();
        let bytes = bytes(&mut brains)?;
        let logits = brains.float()?.eval()?.forward(&x)?;
        let accuracy = accuracy(&logits, &classes);
        println!("{name:20} {:5.1} % right, {bytes} bytes a model in {dtype}", 100.0 * accuracy);
        accuracies.push((accuracy, bytes));
    }
    let (of_single, bytes_of_single) = accuracies[0];
    assert!(of_single > 0.9, "single precision learns: {of_single}");
    assert!(accuracies.iter().all(|(accuracy, _)| (accuracy - of_single).abs() < 0.05));
    assert_eq!(accuracies[3].1 * 2, bytes_of_single);

    // One model goes alone; what needs one type for all says so.
    let mut brains = world.population_mut(single)?;
    brains.model(7)?.double()?;
    let refused = brains.forward(&x).err().ok_or("expected models of two types to be refused")?;
    let error = refused.to_string();
    assert!(error.contains("f64"), "{error}");
    println!("one in f64 among {}: {error}", MODELS - 1);
    let y = brains.model(7)?.forward(&Array2::<f64>::ones((BATCH, 2)))?;
    assert_eq!(y.shape(), [BATCH, 3]);
    brains.float()?.forward(&x)?;
    Ok(())
}

/// Spawns classifiers that learn by Adam, the same ones each time.
fn spawn(world: &mut World) -> Result<Entity, Box<dyn Error>> {
    let net = Sequential::new().push(Linear::new(2, 32)).push(ReLU).push(Linear::new(32, 3));
    let mut brains = world.spawn_population(&net, MODELS, Seed(1))?;
    brains.insert(Adam { lr: 2e-2, eps: 1e-4, ..Adam::default() })?;
    Ok(brains.id())
}

/// Makes points around three centers, other ones for each model, `[models, batch, 2]`, and their classes `[models, batch]`.
fn data() -> (Array3<f32>, Array2<i64>) {
    let classes =
        Array2::from_shape_fn((MODELS, BATCH), |(model, item)| ((model + item) % 3) as i64);
    let x = Array3::from_shape_fn((MODELS, BATCH, 2), |(model, item, axis)| {
        let center = [[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]][(model + item) % 3][axis];
        let noise =
            ((model * 7919 + item * 104_729 + axis * 1_299_709) % 1000) as f32 / 1000.0 - 0.5;
        center + 0.8 * noise
    });
    (x, classes)
}

/// Says which share of the items has the largest logit at its class.
fn accuracy(logits: &ArrayD<f32>, classes: &Array2<i64>) -> f64 {
    let right = classes.indexed_iter().filter(|&((model, item), &class)| {
        let of = |class: usize| logits[[model, item, class]];
        (0..3).all(|other| of(other) <= of(class as usize))
    });
    right.count() as f64 / classes.len() as f64
}

/// Counts the bytes of a model's parameters.
fn bytes(brains: &mut PopulationMut<'_>) -> Result<usize, Box<dyn Error>> {
    let parameters = brains.model(0)?.named_parameters()?;
    Ok(parameters.iter().map(|of| of.ty.size_bytes()).sum())
}
