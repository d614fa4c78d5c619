//! Bits and times of small networks on a GPU, in a few minutes; without one, the CPU's part.
//!
//!     cargo run --release -p neurarch_cuda --features driver --example gpu -- --json
//!
//! It compares training and inference with the CPU's bits, fused and batched, then measures steps replayed as graphs. With
//! `--bits` it only compares: for `compute-sanitizer`, which `benches/gpu.sh` runs where it finds one.

mod scene;

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use neurarch_cuda::cache::Cache;
use neurarch_cuda::kernel::Kernels;
use neurarch_cuda::nvrtc::Nvrtc;
use neurarch_cuda::run::Session;
use neurarch_cuda::{Device, device_count};
use serde_json::{Value, json};

use crate::scene::{Planned, Population, Tables};

/// A network and how it runs.
struct Case {
    name: &'static str,
    sizes: &'static [usize],
    batch: usize,
    trains: bool,
    /// Steps of a launch.
    steps: usize,
    models: &'static [usize],
}

const CASES: [Case; 4] = [
    Case {
        name: "tiny training",
        sizes: &[4, 16, 16, 2],
        batch: 32,
        trains: true,
        steps: 4,
        models: &[1_000, 10_000, 100_000],
    },
    Case {
        name: "tiny inference",
        sizes: &[4, 16, 16, 2],
        batch: 1,
        trains: false,
        steps: 1,
        models: &[10_000, 100_000, 1_000_000],
    },
    Case {
        name: "small training",
        sizes: &[16, 64, 64, 8],
        batch: 64,
        trains: true,
        steps: 2,
        models: &[1_000, 10_000],
    },
    Case {
        name: "small inference",
        sizes: &[16, 64, 64, 8],
        batch: 1,
        trains: false,
        steps: 1,
        models: &[1_000, 10_000, 100_000],
    },
];

/// Models whose bits are compared: more than one block has, and not a multiple of what a block takes.
const COMPARED: usize = 37;

/// Replays that are measured at once, and how often.
const REPLAYS: usize = 50;
const SAMPLES: usize = 7;

fn session(
    device: &Arc<Device>,
    planned: &Planned,
    batched: bool,
    cache: &Cache,
) -> Result<Session, Box<dyn Error>> {
    let recipe = planned.recipe(&device.properties()?.limits, batched);
    Ok(Session::new(Kernels::new(device, recipe, cache)?))
}

/// Counts the bytes of columns that differ from the CPU's.
fn compare(device: &Arc<Device>, case: &Case, cache: &Cache) -> Result<Value, Box<dyn Error>> {
    let planned = Planned::new(case.sizes, case.batch, case.trains);
    let classes = *case.sizes.last().unwrap_or(&1);
    let start = Population::new(&planned.plan.program, COMPARED, case.steps, classes);
    let mut expected = start.clone();
    for _ in 0..2 {
        expected.run_on_cpu(&planned.plan);
    }
    let mut differing = Vec::new();
    for batched in [false, true] {
        let mut session = session(device, &planned, batched, cache)?;
        let tables = Tables::upload(device, &start)?;
        for _ in 0..2 {
            session.run(&tables.binding(), case.steps)?;
        }
        let mut found = start.clone();
        tables.download(&mut found)?;
        let pairs = found.columns.iter().flatten().zip(expected.columns.iter().flatten());
        let bytes = pairs.flat_map(|(a, b)| a.bytes.iter().zip(&b.bytes));
        differing.push(bytes.filter(|(a, b)| a != b).count());
    }
    let [fused, batched] = [differing[0], differing[1]];
    Ok(
        json!({"case": case.name, "differing_bytes_fused": fused, "differing_bytes_batched": batched}),
    )
}

/// Measures steps of so many models: the least and the median of several samples.
fn measure(
    device: &Arc<Device>,
    case: &Case,
    models: usize,
    cache: &Cache,
) -> Result<Value, Box<dyn Error>> {
    let planned = Planned::new(case.sizes, case.batch, case.trains);
    let classes = *case.sizes.last().unwrap_or(&1);
    let mut session = session(device, &planned, false, cache)?;
    let tables = Tables::upload(
        device,
        &Population::new(&planned.plan.program, models, case.steps, classes),
    )?;
    let binding = tables.binding();
    for _ in 0..5 {
        session.run(&binding, case.steps)?;
    }
    device.synchronize()?;
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let begin = device.record_event()?;
        for _ in 0..REPLAYS {
            session.run(&binding, case.steps)?;
        }
        let milliseconds = device.record_event()?.milliseconds_since(&begin)?;
        samples.push(f64::from(milliseconds) * 1e3 / (REPLAYS * case.steps) as f64);
    }
    samples.sort_by(f64::total_cmp);
    Ok(json!({
        "case": case.name,
        "models": models,
        "steps_a_launch": case.steps,
        "microseconds_a_step_least": samples[0],
        "microseconds_a_step_median": samples[SAMPLES / 2],
        "placement": session.kernels().recipe().placement.to_string(),
        "memory_allocated": device.memory_allocated(),
        "captures": session.captures(),
    }))
}

/// Runs on the CPU alone: that the program works where there is no GPU.
fn on_cpu(case: &Case) -> Value {
    let planned = Planned::new(case.sizes, case.batch, case.trains);
    let classes = *case.sizes.last().unwrap_or(&1);
    let mut numbers = Population::new(&planned.plan.program, COMPARED, case.steps, classes);
    let begin = Instant::now();
    numbers.run_on_cpu(&planned.plan);
    let microseconds = begin.elapsed().as_secs_f64() * 1e6 / case.steps as f64;
    json!({"case": case.name, "models": COMPARED, "cpu_microseconds_a_step": microseconds})
}

fn report(bits_alone: bool) -> Result<Value, Box<dyn Error>> {
    let nvrtc = Nvrtc::find().map(|nvrtc| format!("{:?}", nvrtc.version()));
    let count = match device_count() {
        Ok(0) => Err("there is no device".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    };
    let count = match count {
        Ok(count) => count,
        Err(reason) => {
            let cpu: Vec<_> = CASES.iter().map(on_cpu).collect();
            return Ok(json!({"device": null, "reason": reason, "nvrtc": nvrtc.ok(), "cpu": cpu}));
        }
    };
    let cache = Cache::new(std::env::temp_dir().join("neurarch_gpu_cache"));
    let device = Device::open(0)?;
    let properties = device.properties()?;
    let result = |result: Result<Value, Box<dyn Error>>| {
        result.unwrap_or_else(|error| json!({"error": error.to_string()}))
    };
    let compared: Vec<_> =
        CASES.iter().map(|case| result(compare(&device, case, &cache))).collect();
    let mut measured = Vec::new();
    for case in CASES.iter().filter(|_| !bits_alone) {
        measured.extend(
            case.models.iter().map(|&models| result(measure(&device, case, models, &cache))),
        );
    }
    Ok(json!({
        "device": properties.name,
        "compute_capability": [properties.major, properties.minor],
        "multi_processor_count": properties.multi_processor_count,
        "devices": count,
        "nvrtc": nvrtc?,
        "bits": compared,
        "times": measured,
        "max_memory_allocated": device.max_memory_allocated(),
    }))
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let report = report(has("--bits"))?;
    if has("--json") {
        println!("{report}");
    } else {
        println!("{report:#}");
    }
    let is_wrong = |case: &Value| {
        ["differing_bytes_fused", "differing_bytes_batched"].iter().any(|key| case[key] != 0)
    };
    let wrong = report["bits"].as_array().is_some_and(|cases| cases.iter().any(is_wrong));
    if wrong { Err("bits differ from the CPU's, or a case failed".into()) } else { Ok(()) }
}
