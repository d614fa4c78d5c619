//! Logs of a run: one [`Logger`] trait, with writers for TensorBoard, JSON lines and CSV, and a progress line.
//!
//! A population has a number for each of its models. [`Quantiles`] makes a few of them that say how all models do, so that
//! ten thousand models are one run in TensorBoard, and not ten thousand.
//!
//! # Example
//!
//! ```
//! use ndarray::{Array2, Array3};
//! use neurarch::prelude::*;
//! use neurarch::report::log::{CsvWriter, JsonLinesWriter, Logger, Quantiles, SummaryWriter};
//!
//! # let folder = std::env::temp_dir().join(format!("neurarch-log-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let mut quantiles = Quantiles::default();
//! let mut log: Vec<Box<dyn Logger>> = vec![
//!     Box::new(SummaryWriter::new(&folder)?),
//!     Box::new(JsonLinesWriter::open(folder.join("log.jsonl"))?),
//!     Box::new(CsvWriter::create(folder.join("log.csv"))?),
//! ];
//!
//! let mut world = World::new();
//! let mut brains = world.spawn_population(&Linear::new(4, 2), 100, Seed(7))?;
//! brains.insert(SGD { lr: 0.1, ..SGD::default() })?;
//! let (x, y) = (Array3::<f32>::ones((100, 8, 4)), Array2::<i64>::ones((100, 8)));
//! for step in 0..3 {
//!     let losses = brains.train_step(&x, &y, &CrossEntropyLoss::default())?; // [100]
//!     log.add_models("loss", &quantiles.of(&losses), step)?;
//!     log.add_scalar("lr", 0.1, step)?;
//! }
//! log.flush()?;
//! assert_eq!(std::fs::read_to_string(folder.join("log.csv"))?.lines().count(), 4);
//! # drop(log);
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

mod csv;
mod file;
mod json;
mod messages;
mod progress;
mod quantiles;
mod tensorboard;

use crate::report::histogram::Histogram;
pub use csv::CsvWriter;
pub use json::JsonLinesWriter;
pub use progress::Progress;
pub use quantiles::{Distribution, Quantiles};
pub use tensorboard::SummaryWriter;

/// Writes down what happens in a run.
///
/// A `Vec` of loggers is a logger, too: each gets every entry, also if another one fails.
///
/// Source: `torch.utils.tensorboard.SummaryWriter`.
pub trait Logger {
    /// Writes an entry down. It may stay in memory until [`flush`](Logger::flush).
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn log(&mut self, entry: &Entry<'_>) -> Result<(), LogError>;

    /// Writes everything to the file.
    ///
    /// # Errors
    ///
    /// If it cannot be written. What is left is written by the next flush.
    fn flush(&mut self) -> Result<(), LogError>;

    /// Logs a number.
    ///
    /// # Errors
    ///
    /// As [`log`](Logger::log).
    fn add_scalar(&mut self, tag: &str, scalar_value: f64, step: u64) -> Result<(), LogError> {
        self.log(&Entry::now(tag, step, Value::Scalar(scalar_value)))
    }

    /// Logs a number of each model: a few quantiles, and the best models.
    ///
    /// # Errors
    ///
    /// As [`log`](Logger::log).
    fn add_models(&mut self, tag: &str, numbers: &Distribution, step: u64) -> Result<(), LogError> {
        self.log(&Entry::now(tag, step, Value::Models(numbers)))
    }

    /// Logs a histogram.
    ///
    /// # Errors
    ///
    /// As [`log`](Logger::log).
    fn add_histogram(
        &mut self,
        tag: &str,
        histogram: &Histogram,
        step: u64,
    ) -> Result<(), LogError> {
        self.log(&Entry::now(tag, step, Value::Histogram(histogram)))
    }

    /// Logs a text. TensorBoard reads it as Markdown.
    ///
    /// # Errors
    ///
    /// As [`log`](Logger::log).
    fn add_text(&mut self, tag: &str, text: &str, step: u64) -> Result<(), LogError> {
        self.log(&Entry::now(tag, step, Value::Text(text)))
    }
}

impl<L: Logger + ?Sized> Logger for Box<L> {
    fn log(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        (**self).log(entry)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        (**self).flush()
    }
}

impl<L: Logger> Logger for Vec<L> {
    fn log(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        self.iter_mut().map(|logger| logger.log(entry)).fold(Ok(()), Result::and)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.iter_mut().map(Logger::flush).fold(Ok(()), Result::and)
    }
}

/// What is written down at one time, under one name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// The name. TensorBoard puts names together that begin alike, up to a slash.
    pub tag: &'a str,
    /// How many training steps there were.
    pub step: u64,
    /// The time in seconds since the beginning of 1970.
    pub wall_time: f64,
    /// What there is to say.
    pub value: Value<'a>,
}

/// The value of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number.
    Scalar(f64),
    /// A number of each model.
    Models(&'a Distribution),
    /// How many numbers lie where.
    Histogram(&'a Histogram),
    /// A text.
    Text(&'a str),
}

impl<'a> Entry<'a> {
    /// Creates an entry of this time.
    pub fn now(tag: &'a str, step: u64, value: Value<'a>) -> Self {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Entry { tag, step, wall_time: wall_time.as_secs_f64(), value }
    }
}

/// Why something could not be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file could not be made, or not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A CSV file has no such column; nothing of the entry is in the row.
    #[error(
        "{}: expected one of the columns of the header ({header}), got {column}: name all columns by CsvWriter::with_columns",
        .path.display()
    )]
    NoColumn {
        /// The file's path.
        path: PathBuf,
        /// The columns that it has.
        header: String,
        /// The column that it has not.
        column: String,
    },
    /// A level of a quantile lies outside of 0 to 1; torch's words.
    #[error("quantile() q values must be in the range [0, 1], got {given}")]
    Level {
        /// The level.
        given: f64,
    },
}
