//! A run that is killed again and again goes on from its last checkpoint, and ends with the bits of a run that nobody
//! disturbed.
//!
//! ```text
//! cargo run --release --example checkpoint
//! ```
//!
//! The program starts itself as another process, kills that one in the middle of its work, and starts it anew.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ndarray::{Array2, Array3};
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};

const MODELS: usize = 200;
const STEPS: usize = 120;
const STEPS_PER_CHECKPOINT: usize = 10;
const KILLS: usize = 5;

/// How far a run has come: a component of the population's entity, saved with it.
#[derive(Component, Clone, Copy, Serialize, Deserialize)]
struct Progress(usize);

/// Begins a run, or goes on with the one in a file.
fn begin(world: &mut World, path: &Path) -> Result<Entity, Box<dyn Error>> {
    world.register_saved::<Progress>()?;
    if path.exists() {
        let restored = Checkpoint::open(path)?.restore(world)?;
        return Ok(restored.populations[0]);
    }
    let brain = Sequential::new()
        .push(Linear::new(4, 16))
        .push(BatchNorm1d::new(16))
        .push(Tanh)
        .push(Dropout { p: 0.2 })
        .push(Linear::new(16, 2));
    let mut brains = world.spawn_population(&brain, MODELS, Seed(7))?;
    brains.insert_with(|i| Adam { lr: 1e-3 * 1.01_f64.powi(i as i32), ..Adam::default() })?;
    brains.schedule(CosineAnnealingLR { t_max: STEPS, eta_min: 0.0 })?;
    let brains = brains.id();
    world.entity_mut(brains).insert(Progress(0));
    Ok(brains)
}

/// Trains up to the last step; saves now and then, and tells of it.
fn train(path: &Path, tell: impl Fn(usize)) -> Result<(), Box<dyn Error>> {
    let mut world = World::new();
    let brains = begin(&mut world, path)?;
    while let Some(&Progress(step)) = world.get::<Progress>(brains).filter(|at| at.0 < STEPS) {
        let x = Array3::from_shape_fn((MODELS, 32, 4), |(m, i, j)| {
            ((m * 7 + i * 5 + j * 3 + step * 11) % 23) as f32 / 11.0 - 1.0
        });
        let y = Array2::from_shape_fn((MODELS, 32), |(m, i)| {
            i64::from(x[[m, i, 0]] * x[[m, i, 1]] > 0.0)
        });
        let mut handle = world.population_mut(brains)?;
        handle.train_step(&x, &y, &CrossEntropyLoss::default())?;
        handle.step_schedulers()?;
        world.entity_mut(brains).insert(Progress(step + 1));
        if (step + 1).is_multiple_of(STEPS_PER_CHECKPOINT) {
            checkpoint::save(&mut world, &[brains], path)?;
            tell(step + 1);
        }
    }
    Ok(())
}

/// Runs the program in another process; kills it once it has saved `saves` times, if it should.
fn run(path: &Path, saves: Option<usize>) -> Result<usize, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program).arg(path).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("a pipe")?).lines();
    let mut last = 0;
    for (line, saved) in lines.zip(1..) {
        last = line?.parse()?;
        if Some(saved) == saves {
            child.kill()?;
            break;
        }
    }
    child.wait()?;
    Ok(last)
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args_os().nth(1) {
        train(Path::new(&path), |step| println!("{step}"))?;
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("neurarch-example-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path: PathBuf = folder.join("run.ckpt");
    for kill in 0..KILLS {
        let last = run(&path, Some(1 + kill % 2))?;
        println!("killed after it had saved step {last}");
    }
    let last = run(&path, None)?;
    println!("ran to its end: step {last}");
    assert_eq!(last, STEPS);

    let undisturbed = folder.join("undisturbed.ckpt");
    train(&undisturbed, |_| {})?;
    let of = |path: &Path| -> Result<Vec<u8>, Box<dyn Error>> {
        let mut world = World::new();
        world.register_saved::<Progress>()?;
        let brains = Checkpoint::open(path)?.restore(&mut world)?.populations[0];
        let mut brains = world.population_mut(brains)?;
        let mut tensors: Vec<Tensor> = brains.stacked_state_dict()?.into_iter().collect();
        tensors.extend(brains.training_state()?);
        Ok(tensors.iter().flat_map(Tensor::to_native).collect())
    };
    let (killed, whole) = (of(&path)?, of(&undisturbed)?);
    assert!(killed == whole, "a killed run ends as one that was not");
    println!("{} bytes of state are those of a run that was never interrupted", whole.len());
    let left: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    assert_eq!(left.len(), 2, "no half file is left lying");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
