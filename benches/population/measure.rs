//! Taking times and telling them.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Args;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// On what a benchmark runs, and how it tells what it measured.
#[derive(Args)]
pub struct Output {
    /// Print each measurement as a line of JSON
    #[arg(long)]
    json: bool,
    /// Threads to run on [default: one for each core]
    #[arg(long)]
    threads: Option<usize>,
    /// What Cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Output {
    /// Makes the threads.
    pub fn pool(&self) -> Result<ThreadPool, ThreadPoolBuildError> {
        // To rayon, 0 means one for each core.
        ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0)).build()
    }

    /// Prints a measurement.
    pub fn show(&self, measurement: &Measurement) {
        match self.json {
            true => println!("{}", measurement.json()),
            false => println!("{measurement}"),
        }
    }
}

/// When to stop measuring.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Steps before the first that counts.
    pub warm_ups: usize,
    /// Steps to measure at least.
    pub least: usize,
    /// Steps to measure at most.
    pub most: usize,
    /// How long to go on between the two.
    pub time: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        Rule { warm_ups: 3, least: 5, most: 400, time: Duration::from_secs(6) }
    }
}

/// How long the steps took, in seconds.
#[derive(Clone, Copy)]
pub struct Times {
    pub median: f64,
    pub best: f64,
}

impl Rule {
    /// Times a step until enough is known.
    pub fn measure<E>(self, mut step: impl FnMut() -> Result<(), E>) -> Result<Times, E> {
        self.measure_part(|| {
            let start = Instant::now();
            step()?;
            Ok(start.elapsed())
        })
    }

    /// Does a step until enough is known; it gives the time of the part that counts.
    pub fn measure_part<E>(
        self,
        mut step: impl FnMut() -> Result<Duration, E>,
    ) -> Result<Times, E> {
        for _ in 0..self.warm_ups {
            step()?;
        }
        let mut times = Vec::with_capacity(self.most);
        let begin = Instant::now();
        while times.len() < self.least || (times.len() < self.most && begin.elapsed() < self.time) {
            times.push(step()?.as_secs_f64());
        }
        Ok(Times::of(times))
    }

    /// Times a step of two subjects in turn, so that both meet the machine in the same state.
    pub fn compare<S, E>(
        self,
        subjects: &mut [S; 2],
        mut step: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<[Times; 2], E> {
        let mut times = [Vec::with_capacity(self.most), Vec::with_capacity(self.most)];
        let begin = Instant::now();
        let mut warm_ups = self.warm_ups;
        while times[0].len() < self.least
            || (times[0].len() < self.most && begin.elapsed() < self.time)
        {
            for (subject, times) in subjects.iter_mut().zip(&mut times) {
                let start = Instant::now();
                step(subject)?;
                let time = start.elapsed().as_secs_f64();
                if warm_ups == 0 {
                    times.push(time);
                }
            }
            warm_ups = warm_ups.saturating_sub(1);
        }
        Ok(times.map(Times::of))
    }
}

impl Times {
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let (low, high) = (times[(times.len() - 1) / 2], times[times.len() / 2]);
        Times { median: f64::midpoint(low, high), best: times[0] }
    }

    /// Gives the share of one of so many parts.
    pub fn shared_by(self, parts: usize) -> Self {
        let parts = parts as f64;
        Times { median: self.median / parts, best: self.best / parts }
    }
}

/// Times reading that many bytes once on all threads: nothing that visits each weight can be faster, but for
/// what stays in the caches.
///
/// Each thread reads [`STREAMS`] places in turn: the prefetchers of a CPU begin anew on each page of memory, so one
/// stream alone leaves some of its speed unused.
pub fn read_plainly(n_bytes: usize, rule: Rule) -> Times {
    let words: Vec<u64> = (0..n_bytes.div_ceil(8) as u64).collect();
    let share = words.len().div_ceil(rayon::current_num_threads()).max(1);
    let read = || {
        let sum: u64 = words.par_chunks(share).map(sum).reduce(|| 0, u64::wrapping_add);
        black_box(sum);
        Ok::<_, std::convert::Infallible>(())
    };
    match rule.measure(read) {
        Ok(times) => times,
    }
}

/// How many places a thread reads in turn.
const STREAMS: usize = 4;

/// Words that it reads at one place at a time.
const BLOCK: usize = 128;

/// Times copying that many bytes from one place to another on all threads.
pub fn copy_plainly(n_bytes: usize, rule: Rule) -> Times {
    let from: Vec<u8> = (0..n_bytes).map(|byte| byte as u8).collect();
    let mut to = vec![0; n_bytes];
    let share = n_bytes.div_ceil(4 * rayon::current_num_threads()).max(1);
    let copy = || {
        let parts = to.par_chunks_mut(share).zip(from.par_chunks(share));
        parts.for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&mut to);
        Ok::<_, std::convert::Infallible>(())
    };
    match rule.measure(copy) {
        Ok(times) => times,
    }
}

/// Adds up, sixteen words at a time, so that the loads and not the additions take the time.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; 16];
    let mut add = |words: &[u64]| {
        let (blocks, rest) = words.as_chunks::<16>();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block) {
                *lane = lane.wrapping_add(*word);
            }
        }
        lanes[0] = rest.iter().fold(lanes[0], |sum, &word| sum.wrapping_add(word));
    };
    let (streams, rest) = words.split_at(words.len() / STREAMS / BLOCK * BLOCK * STREAMS);
    let length = streams.len() / STREAMS;
    for start in (0..length).step_by(BLOCK) {
        (0..STREAMS).for_each(|stream| add(&streams[stream * length + start..][..BLOCK]));
    }
    add(rest);
    lanes.iter().fold(0, |sum, &word| sum.wrapping_add(word))
}

/// Gives the memory of this process that is in RAM, in bytes; `None` where the system does not say.
pub fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// What was found out, in numbers with their names.
pub struct Measurement {
    pub case: &'static str,
    pub job: &'static str,
    pub numbers: Vec<Number>,
}

/// One number: its key in JSON, its unit in words.
pub struct Number {
    pub key: &'static str,
    pub words: &'static str,
    pub value: f64,
}

impl Measurement {
    /// Writes one line of JSON.
    pub fn json(&self) -> String {
        let Measurement { case, job, numbers } = self;
        let mut line = format!(r#"{{"case": "{case}", "job": "{job}", "engine": "neurarch""#);
        for number in numbers {
            line += &format!(r#", "{}": {number}"#, number.key);
        }
        line + "}"
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}{:<7}", self.case, self.job)?;
        let numbers: Vec<_> = self.numbers.iter().map(|n| format!("{n} {}", n.words)).collect();
        f.write_str(&numbers.join(", "))
    }
}

/// As many digits as mean something.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.value.abs() < 1_000.0 { 2 } else { 0 };
        write!(f, "{:.digits$}", self.value)
    }
}
