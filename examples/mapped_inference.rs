//! Thousands of models answer from a file that is mapped, without being loaded.
//!
//! ```text
//! cargo run --release --example mapped_inference
//! ```

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::time::Instant;

use ndarray::{Array2, Axis};
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::Checkpoint;

const MODELS: usize = 5_000;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("neurarch-example-{}.ckpt", std::process::id()));
    let brain = Sequential::new()
        .push(Linear::new(6, 64))
        .push(Tanh)
        .push(Linear::new(64, 64))
        .push(Tanh)
        .push(Linear::new(64, 3));
    let mut world = World::new();
    let brains = world.spawn_population(&brain, MODELS, Seed(7))?.id();
    checkpoint::save(&mut world, &[brains], &path)?;
    let x = Array2::from_shape_fn((1, 6), |(_, i)| i as f32 / 6.0);
    let mut live = world.population_mut(brains)?;
    let expected = live.eval()?.no_grad(|brains| brains.forward(Input::shared(x.view())))?;
    drop(world);

    let start = Instant::now();
    let checkpoint = Checkpoint::open(&path)?;
    println!("{} has {} models, each with", path.display(), checkpoint.models(0).unwrap_or(0));
    for tensor in checkpoint.tensors() {
        println!("    {:10} {} {:?}", tensor.name, tensor.dtype, tensor.shape);
    }
    // One model: a few pages of the file are read.
    let mut models = checkpoint.mapped()?;
    let answer = models.forward_some(0, &[1_234], Input::shared(x.view()))?;
    println!("model 1234 says {:?} after {:.1?}", answer.as_slice(), start.elapsed());
    assert_eq!(answer.index_axis(Axis(0), 0), expected.index_axis(Axis(0), 1_234));

    let start = Instant::now();
    let answers = models.forward(Input::shared(x.view()))?;
    println!("all {MODELS} say theirs after {:.1?} more", start.elapsed());
    assert_eq!(answers, expected);
    std::fs::remove_file(&path)?;
    Ok(())
}
