//! [`SWALR`]: a scheduler towards the rate of weight averaging.

use core::f64::consts::PI;

use neurarch_kernels::arithmetic::elementary;
use serde::{Deserialize, Serialize};

use super::{Anneal, LRScheduler, ParamGroup, Progress, SchedulerError};

/// Goes from the rate that there is to `swa_lr` in `anneal_epochs` steps, and stays there.
///
/// Source: `torch.optim.swa_utils.SWALR`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SWALR {
    /// The last rate.
    pub swa_lr: f64,
    /// In how many steps.
    pub anneal_epochs: usize,
    /// The line between the rates.
    pub anneal_strategy: Anneal,
}

impl SWALR {
    /// Creates one with torch's defaults: 10 steps along half a cosine.
    pub fn new(swa_lr: f64) -> Self {
        SWALR { swa_lr, anneal_epochs: 10, anneal_strategy: Anneal::Cos }
    }

    /// Returns the part that `swa_lr` is of the rate at a step.
    fn part(&self, step: f64) -> f64 {
        let share = (step / self.anneal_epochs.max(1) as f64).clamp(0.0, 1.0);
        match self.anneal_strategy {
            Anneal::Cos => (1.0 - elementary::cos(PI * share)) / 2.0,
            Anneal::Linear => share,
        }
    }
}

impl LRScheduler for SWALR {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let step = if self.anneal_epochs == 0 { at.last_epoch.max(1.0) } else { at.last_epoch };
        let (before, part) = (self.part(step - 1.0), self.part(step));
        let first = match before == 1.0 {
            true => self.swa_lr,
            false => (group.lr() - before * self.swa_lr) / (1.0 - before),
        };
        Ok(self.swa_lr * part + first * (1.0 - part))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}
