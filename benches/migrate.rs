//! Conversion of populations beside a plain copy of the rows' bytes: `cargo bench --bench migrate -- --json`.
//!
//! Each side runs in turns with the other, and the best of several runs counts.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark panics, and prints what it measured"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Parser;
use neurarch::prelude::*;

#[derive(Parser)]
struct Options {
    /// Prints lines of JSON.
    #[arg(long)]
    json: bool,
    /// How many models there are.
    #[arg(long, default_value_t = 10_000)]
    models: usize,
    /// How often each side runs.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let tiny = Sequential::new()
        .push(Linear::new(4, 16))
        .push(Tanh)
        .push(Linear::new(16, 16))
        .push(Tanh)
        .push(Linear::new(16, 2));
    let mut world = World::new();
    let mut brains = world.spawn_population(&tiny, options.models, Seed(7)).unwrap();
    brains.insert(Adam::default()).unwrap();
    let x = ndarray::Array2::<f32>::ones((8, 4));
    let y = ndarray::Array1::<i64>::zeros(8);
    let loss = CrossEntropyLoss::default();
    brains.train_step(Input::shared(x.view()), Input::shared(y.view()), &loss).unwrap();
    let parameters = brains.model(0).unwrap().named_parameters().unwrap();
    let row = |of: usize| of.next_multiple_of(64);
    let bytes: usize = parameters.iter().map(|of| row(of.ty.size_bytes())).sum();
    // Parameters and two moments: gradients of a fused step are kept nowhere.
    let bytes = 3 * bytes * options.models;
    let (source, mut target) = (vec![7_u8; bytes], vec![0_u8; bytes]);

    let mut of_all = [Duration::MAX; 2];
    for _ in 0..options.rounds {
        let both = [
            time(|| {
                brains.bfloat16().unwrap().float().unwrap();
            }),
            time(|| {
                target.copy_from_slice(black_box(&source));
                black_box(&mut target).copy_from_slice(&source);
            }),
        ];
        of_all = [0, 1].map(|side| of_all[side].min(both[side]));
    }
    let [own, plain] = of_all.map(|took| took.as_secs_f64() * 1e3);
    print(&options, "all there and back", options.models, own, Some(plain));

    for count in [1, 10, 100, 1000] {
        let mut best = Duration::MAX;
        for _ in 0..options.rounds {
            best = best.min(time(|| {
                for model in 0..count {
                    brains.model(model * 7).unwrap().bfloat16().unwrap();
                }
                for model in 0..count {
                    brains.model(model * 7).unwrap().float().unwrap();
                }
            }));
        }
        print(&options, "some there and back", count, best.as_secs_f64() * 1e3, None);
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn print(options: &Options, what: &str, models: usize, own: f64, plain: Option<f64>) {
    let ratio = plain.map(|plain| own / plain);
    match options.json {
        true => println!(
            "{{\"what\": \"{what}\", \"models\": {models}, \"ms\": {own:.3}, \"copy_ms\": {}, \"ratio\": {}}}",
            plain.map_or("null".into(), |plain| format!("{plain:.3}")),
            ratio.map_or("null".into(), |ratio| format!("{ratio:.3}")),
        ),
        false => println!(
            "{what:20} {models:6} models {own:9.3} ms{}",
            plain.map_or(String::new(), |plain| format!(
                ", two copies of the bytes {plain:.3} ms, {:.2} times",
                own / plain
            ))
        ),
    }
}
