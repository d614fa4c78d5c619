//! Hooks: looking into models while they run and learn, and changing what happens there.
//!
//! ```text
//! cargo run --release --example hooks
//! ```
//!
//! Six networks learn handwritten digits. Hooks record the activations of one of them and the gradients of all;
//! another one silences units. Models that nobody watches run as fast as ever, and nobody's numbers change by a bit.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ndarray::{ArrayD, Axis, Slice as Part};
use neurarch::prelude::*;

#[path = "sweep/data.rs"]
mod data;
use data::{CLASSES, Digits, PIXELS};

const MODELS: usize = 6;
const STEPS: usize = 40;
const BATCH: usize = 32;
/// The units of the first layer that are silenced.
const SILENCED: usize = 8;

/// What hooks recorded, by the module's path.
type Record = Arc<Mutex<BTreeMap<String, ArrayD<f32>>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv.gz");
    let digits = Digits::read(Path::new(path))?;
    let mut world = World::new();
    let network = Sequential::new().push(Linear::new(PIXELS, 32)).push(Tanh);
    let network = network.push(Linear::new(32, 16)).push(ReLU).push(Linear::new(16, CLASSES));
    let mut brains = world.spawn_population(&network, MODELS, Seed(7))?;
    brains.insert(Adam { lr: 3e-3, ..Adam::default() })?;
    let (images, labels) = digits.train();
    let batch = |step: usize| Part::from(step * BATCH..(step + 1) * BATCH);
    let train = |brains: &mut PopulationMut<'_>, step: usize| {
        let x = images.slice_axis(Axis(0), batch(step));
        let y = labels.slice_axis(Axis(0), batch(step));
        let loss = CrossEntropyLoss::default();
        brains.train_step(Input::shared(x), Input::shared(y), &loss)
    };
    let (unseen, _) = digits.validation();
    let x = unseen.slice_axis(Axis(0), batch(0));
    let run = |brains: &mut PopulationMut<'_>| brains.forward(Input::shared(x));
    for step in 0..STEPS {
        train(&mut brains, step)?;
    }
    let unwatched = run(&mut brains)?;

    // One model: what each of its layers gives. Its neighbors run as before.
    let activations = Record::default();
    let mut handles = Vec::new();
    for path in ["0", "1", "2", "3", "4"] {
        let record = activations.clone();
        handles.push(brains.model(2)?.at(path)?.register_forward_hook(move |at, _, y| {
            let y = at.array::<f32>(y.and_then(Tree::leaf).ok_or("no result")?)?;
            record.lock().map_err(|_| "poisoned")?.insert(at.path.to_owned(), y);
            Ok(None)
        })?);
    }
    let watched = run(&mut brains)?;
    println!("activations of one model, [batch, features]");
    show(&activations, 1.0);
    assert_eq!(watched, unwatched, "looking changes no bit");
    let recorded = activations.lock().map_err(|_| "poisoned")?;
    assert_eq!(recorded["4"], watched.index_axis(Axis(0), 2));
    let tanh = recorded["0"].mapv(f32::tanh) - &recorded["1"];
    assert!(tanh.iter().all(|difference| difference.abs() < 1e-6), "layer 1 is a Tanh");
    drop(recorded);
    assert!(handles.iter().all(RemovableHandle::remove));
    assert!(!handles.drain(..).any(|handle| handle.remove()), "they are gone");

    // The population: the gradients of what each layer gives, of all models in one call.
    let gradients = Record::default();
    for path in ["0", "1", "2", "3", "4"] {
        let record = gradients.clone();
        handles.push(brains.at(path).register_full_backward_hook(move |at, _, dy| {
            let dy = at.array::<f32>(dy[0].as_ref().ok_or("no gradient")?)?;
            record.lock().map_err(|_| "poisoned")?.insert(at.path.to_owned(), dy);
            Ok(None)
        })?);
    }
    train(&mut brains, STEPS)?;
    println!("\ngradients of {MODELS} models, [models, batch, features]");
    show(&gradients, 0.01);
    let recorded = gradients.lock().map_err(|_| "poisoned")?;
    assert_eq!(recorded["0"].shape(), [MODELS, BATCH, 32]);
    // Softmax minus target: what goes to one class comes from the others.
    let sums = recorded["4"].sum_axis(Axis(2));
    assert!(sums.iter().all(|sum| sum.abs() < 1e-6));
    drop(recorded);
    assert!(handles.drain(..).all(|handle| handle.remove()));

    // A hook that changes a value: some units are silent while its guard lives.
    let before = run(&mut brains)?;
    let silence = brains.at("1").register_forward_hook(|_, _, y| {
        let Some(y) = y.and_then(Tree::leaf) else { return Ok(None) };
        let (silent, others) = (y.slice(-1, 0..SILENCED), y.slice(-1, SILENCED..32));
        Ok(Some(Var::cat(&[&(silent * 0.0), &others], -1).into()))
    })?;
    let guard = silence.guard();
    let silenced = run(&mut brains)?;
    let change = (&silenced - &before).mapv(f32::abs).mean().unwrap_or(0.0);
    println!("\nwithout {SILENCED} units of layer 1 the logits change by {change:.3} on average");
    assert!(change > 0.01);
    drop(guard);
    assert_eq!(run(&mut brains)?, before, "the hook is gone, and nothing of it stays");
    Ok(())
}

/// Prints mean, deviation and a histogram of each layer's numbers, from `-range` to `range`.
fn show(record: &Record, range: f32) {
    const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    const BINS: usize = 24;
    let record = record.lock().expect("no hook panicked");
    for (path, numbers) in record.iter() {
        let mut counts = [0_usize; BINS];
        for number in numbers {
            let bin = (number / range + 1.0) / 2.0 * BINS as f32;
            counts[(bin.max(0.0) as usize).min(BINS - 1)] += 1;
        }
        let most = counts.into_iter().max().unwrap_or(1).max(1);
        let bars: String = counts.map(|count| BARS[(8 * count).div_ceil(most)]).concat();
        let (mean, std) = (numbers.mean().unwrap_or(0.0), numbers.std(0.0));
        println!("layer {path}  mean {mean:>8.4}  std {std:>7.4}  |{bars}|  {:?}", numbers.shape());
    }
}
