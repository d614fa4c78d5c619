//! Profiles: every op shows up, at its module, and times are those of the threads.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ndarray::{Array2, Array3};
use neurarch::functions::step::{Allowance, SomeStep, train_some};
use neurarch::prelude::*;
use neurarch::report::profile::{GroupBy, KeyAverages, Profile, SortBy, profile};
use serde_json::Value;

use crate::bits::bits;
use crate::known::Known;

fn spawn(models: usize) -> (World, Entity) {
    let inner = Sequential::new().push(Linear::new(16, 16)).push(Tanh).push(Linear::new(16, 16));
    let net =
        Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(inner).push(Dropout::default());
    let net = net.push(Linear::new(16, 2));
    let mut world = World::new();
    let population = world.spawn_population(&net, models, Seed(3)).unwrap().id();
    world.brains(population).insert(Adam::default()).unwrap();
    (world, population)
}

fn train(world: &mut World, population: Entity) {
    let models = world.population(population).unwrap().models().len();
    let (x, y) = (Array3::<f32>::ones((models, 32, 4)), Array2::<i64>::ones((models, 32)));
    for _ in 0..3 {
        world.brains(population).train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    }
}

fn keys(averages: &KeyAverages) -> Vec<&str> {
    averages.rows.iter().map(|row| row.key.as_str()).collect()
}

/// Profiles three steps on so many threads; gives the bits, too.
fn profiled(threads: usize) -> (Profile, Vec<Vec<u32>>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (mut world, population) = spawn(500);
        let ((), profile) = profile(&mut world, |world| train(world, population));
        (profile, bits(&mut world, population))
    })
}

#[test]
fn every_op_shows_up_at_its_module() {
    let (profile, _) = profiled(1);
    let by_module = profile.key_averages(GroupBy::Module);
    assert_eq!(
        keys(&by_module),
        [
            "(outside)",
            "(root)",
            "0 (Linear)",
            "1 (Tanh)",
            "2",
            "2.0 (Linear)",
            "2.1 (Tanh)",
            "2.2 (Linear)",
            "3 (Dropout)",
            "4 (Linear)"
        ]
    );
    let by_op = profile.key_averages(GroupBy::Op);
    assert!(keys(&by_op).contains(&"adam"), "{:?}", keys(&by_op));
    let both = profile.key_averages(GroupBy::OpAndModule);
    for path in ["0 (Linear)", "2.0 (Linear)", "2.2 (Linear)", "4 (Linear)"] {
        let adam = both.rows.iter().find(|row| row.key == format!("adam of {path}")).unwrap();
        // Weight and bias, of 500 models, in three steps.
        assert_eq!(adam.models, 2 * 500 * 3, "{path}");
    }
    for row in &both.rows {
        assert_eq!(row.models % (500 * 3), 0, "each op runs for each model: {row:?}");
    }
}

#[test]
fn times_add_up_and_change_no_bit() {
    let (mut world, population) = spawn(500);
    train(&mut world, population);
    let plain = bits(&mut world, population);
    for threads in [1, 3] {
        let (profile, bits) = profiled(threads);
        assert_eq!(bits, plain);
        let recorded = &profile.recorded;
        assert!((1..=threads).contains(&recorded.threads));
        let all: Duration = recorded.events.iter().map(|event| event.duration).sum();
        assert!(all > Duration::ZERO && all <= recorded.wall_time * threads as u32);
        for thread in 0..recorded.threads {
            let of_thread = recorded.events.iter().filter(|event| event.thread == thread);
            let mut end = Duration::ZERO;
            for event in of_thread {
                assert!(event.start >= end, "one op after the other");
                end = event.start + event.duration;
            }
            assert!(end <= recorded.wall_time);
        }
        for group_by in [GroupBy::Op, GroupBy::Module, GroupBy::OpAndModule] {
            let averages = profile.key_averages(group_by);
            assert_eq!(averages.self_cpu_time_total, all);
            let sum: Duration = averages.rows.iter().map(|row| row.self_cpu_time_total).sum();
            assert_eq!(sum, all);
            let count: usize = averages.rows.iter().map(|row| row.count).sum();
            assert_eq!(count, recorded.events.len());
        }
        let by_module = profile.key_averages(GroupBy::Module);
        let of = |key: &str| by_module.rows.iter().find(|row| row.key == key).unwrap();
        let within: Duration = by_module
            .rows
            .iter()
            .filter(|row| row.key.starts_with('2'))
            .map(|row| row.self_cpu_time_total)
            .sum();
        assert_eq!(of("2").cpu_time_total, within);
        let outside = of("(outside)").cpu_time_total;
        assert_eq!(of("(root)").cpu_time_total + outside, all);
    }
}

#[test]
fn a_trace_has_a_track_for_each_thread() {
    let (profile, _) = profiled(3);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trace.json");
    profile.export_chrome_trace(&path).unwrap();
    let trace: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |kind: &'static str| events.iter().filter(move |event| event["ph"] == kind);
    assert_eq!(of("M").count(), 1 + profile.recorded.threads);
    assert_eq!(of("X").count(), profile.recorded.events.len());
    let tracks: BTreeSet<_> = of("X").map(|event| event["tid"].as_u64().unwrap()).collect();
    assert_eq!(tracks.len(), profile.recorded.threads);
    for (event, recorded) in of("X").zip(&profile.recorded.events) {
        let info = &profile.recorded.ops[recorded.op];
        assert_eq!(event["name"], info.op);
        assert_eq!(event["args"]["module"], info.path.as_str());
        let microseconds = recorded.duration.as_nanos() as f64 / 1e3;
        assert!((event["dur"].as_f64().unwrap() - microseconds).abs() < 1e-9);
    }
    let below = path.join("below");
    let refused = profile.export_chrome_trace(&below).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("cannot write {}: ", below.display())), "{refused}");
}

#[test]
fn a_table_is_sorted_and_cut() {
    let (profile, _) = profiled(1);
    let table = profile.key_averages(GroupBy::Module).table(SortBy::CpuTimeTotal, 3);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3 + 3 + 2, "{table}");
    let header = ["Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg"];
    assert!(header.iter().all(|name| lines[1].contains(name)), "{table}");
    assert!(lines[3].contains("(root)"), "{table}");
    assert!(lines[7].starts_with("Self CPU time total: "), "{table}");
    let widths: BTreeSet<_> = lines[..7].iter().map(|line| line.len()).collect();
    assert_eq!(widths.len(), 1, "{table}");
    let none = Profile::default().key_averages(GroupBy::Op).table(SortBy::Key, 9);
    assert!(none.ends_with("Self CPU time total: 0.000us\n"), "{none}");
}

#[test]
fn a_profile_may_begin_within_another() {
    let (mut world, population) = spawn(2);
    let (inner, outer) = profile(&mut world, |world| {
        train(world, population);
        profile(world, |world| train(world, population)).1
    });
    assert_eq!(inner.recorded.events.len(), outer.recorded.events.len());
    train(&mut world, population);
    let (_, nothing) = profile(&mut world, |_| ());
    assert!(nothing.recorded.events.is_empty());
}

#[test]
fn tiles_within_a_budget_are_in_a_profile_and_keep_their_bits() {
    let run = |is_profiled: bool| {
        let (mut world, population) = spawn(60);
        let (x, y) = (Array3::<f32>::ones((60, 8, 4)), Array2::<i64>::ones((60, 8)));
        let (mut waiting, mut losses) = ([true; 60], [0.0_f32; 60]);
        let loss = CrossEntropyLoss::default();
        let step = TrainStep::new(population, &x, &y, &loss);
        let mut steps = [SomeStep { step, waiting: &mut waiting, losses: &mut losses }];
        let two_tiles = Allowance { tiles: 2, ..Allowance::unlimited() };
        let profile = match is_profiled {
            true => {
                let (ran, profile) =
                    profile(&mut world, |world| train_some(world, &mut steps, &two_tiles));
                assert_eq!(ran.unwrap().used.tiles, 2);
                profile
            }
            false => {
                train_some(&mut world, &mut steps, &two_tiles).unwrap();
                Profile::default()
            }
        };
        drop(steps);
        let ran = waiting.iter().filter(|waits| !**waits).count();
        (profile, ran, losses.map(f32::to_bits), bits(&mut world, population))
    };
    let (profile, ran, losses, numbers) = run(true);
    let (nothing, _, plain_losses, plain) = run(false);
    assert!(nothing.recorded.events.is_empty());
    assert_eq!((losses, numbers), (plain_losses, plain));
    let both = profile.key_averages(GroupBy::OpAndModule);
    let adam = both.rows.iter().find(|row| row.key == "adam of 0 (Linear)").unwrap();
    assert_eq!(adam.models, 2 * ran, "weight and bias of the models that ran");
    assert!(ran > 0 && ran < 60);
}

/// The hook makes the pass run op by op.
#[test]
fn passes_op_by_op_are_in_a_profile_and_keep_their_bits() {
    let run = |is_profiled: bool| {
        let (mut world, population) = spawn(5);
        let mut target = world.target_mut((population, "1"));
        target
            .register_forward_hook(|_, _, y| Ok(y.and_then(Tree::leaf).map(|y| (y * 2.0).into())))
            .unwrap();
        let (x, y) = (Array3::<f32>::ones((5, 32, 4)), Array2::<i64>::ones((5, 32)));
        let loss = CrossEntropyLoss::default();
        let work = |world: &mut World| {
            let mut brains = world.brains(population);
            brains.train_step(&x, &y, &loss).unwrap();
            brains.forward(&x).unwrap();
            brains.loss::<f32, i64>(&y, &loss).unwrap();
            brains.backward().unwrap();
        };
        let profile = match is_profiled {
            true => profile(&mut world, work).1,
            false => {
                work(&mut world);
                Profile::default()
            }
        };
        (profile, bits(&mut world, population))
    };
    let (profile, numbers) = run(true);
    assert_eq!(numbers, run(false).1);
    let both = profile.key_averages(GroupBy::OpAndModule);
    let of = |key: &str| both.rows.iter().find(|row| row.key == key);
    let keys = keys(&both);
    // A plan that a hook's answer made useless is in it, too. Only passes op by op have the edges of calls.
    for (key, least) in [("adam", 2 * 5), ("linear", 2 * 5), ("enter", 2 * 5)] {
        let row = of(&format!("{key} of 0 (Linear)"));
        assert!(row.is_some_and(|row| row.models >= least && row.models % 5 == 0), "{keys:?}");
    }
    assert!(profile.recorded.events.is_sorted_by_key(|event| event.start));
}
