//! Profiles: how long each op of a step takes, by op and by module, as a table and as a trace.
//!
//! # Example
//!
//! ```
//! use ndarray::{Array2, Array3};
//! use neurarch::prelude::*;
//! use neurarch::report::profile::{GroupBy, SortBy, profile};
//!
//! let mut world = World::new();
//! let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
//! let mut brains = world.spawn_population(&brain, 100, Seed(7))?;
//! brains.insert(Adam::default())?;
//! let brains = brains.id();
//! let (x, y) = (Array3::<f32>::ones((100, 8, 4)), Array2::<i64>::ones((100, 8)));
//! let (losses, profile) = profile(&mut world, |world| {
//!     world.population_mut(brains)?.train_step(&x, &y, &CrossEntropyLoss::default())
//! });
//! assert_eq!(losses?.len(), 100);
//! let table = profile.key_averages(GroupBy::Module).table(SortBy::CpuTimeTotal, 10);
//! assert!(table.contains("0 (Linear)"), "{table}");
//!
//! let path = std::env::temp_dir().join(format!("neurarch-trace-{}.json", std::process::id()));
//! profile.export_chrome_trace(&path)?; // for https://ui.perfetto.dev or chrome://tracing
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bevy_ecs::prelude::*;
use serde_json::json;

#[doc(inline)]
pub use crate::kernels::plan::StepInfo;
use crate::systems::execute::profile::record;
#[doc(inline)]
pub use crate::systems::execute::profile::{OpEvent, Recorded};

/// Does some work, and finds out how long each op of each plan takes.
///
/// The bits are the same. A training step of tiny models takes longer meanwhile; without a profile no clock is read.
/// Tiles that run within a budget are in it, and so are passes that run op by op, since hooks change what they see or a
/// `forward` reads numbers: each op on all models of the pass. Mapped models, which are in no world, are not in it, nor is
/// what lies between the ops.
///
/// Source: `torch.profiler.profile`.
pub fn profile<R>(world: &mut World, work: impl FnOnce(&mut World) -> R) -> (R, Profile) {
    let (made, recorded) = record(world, work);
    (made, Profile { recorded })
}

/// How long the ops of some work took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Each op on each tile of models.
    pub recorded: Recorded,
}

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// Ops: all matrix products are one row.
    Op,
    /// Modules by their paths, with their types if they have ops of their own; `cpu_time_total` is with what is below them.
    /// Loss and what else no module calls is `(outside)`.
    Module,
    /// Ops of each module apart.
    OpAndModule,
}

/// By what the rows of a table are sorted, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// The time without what is below: `self_cpu_time_total`.
    SelfCpuTimeTotal,
    /// The time with what is below: `cpu_time_total`.
    CpuTimeTotal,
    /// How often it ran.
    Count,
    /// The name, in the order of the alphabet.
    Key,
}

/// A row: what runs of one op or module took together, on all threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyAverage {
    /// The op or the module.
    pub key: String,
    /// The time of its own.
    pub self_cpu_time_total: Duration,
    /// The time with modules below.
    pub cpu_time_total: Duration,
    /// How often its own ops ran, each time on a tile of models.
    pub count: usize,
    /// How many models these tiles had together.
    pub models: usize,
}

/// Rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyAverages {
    /// In the order of their keys.
    pub rows: Vec<KeyAverage>,
    /// The time of all ops, on all threads together.
    pub self_cpu_time_total: Duration,
}

/// What no module calls.
const OUTSIDE: &str = "(outside)";

impl Profile {
    /// Sums up the runs of each op, or of each module's ops.
    ///
    /// Source: `torch.profiler.profile.key_averages`.
    pub fn key_averages(&self, group_by: GroupBy) -> KeyAverages {
        let mut rows: BTreeMap<String, KeyAverage> = BTreeMap::new();
        let mut all = Duration::ZERO;
        let modules = self.modules();
        for event in &self.recorded.events {
            let info = &self.recorded.ops[event.op];
            let module = module_of(info);
            let named = |path: Option<&str>| match path {
                Some(path) => named(path, modules.get(path).copied().unwrap_or_default()),
                None => OUTSIDE.to_owned(),
            };
            let key = match group_by {
                GroupBy::Op => info.op.to_owned(),
                GroupBy::Module => named(module),
                GroupBy::OpAndModule => format!("{} of {}", info.op, named(module)),
            };
            let row = rows.entry(key).or_default();
            row.self_cpu_time_total += event.duration;
            row.cpu_time_total += event.duration;
            row.count += 1;
            row.models += event.models;
            all += event.duration;
            if let (GroupBy::Module, Some(path)) = (group_by, module) {
                for above in above(path) {
                    rows.entry(named(Some(above))).or_default().cpu_time_total += event.duration;
                }
            }
        }
        let rows = rows.into_iter().map(|(key, row)| KeyAverage { key, ..row }).collect();
        KeyAverages { rows, self_cpu_time_total: all }
    }

    /// Writes a trace for Perfetto and `chrome://tracing`: a track for each thread, with each op on each tile of models.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    ///
    /// Source: `torch.profiler.profile.export_chrome_trace`.
    pub fn export_chrome_trace(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        let path = path.as_ref();
        let written = File::create(path).map(BufWriter::new).and_then(|mut file| {
            self.write_chrome_trace(&mut file)?;
            file.flush()
        });
        written.map_err(|source| ExportError { path: path.to_owned(), source })
    }

    /// Writes the text of [`export_chrome_trace`](Profile::export_chrome_trace).
    ///
    /// # Errors
    ///
    /// As `to`.
    pub fn write_chrome_trace(&self, to: &mut impl Write) -> io::Result<()> {
        let Recorded { ops, events, threads, .. } = &self.recorded;
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
        let name = |name: &str, thread: usize, of: String| json!({"ph": "M", "name": name, "pid": 0, "tid": thread, "args": {"name": of}});
        write!(to, "{{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n{}", {
            name("process_name", 0, "neurarch".to_owned())
        })?;
        for thread in 0..*threads {
            write!(to, ",\n{}", name("thread_name", thread, format!("thread {thread}")))?;
        }
        for event in events {
            let StepInfo { op, path, module, text } = &ops[event.op];
            let event = json!({
                "ph": "X",
                "cat": "cpu_op",
                "name": op,
                "pid": 0,
                "tid": event.thread,
                "ts": microseconds(event.start),
                "dur": microseconds(event.duration),
                "args": {"module": path, "type": module, "models": event.models, "step": text},
            });
            write!(to, ",\n{event}")?;
        }
        writeln!(to, "\n]}}")
    }

    /// Lists the types of modules by their paths, as far as ops say so.
    fn modules(&self) -> BTreeMap<&str, &'static str> {
        let known = self.recorded.ops.iter().filter(|info| !info.module.is_empty());
        known.map(|info| (info.path.as_str(), info.module)).collect()
    }
}

/// Returns the path of the module that an op is of; none if it is of no module.
fn module_of(info: &StepInfo) -> Option<&str> {
    (!info.path.is_empty() || !info.module.is_empty()).then_some(&info.path)
}

/// Lists the paths above a path, up to the root's, which is empty.
fn above(path: &str) -> impl Iterator<Item = &str> {
    let dots = path.rmatch_indices('.').map(|(dot, _)| &path[..dot]);
    dots.chain((!path.is_empty()).then_some(""))
}

/// Names a module by its path and type: `0 (Linear)`.
fn named(path: &str, module: &str) -> String {
    match (path, module) {
        ("", "") => "(root)".to_owned(),
        ("", module) => format!("(root) ({module})"),
        (path, "") => path.to_owned(),
        (path, module) => format!("{path} ({module})"),
    }
}

impl KeyAverages {
    /// Writes the rows as a table: of each its share of the time, and how often it ran. There are at most `row_limit` of
    /// them.
    ///
    /// Source: `torch.autograd.profiler_util.EventList.table`.
    pub fn table(&self, sort_by: SortBy, row_limit: usize) -> String {
        let mut rows: Vec<_> = self.rows.iter().collect();
        match sort_by {
            SortBy::SelfCpuTimeTotal => rows.sort_by_key(|row| Reverse(row.self_cpu_time_total)),
            SortBy::CpuTimeTotal => rows.sort_by_key(|row| Reverse(row.cpu_time_total)),
            SortBy::Count => rows.sort_by_key(|row| Reverse(row.count)),
            SortBy::Key => {}
        }
        rows.truncate(row_limit);
        let share = |time: Duration| {
            let all = self.self_cpu_time_total.as_secs_f64();
            format!("{:.2}%", if all > 0.0 { 100.0 * time.as_secs_f64() / all } else { 0.0 })
        };
        let header = [
            "Name",
            "Self CPU %",
            "Self CPU",
            "CPU total %",
            "CPU total",
            "CPU time avg",
            "# of Calls",
            "# of Models",
        ];
        let cells = rows.iter().map(|row| {
            let average = row.cpu_time_total.checked_div(row.count as u32).unwrap_or_default();
            [
                row.key.clone(),
                share(row.self_cpu_time_total),
                time(row.self_cpu_time_total),
                share(row.cpu_time_total),
                time(row.cpu_time_total),
                time(average),
                row.count.to_string(),
                row.models.to_string(),
            ]
        });
        let lines: Vec<_> = [header.map(str::to_owned)].into_iter().chain(cells).collect();
        let widths: [usize; 8] = core::array::from_fn(|column| {
            lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0)
        });
        let rule = widths.map(|width| "-".repeat(width)).join("  ");
        let mut text = format!("{rule}\n");
        for (number, cells) in lines.iter().enumerate() {
            let padded: Vec<_> =
                cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            text.extend([&padded.join("  "), "\n"]);
            if number == 0 {
                text.extend([&rule, "\n"]);
            }
        }
        let _ = write!(text, "{rule}\nSelf CPU time total: {}\n", time(self.self_cpu_time_total));
        text
    }
}

/// Writes a time with its unit, as torch does.
fn time(time: Duration) -> String {
    let microseconds = time.as_nanos() as f64 / 1e3;
    match microseconds {
        us if us >= 1e6 => format!("{:.3}s", us / 1e6),
        us if us >= 1e3 => format!("{:.3}ms", us / 1e3),
        us => format!("{us:.3}us"),
    }
}

/// A trace could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", .path.display())]
pub struct ExportError {
    path: PathBuf,
    source: io::Error,
}
