//! [`ReduceLROnPlateau`]: a scheduler that watches a metric.

use serde::{Deserialize, Serialize};

use super::{LRScheduler, ParamGroup, Progress, SchedulerError, refuse};

/// Which metrics are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Small ones, such as losses.
    #[default]
    Min,
    /// Great ones, such as accuracies.
    Max,
}

/// What the threshold of [`ReduceLROnPlateau`] is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThresholdMode {
    /// Of the best metric: it has to be better by that fraction.
    #[default]
    Rel,
    /// Of nothing: it has to be better by so much.
    Abs,
}

/// Multiplies the rate by `factor` when a metric has not become better for more than `patience` steps.
///
/// Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReduceLROnPlateau {
    /// Which metrics are better.
    pub mode: Mode,
    /// The factor, less than 1.
    pub factor: f64,
    /// How many steps without a better metric are let pass.
    pub patience: usize,
    /// How much better a metric has to be.
    pub threshold: f64,
    /// What `threshold` is a part of.
    pub threshold_mode: ThresholdMode,
    /// How many steps after a change no step counts as bad.
    pub cooldown: usize,
    /// The least rate.
    pub min_lr: f64,
    /// A change of at most this much is not made.
    pub eps: f64,
    /// What was seen so far.
    pub seen: Seen,
}

/// What a [`ReduceLROnPlateau`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    best: Option<f64>,
    bad: usize,
    cooling: usize,
}

impl Default for ReduceLROnPlateau {
    fn default() -> Self {
        ReduceLROnPlateau {
            mode: Mode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: 0.0,
            eps: 1e-8,
            seen: Seen::default(),
        }
    }
}

impl ReduceLROnPlateau {
    /// Returns the best metric so far; nothing is worse than having seen none.
    fn best(&self) -> f64 {
        let worst = if self.mode == Mode::Min { f64::INFINITY } else { f64::NEG_INFINITY };
        self.seen.best.unwrap_or(worst)
    }

    fn is_better(&self, metric: f64) -> bool {
        let best = self.best();
        match (self.mode, self.threshold_mode) {
            (Mode::Min, ThresholdMode::Rel) => metric < best * (1.0 - self.threshold),
            (Mode::Min, ThresholdMode::Abs) => metric < best - self.threshold,
            (Mode::Max, ThresholdMode::Rel) => metric > best * (1.0 + self.threshold),
            (Mode::Max, ThresholdMode::Abs) => metric > best + self.threshold,
        }
    }
}

impl LRScheduler for ReduceLROnPlateau {
    fn attach(&mut self, _: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        if self.factor < 1.0 { Ok(()) } else { refuse("Factor should be < 1.0.") }
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        if at.is_initial { Ok(group.lr()) } else { Err(SchedulerError::NoMetric) }
    }

    fn takes_metrics(&self) -> bool {
        true
    }

    fn observe(&mut self, metric: f64, progress: &mut Progress, group: &mut ParamGroup<'_>) {
        progress.last_epoch += 1.0;
        if self.is_better(metric) {
            self.seen = Seen { best: Some(metric), bad: 0, ..self.seen };
        } else {
            self.seen.bad += 1;
        }
        if self.seen.cooling > 0 {
            self.seen = Seen { cooling: self.seen.cooling - 1, bad: 0, ..self.seen };
        }
        if self.seen.bad > self.patience {
            self.seen = Seen { cooling: self.cooldown, bad: 0, ..self.seen };
            let lr = (group.lr() * self.factor).max(self.min_lr);
            if group.lr() - lr > self.eps {
                group.set_lr(lr);
            }
        }
    }

    fn state(&self) -> Vec<(&'static str, f64)> {
        let Seen { bad, cooling, .. } = self.seen;
        vec![
            ("best", self.best()),
            ("num_bad_epochs", bad as f64),
            ("cooldown_counter", cooling as f64),
        ]
    }

    fn set_state(&mut self, name: &str, number: f64) {
        match name {
            "best" => self.seen.best = Some(number),
            "num_bad_epochs" => self.seen.bad = number as usize,
            "cooldown_counter" => self.seen.cooling = number as usize,
            _ => {}
        }
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}
