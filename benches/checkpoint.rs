//! Checkpoints beside plain reads and writes of as many bytes: `cargo bench --bench checkpoint -- --json`.
//!
//! Each side runs in turns with the other, and the best of several runs counts: files are warm in the page cache.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark panics, and prints what it measured"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::Checkpoint;

#[derive(Parser)]
struct Options {
    /// Prints lines of JSON.
    #[arg(long)]
    json: bool,
    /// Bytes of parameters of the large population, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// How often each side runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where files are written.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

const MIB: usize = 1 << 20;

/// What is measured: a name, its time, and that of the other side.
struct Line<'a> {
    case: &'a str,
    what: &'a str,
    own: Duration,
    plain: Duration,
}

impl Line<'_> {
    fn print(&self, json: bool) {
        let Line { case, what, own, plain } = self;
        let (own, plain) = (own.as_secs_f64() * 1e3, plain.as_secs_f64() * 1e3);
        let ratio = own / plain;
        match json {
            true => println!(
                "{{\"case\": \"{case}\", \"what\": \"{what}\", \"ms\": {own:.3}, \"plain_ms\": {plain:.3}, \
                 \"ratio\": {ratio:.3}}}"
            ),
            false => println!(
                "{case:8} {what:24} {own:10.2} ms, plain {plain:10.2} ms, {ratio:6.2} times"
            ),
        }
    }
}

fn time<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Runs both sides in turns; gives the best time of each.
fn best(
    rounds: usize,
    mut own: impl FnMut() -> Duration,
    mut plain: impl FnMut() -> Duration,
) -> [Duration; 2] {
    let rounds = (0..rounds).map(|_| [own(), plain()]);
    rounds.reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1])]).unwrap()
}

/// Writes as many bytes as a file has, MiB by MiB, and waits for the disk.
fn write(path: &Path, bytes: usize) {
    let block = vec![7_u8; MIB];
    let mut file = File::create(path).unwrap();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(MIB);
        file.write_all(&block[..now]).unwrap();
        left -= now;
    }
    file.sync_all().unwrap();
}

/// Reads a file, MiB by MiB.
fn read(path: &Path) {
    let mut block = vec![0_u8; MIB];
    let mut file = File::open(path).unwrap();
    while file.read(&mut block).unwrap() > 0 {
        black_box(&block);
    }
}

/// The most memory that the process had so far, in MiB; `None` where that is not told.
fn peak_mib() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? / 1024)
}

fn measure(options: &Options, case: &str, brain: &Sequential, models: usize, learns: bool) {
    let file = |of: &str| options.folder.join(format!("neurarch-{}-{of}", std::process::id()));
    let [path, plain] = [file("checkpoint"), file("plain")];
    let line =
        |what, [own, plain]: [Duration; 2]| Line { case, what, own, plain }.print(options.json);
    let rounds = options.rounds;
    {
        let mut world = World::new();
        let mut brains = world.spawn_population(brain, models, Seed(7)).unwrap();
        if learns {
            brains.insert_with(|i| Adam { lr: 1e-4 * (1 + i) as f64, ..Adam::default() }).unwrap();
            let x = ndarray::Array2::<f32>::ones((32, 4));
            let y = ndarray::Array1::<i64>::zeros(32);
            let loss = CrossEntropyLoss::default();
            brains.train_step(Input::shared(x.view()), Input::shared(y.view()), &loss).unwrap();
        }
        let brains = brains.id();
        checkpoint::save(&mut world, &[brains], &path).unwrap();
        let bytes = std::fs::metadata(&path).unwrap().len() as usize;
        let saving = best(
            rounds,
            || time(|| checkpoint::save(&mut world, &[brains], &path).unwrap()).0,
            || time(|| write(&plain, bytes)).0,
        );
        line("save", saving);
    }
    write(&plain, std::fs::metadata(&path).unwrap().len() as usize);
    let x = ndarray::Array2::<f32>::ones((1, 4));
    let before = peak_mib();
    let one = best(
        rounds,
        || {
            time(|| {
                let checkpoint = Checkpoint::open(&path).unwrap();
                black_box(
                    checkpoint.forward_some(0, &[models / 2], Input::shared(x.view())).unwrap(),
                );
            })
            .0
        },
        || time(|| read(&plain)).0,
    );
    line("open and forward of one", one);
    let all = best(
        rounds,
        || {
            time(|| {
                let checkpoint = Checkpoint::open(&path).unwrap();
                black_box(checkpoint.forward(Input::shared(x.view())).unwrap());
            })
            .0
        },
        || time(|| read(&plain)).0,
    );
    line("open and forward of all", all);
    if let (Some(before), Some(after), false) = (before, peak_mib(), options.json) {
        println!(
            "{case:8} peak of the process {before} MiB before, {after} MiB after mapped forward passes"
        );
    }
    let restoring = best(
        rounds,
        || {
            let mut world = World::new();
            let checkpoint = Checkpoint::open(&path).unwrap();
            let (took, restored) = time(|| checkpoint.restore(&mut world).unwrap());
            black_box(restored);
            took
        },
        || time(|| read(&plain)).0,
    );
    line("restore", restoring);
    [path, plain].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

fn main() {
    let options = Options::parse();
    let tiny = Sequential::new()
        .push(Linear::new(4, 16))
        .push(Tanh)
        .push(Linear::new(16, 16))
        .push(Tanh)
        .push(Linear::new(16, 2));
    measure(&options, "tiny", &tiny, 10_000, true);
    let large = Sequential::new()
        .push(Linear::new(4, 128))
        .push(Tanh)
        .push(Linear::new(128, 128))
        .push(Tanh)
        .push(Linear::new(128, 64));
    // 101 KiB a model.
    measure(&options, "large", &large, options.mib * MIB / 103_168, false);
}
