//! The logs of a sweep, for TensorBoard, as JSON lines and as CSV: quantiles of all models, and the best one.

use std::fs;

use ndarray::{ArrayView2, Axis};
use neurarch::report::histogram::Histogram;
use neurarch::report::log::{
    CsvWriter, JsonLinesWriter, LogError, Logger, Quantiles, SummaryWriter,
};

use super::results::{Outcome, Results};
use super::settings::Settings;

/// Losses are logged at every so many steps.
const EVERY: usize = 50;

/// Writers, if there is a folder for them.
#[derive(Default)]
pub struct Log {
    writers: Vec<Box<dyn Logger>>,
    losses: Quantiles,
    /// Training steps so far.
    steps: usize,
}

impl Log {
    /// Makes the files, so that a folder that cannot be written is found out before hours of training.
    pub fn new(settings: &Settings) -> Result<Self, LogError> {
        let Some(folder) = &settings.log else { return Ok(Log::default()) };
        fs::create_dir_all(folder)
            .map_err(|source| LogError::Write { path: folder.clone(), source })?;
        let losses = Quantiles::default();
        let columns = ["train/loss", "validation/loss", "validation/accuracy"];
        let mut columns = columns.map(|tag| losses.columns(tag)).concat();
        columns.push("settings".to_owned());
        let mut writers: Vec<Box<dyn Logger>> = vec![
            Box::new(SummaryWriter::new(folder)?),
            Box::new(JsonLinesWriter::open(folder.join("log.jsonl"))?),
            Box::new(CsvWriter::with_columns(folder.join("log.csv"), columns)?),
        ];
        writers.add_text("settings", &format!("{settings:?}"), 0)?;
        Ok(Log { writers, losses, steps: 0 })
    }

    /// Logs some steps' losses, `[models, steps]`: those of every fiftieth step, however many a visit has.
    pub fn train(&mut self, losses: ArrayView2<'_, f32>) -> Result<(), LogError> {
        let Log { writers, losses: quantiles, steps } = self;
        for losses in losses.axis_iter(Axis(1)) {
            if steps.is_multiple_of(EVERY) && !writers.is_empty() {
                writers.add_models("train/loss", &quantiles.of(losses), *steps as u64)?;
            }
            *steps += 1;
        }
        Ok(())
    }

    /// Logs what came of it.
    pub fn validation(&mut self, results: &Results) -> Result<(), LogError> {
        let Log { writers, losses, steps } = self;
        let step = *steps as u64;
        let all = |of: fn(&Outcome) -> f64| results.outcomes.iter().map(of).collect::<Vec<_>>();
        let (loss, accuracy) = (all(|of| of.validation_loss), all(|of| of.accuracy));
        writers.add_models("validation/loss", &losses.of(&loss), step)?;
        let mut accuracies = Quantiles::default().largest(true);
        writers.add_models("validation/accuracy", &accuracies.of(&accuracy), step)?;
        writers.add_histogram(
            "validation/accuracies",
            &Histogram::widening("", &accuracy),
            step,
        )?;
        writers.flush()
    }
}
