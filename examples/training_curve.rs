//! A training curve for PyTorch to repeat: one model's first weights, 20 minibatches, the loss of each, and the last
//! weights, in one safetensors file.
//!
//! ```text
//! cargo run --release --example training_curve -- target/training_curve.safetensors
//! python tests/peers/training_curve.py target/training_curve.safetensors
//! ```

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::path::PathBuf;

use ndarray::{Array3, Array4, arr0, s};
use neurarch::prelude::*;
use neurarch::state::safetensors::{self, Tensor};

const STEPS: usize = 20;
const BATCH: usize = 32;
const LR: f64 = 1e-2;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("expected the path of the file to write")?;
    let path = PathBuf::from(path);
    let network = Sequential::new().push(Linear::new(64, 32)).push(ReLU).push(Linear::new(32, 10));
    let mut world = World::new();
    let mut population = world.spawn_population(&network, 1, Seed(7))?;
    population.insert(Adam { lr: LR, ..Adam::default() })?;

    // Minibatches of the one model: [models, steps, batch, features], and the class of each item.
    let inputs = Array4::from_shape_fn((1, STEPS, BATCH, 64), |(_, step, item, feature)| {
        (((step * BATCH + item) * 31 + feature * 17) % 101) as f32 / 50.0 - 1.0
    });
    let targets = Array3::from_shape_fn((1, STEPS, BATCH), |(_, step, item)| {
        ((step * BATCH + item) * 7 % 10) as i64
    });

    let initial = population.model(0)?.state_dict()?;
    let data = DataSet::stacked(inputs.view(), targets.view());
    let losses = population.train_steps(data, &CrossEntropyLoss::default())?;
    let trained = population.model(0)?.state_dict()?;

    let mut tensors = Vec::new();
    for (prefix, state) in [("initial", initial), ("final", trained)] {
        tensors.extend(state.into_iter().map(|mut tensor| {
            tensor.name = format!("{prefix}.{}", tensor.name);
            tensor
        }));
    }
    tensors.push(Tensor::new("inputs", inputs.slice(s![0, .., .., ..]).into_dyn()));
    tensors.push(Tensor::new("targets", targets.slice(s![0, .., ..]).into_dyn()));
    tensors.push(Tensor::new("losses", losses.slice(s![0, ..]).into_dyn()));
    tensors.push(Tensor::new("lr", arr0(LR).view().into_dyn()));
    safetensors::save(&path, &tensors)?;

    let (first, last) = (losses[[0, 0]], losses[[0, STEPS - 1]]);
    println!("{STEPS} steps of Adam took the loss from {first:.3} to {last:.3}");
    println!("python tests/peers/training_curve.py {}", path.display());
    assert!(last < first);
    Ok(())
}
