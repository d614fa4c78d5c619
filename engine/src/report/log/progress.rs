//! [`Progress`]: a line that says how far a run has come.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::log::{Distribution, Quantiles};

const TEMPLATE: &str =
    "{wide_bar} {human_pos}/{human_len} model-steps, {per_sec}, {eta} left, {msg}";

/// A line on stderr: the training steps of single models, how many there are in a second, the time left, and the
/// losses. Nothing is drawn where stderr is no terminal, nor by a line that is [`hidden`](Progress::hidden).
///
/// # Example
///
/// ```
/// # use neurarch::report::log::Progress;
/// let mut progress = Progress::hidden(3, 100); // Progress::new(3, 100) draws
/// progress.advance(10, &ndarray::array![0.5_f32, f32::NAN, 0.25]);
/// assert_eq!(progress.model_steps(), 30);
/// assert_eq!(progress.message(), "loss best 0.2500, median 0.3750, 1 NaN");
/// progress.clear();
/// ```
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    models: u64,
    quantiles: Quantiles,
}

impl Progress {
    /// Starts a line for so many training steps of each model.
    pub fn new(models: usize, steps: usize) -> Self {
        Self::on(ProgressDrawTarget::stderr(), models, steps)
    }

    /// Starts a line that is never drawn: for hosts that show progress their own way, or none.
    pub fn hidden(models: usize, steps: usize) -> Self {
        Self::on(ProgressDrawTarget::hidden(), models, steps)
    }

    fn on(target: ProgressDrawTarget, models: usize, steps: usize) -> Self {
        let models = models as u64;
        let all = models.saturating_mul(steps as u64);
        let bar = ProgressBar::with_draw_target(Some(all), target);
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template names known keys");
        bar.set_style(style.progress_chars("━━ "));
        let quantiles = Quantiles::default().levels([0.0, 0.5]).expect("levels from 0 to 1").top(0);
        Progress { bar, models, quantiles }
    }

    /// Moves the line on by some steps of every model, whose losses are now `losses`, `[models]`.
    pub fn advance<'a, T: Copy + Into<f64> + 'a>(
        &mut self,
        steps: usize,
        losses: impl IntoIterator<Item = &'a T>,
    ) {
        let Distribution { nan, quantiles, .. } = self.quantiles.of(losses);
        if let [(_, best), (_, median)] = quantiles[..] {
            let nan = if nan > 0 { format!(", {nan} NaN") } else { String::new() };
            self.bar.set_message(format!("loss best {best:.4}, median {median:.4}{nan}"));
        }
        self.bar.inc(self.models.saturating_mul(steps as u64));
    }

    /// Counts the training steps of single models so far.
    pub fn model_steps(&self) -> u64 {
        self.bar.position()
    }

    /// Estimates how many training steps of single models there are in a second.
    pub fn model_steps_per_second(&self) -> f64 {
        self.bar.per_sec()
    }

    /// Returns what the line says of the losses.
    pub fn message(&self) -> String {
        self.bar.message()
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
