//! The progress bar. It is drawn on stderr, and only where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::results::{median, nan_last};

const TEMPLATE: &str = "{wide_bar} {human_pos}/{human_len} model-steps, {eta} left, {msg}";

/// How far a sweep has come, in training steps of single models.
pub struct Progress {
    bar: ProgressBar,
    models: u64,
}

impl Progress {
    /// Starts a bar for all steps of all models.
    pub fn new(models: usize, epochs: usize, steps_per_epoch: usize) -> Self {
        let (models, steps) =
            (models as u64, (epochs as u64).saturating_mul(steps_per_epoch as u64));
        let bar = ProgressBar::new(models.saturating_mul(steps));
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template names known keys");
        bar.set_style(style.progress_chars("━━ "));
        Progress { bar, models }
    }

    /// Moves the bar by some steps of every model, whose losses are now `losses`.
    pub fn advance(&self, steps: usize, losses: impl Iterator<Item = f64> + Clone) {
        let best = losses.clone().min_by(|a, b| nan_last(*a, *b)).unwrap_or(f64::NAN);
        self.bar.set_message(format!("loss best {best:.4}, median {:.4}", median(losses)));
        self.bar.inc(self.models.saturating_mul(steps as u64));
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
