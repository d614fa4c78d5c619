//! What a tick costs that is saved: little more than a copy of the rows that were changed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::*;

/// The median of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// `cargo test --release --all-features --test ecs -- --ignored --nocapture a_save_costs`
///
/// 10,000 brains of 1,792 bytes of parameters; a part of them is perturbed in each tick.
#[test]
#[ignore = "it measures: only a release build says something"]
#[expect(clippy::print_stdout, reason = "it reports what it measured")]
fn a_save_costs_at_most_1_3_times_a_copy_of_the_rows_that_changed() {
    const MODELS: usize = 10_000;
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(6, 16)).push(Tanh).push(Linear::new(16, 16));
    let brain = brain.push(Tanh).push(Linear::new(16, 2));
    let population = world.spawn_population(&brain, MODELS, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().keep_snapshots(9).unwrap();
    // Rows are padded to cache lines.
    let rows = [384, 64, 1024, 64, 128, 64];
    let columns: Vec<Vec<u8>> = rows.iter().map(|bytes| vec![1_u8; bytes * MODELS]).collect();
    let mut copies = vec![columns.clone(); 9];
    let mut tick = 0;
    let mut failed = Vec::new();
    for (name, is_changed) in [
        ("all", (|_| true) as fn(usize) -> bool),
        ("a half, one by one", |model| model.is_multiple_of(2)),
        ("a tenth, in one run", |model| model < MODELS / 10),
        ("a tenth, one by one", |model| model.is_multiple_of(10)),
        ("a hundredth, one by one", |model| model.is_multiple_of(100)),
        ("none", |_| false),
    ] {
        let (mut saves, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let noise = |model| Noise::normal(if is_changed(model) { 0.1 } else { 0.0 });
            world.population_mut(population).unwrap().perturb_with(noise, |_| true).unwrap();
            let began = Instant::now();
            save(&mut world, population, tick);
            saves.push(began.elapsed());
            let to = &mut copies[tick as usize % 9];
            let began = Instant::now();
            for (bytes, (column, to)) in rows.iter().zip(columns.iter().zip(to)) {
                for model in (0..MODELS).filter(|&model| is_changed(model)) {
                    let row = model * bytes..(model + 1) * bytes;
                    to[row.clone()].copy_from_slice(black_box(&column[row]));
                }
            }
            plain.push(began.elapsed());
            tick += 1;
        }
        let (saving, copying) = (median(saves.split_off(20)), median(plain.split_off(20)));
        let ratio = saving.as_secs_f64() / copying.as_secs_f64();
        println!("{name}: {saving:?}, a copy {copying:?}: {ratio:.2} times");
        if ratio > 1.3 && name != "none" {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
