//! Checkpoints: populations come out of a file as they went in, and run from it.

mod hostile;
mod mapped;
mod whole;

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::{Checkpoint, Restored};

use crate::known::Known;

/// A file of a test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("neurarch-{}-{test}.ckpt", std::process::id())))
    }

    /// Saves populations, and restores them into a world of their own.
    fn pass_on(&self, world: &mut World, populations: &[Entity]) -> (World, Restored) {
        checkpoint::save(world, populations, &self.0).unwrap();
        let mut other = World::new();
        let restored = Checkpoint::open(&self.0).unwrap().restore(&mut other).unwrap();
        (other, restored)
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Inputs and targets of a step.
fn batch(models: usize, step: usize) -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((models, 5, 4), |(m, i, j)| {
        ((m * 7 + i * 5 + j * 3 + step * 11) % 13) as f32 / 6.0 - 1.0
    });
    let y = Array2::from_shape_fn((models, 5), |(m, i)| ((m + i + step) % 2) as i64);
    (x, y)
}

/// Trains some steps; gives the losses' bits.
fn train(world: &mut World, of: Entity, steps: std::ops::Range<usize>) -> Vec<u32> {
    let mut bits = Vec::new();
    for step in steps {
        let models = world.population(of).unwrap().len();
        let (x, y) = batch(models, step);
        let losses = world.brains(of).train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
        bits.extend(losses.iter().map(|loss: &f32| loss.to_bits()));
    }
    bits
}

/// All tensors of each model, with what its training has come to.
fn tensors(world: &mut World, of: Entity) -> Vec<Vec<Tensor>> {
    let roots = world.population(of).unwrap().models().to_vec();
    let of_root = |root| {
        let mut all: Vec<_> = world.part(root).state_dict().unwrap().into_iter().collect();
        all.extend(world.part(root).training_state().unwrap());
        all
    };
    roots.into_iter().map(of_root).collect()
}

fn net() -> Sequential {
    Sequential::new()
        .push(Linear::new(4, 6))
        .push(BatchNorm1d::new(6))
        .push(Tanh)
        .push(Dropout { p: 0.3 })
        .push(Linear::new(6, 2))
}
