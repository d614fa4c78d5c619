//! Modules of your own: a residual block, and a model of several tasks that share an embedding and an encoder.
//!
//! ```text
//! cargo run --release --example custom_module
//! ```
//!
//! Eight models, each with a learning rate of its own, learn three things about a
//! handwritten digit at once: which one it is, whether it is odd, and whether it is at least 5.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::path::Path;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use neurarch::prelude::*;

#[path = "sweep/data.rs"]
mod data;
use data::{Digits, PIXELS};

const MODELS: usize = 8;
const BATCH: usize = 32;
const FEATURES: usize = 32;
const EPOCHS: usize = 12;

/// What is asked, and how many answers there are.
const TASKS: [(&str, usize); 3] = [("digit", 10), ("odd", 2), ("large", 2)];

/// Gives the answers, in the order of [`TASKS`].
fn answers(digit: i64) -> [i64; TASKS.len()] {
    [digit, digit % 2, i64::from(digit >= 5)]
}

/// Adds what two layers make of a value to the value.
#[derive(Module, Component, Clone)]
struct Residual {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Residual {
    fn new(features: usize) -> Self {
        Residual {
            norm: LayerNorm::new([features]),
            fc1: Linear::new(features, 2 * features),
            fc2: Linear::new(2 * features, features),
        }
    }
}

impl Forward for Residual {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let h = self.fc1(call, self.norm(call, &x)).relu();
        x + self.fc2(call, h)
    }
}

/// One embedding and one encoder for all tasks; a projection and a head for each.
#[derive(Module, Component, Clone)]
struct MultiTask {
    embedding: Linear,
    encoder: Sequential,
    tasks: Vec<(&'static str, usize)>,
}

impl MultiTask {
    fn new(tasks: &[(&'static str, usize)]) -> Self {
        MultiTask {
            embedding: Linear::new(PIXELS, FEATURES),
            encoder: Sequential::from([Residual::new(FEATURES), Residual::new(FEATURES)]),
            tasks: tasks.to_vec(),
        }
    }
}

impl Forward for MultiTask {
    /// How many projections and heads there are, and what they are called, is a setting: they are no fields.
    fn declare(&self, declare: &mut Declare) {
        for &(task, classes) in &self.tasks {
            let head = Sequential::new().push(ReLU).push(Linear::new(16, classes));
            declare.child(format!("{task}_projection"), Linear::new(FEATURES, 16));
            declare.child(format!("{task}_head"), head);
        }
    }

    /// Gives the logits of all tasks side by side; with the keyword `by_task`, a dictionary.
    fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
        let by_task = arguments.keyword.drain(..).any(|(name, _)| name == "by_task");
        let Some([x]) = call.values(arguments) else { return call.trace.poison().into() };
        let encoded = self.encoder(call, self.embedding(call, x));
        let logits = self.tasks.iter().map(|(task, _)| {
            let projected = call.child(&format!("{task}_projection"), &encoded);
            (task.to_string(), call.child(&format!("{task}_head"), &projected))
        });
        let logits: Vec<_> = logits.collect();
        match by_task {
            true => Tree::Dict(logits.into_iter().map(|(task, x)| (task, x.into())).collect()),
            false => Var::cat(&logits.iter().map(|(_, x)| x).collect::<Vec<_>>(), -1).into(),
        }
    }
}

/// The sum of each task's cross entropy: targets `[batch, tasks]`, logits `[batch, classes of all tasks]`.
#[derive(Clone, Debug, PartialEq)]
struct TaskLoss;

impl Loss for TaskLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let (batch, mut start) = (target.shape()[0], 0);
        let smoothing = call.trace.constant(0.0, x.dtype(), []);
        let losses = TASKS.iter().enumerate().map(|(task, (_, classes))| {
            let logits = x.slice(-1, start..start + classes);
            start += classes;
            let target = target.slice(-1, task..task + 1).reshape([batch]);
            logits.cross_entropy(&target, None, &smoothing, -100, Reduction::Mean)
        });
        losses.reduce(|sum, loss| sum + loss).expect("there are tasks")
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv.gz");
    let digits = Digits::read(Path::new(path))?;

    let mut world = World::new();
    let module = MultiTask::new(&TASKS);
    println!("{}", repr(&module));
    let mut brains = world.spawn_population(&module, MODELS, Seed(3))?;
    let rate = |model: usize| 1e-4 * 2.0_f64.powi(model as i32);
    brains.insert_with(|model| Adam { lr: rate(model), ..Adam::default() })?;

    let (images, labels) = digits.train();
    let targets =
        Array2::from_shape_fn((labels.len(), TASKS.len()), |(i, k)| answers(labels[i])[k]);
    for _ in 0..EPOCHS {
        let batches = images.axis_chunks_iter(Axis(0), BATCH);
        for (x, y) in batches.zip(targets.axis_chunks_iter(Axis(0), BATCH)) {
            brains.train_step(Input::shared(x), Input::shared(y), &TaskLoss)?;
        }
    }

    brains.eval()?;
    let (images, labels) = digits.validation();
    let scores = score(&mut brains, images, labels)?;
    println!("\naccuracy on digits not seen    digit    odd  large");
    for (model, scores) in scores.rows().into_iter().enumerate() {
        let scores: Vec<_> = scores.iter().map(|score| format!("{score:.3}")).collect();
        println!("learning rate {:<16.4} {}", rate(model), scores.join("  "));
    }
    let best = scores.mean_axis(Axis(1)).into_iter().flatten().fold(0.0, f32::max);
    println!("the best model answers {:.1} % right after {EPOCHS} epochs", 100.0 * best);
    assert!(best > 0.9, "a model of three tasks learns all of them");
    Ok(())
}

/// Gives how much of each task each model gets right, `[models, tasks]`.
fn score(
    brains: &mut PopulationMut<'_>,
    images: ArrayView2<'_, f32>,
    labels: ArrayView1<'_, i64>,
) -> Result<Array2<f32>, Box<dyn Error>> {
    let arguments = Arguments::each([AnyInput::from(Input::shared(images))]);
    let logits = brains.forward_with::<f32>(arguments.with("by_task", Tree::Flag(true)))?;
    let mut right = Array2::zeros((MODELS, TASKS.len()));
    for (task, logits) in logits.leaves().into_iter().enumerate() {
        for (model, logits) in logits.outer_iter().enumerate() {
            for (logits, &label) in logits.rows().into_iter().zip(labels) {
                let numbered = logits.iter().zip(0_i64..);
                let best = numbered.max_by(|a, b| a.0.total_cmp(b.0)).map(|(_, class)| class);
                right[[model, task]] += f32::from(u8::from(best == Some(answers(label)[task])));
            }
        }
    }
    Ok(right / labels.len() as f32)
}
