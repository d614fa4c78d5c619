//! Schedulers that multiply the rate by a factor now and then.

use neurarch_kernels::arithmetic::elementary;
use serde::{Deserialize, Serialize};

use super::{LRScheduler, ParamGroup, Progress, SchedulerError, refuse};

/// Multiplies the rate by `gamma` every `step_size` steps.
///
/// Source: `torch.optim.lr_scheduler.StepLR`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLR {
    /// How many steps a rate stays.
    pub step_size: usize,
    /// The factor; torch's default is 0.1.
    pub gamma: f64,
}

impl LRScheduler for StepLR {
    fn attach(&mut self, _: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        match self.step_size {
            0 => refuse("Expected positive integer step_size, but got 0"),
            _ => Ok(()),
        }
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let is_due = at.last_epoch != 0.0 && at.last_epoch % self.step_size as f64 == 0.0;
        Ok(if is_due { group.lr() * self.gamma } else { group.lr() })
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        Some(initial_lr * elementary::pow(self.gamma, (epoch / self.step_size as f64).floor()))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}

/// Multiplies the rate by `gamma` at each of some steps; at one named twice, twice.
///
/// Source: `torch.optim.lr_scheduler.MultiStepLR`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiStepLR {
    /// The steps, in any order.
    pub milestones: Vec<usize>,
    /// The factor; torch's default is 0.1.
    pub gamma: f64,
}

impl LRScheduler for MultiStepLR {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let times = self.milestones.iter().filter(|&&step| step as f64 == at.last_epoch).count();
        Ok(group.lr() * elementary::pow(self.gamma, times as f64))
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        let times = self.milestones.iter().filter(|&&step| step as f64 <= epoch).count();
        Some(initial_lr * elementary::pow(self.gamma, times as f64))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}

/// Multiplies the rate by `factor` until `total_iters` steps are done.
///
/// Source: `torch.optim.lr_scheduler.ConstantLR`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConstantLR {
    /// The factor, in `[0, 1]`.
    pub factor: f64,
    /// How many steps it lasts.
    pub total_iters: usize,
}

impl Default for ConstantLR {
    fn default() -> Self {
        ConstantLR { factor: 1.0 / 3.0, total_iters: 5 }
    }
}

impl LRScheduler for ConstantLR {
    fn attach(&mut self, _: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        match (0.0..=1.0).contains(&self.factor) {
            true => Ok(()),
            false => refuse("Constant multiplicative factor expected to be between 0 and 1."),
        }
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(match at.last_epoch {
            0.0 => group.lr() * self.factor,
            end if end == self.total_iters as f64 => group.lr() * (1.0 / self.factor),
            _ => group.lr(),
        })
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        let is_over = epoch >= self.total_iters as f64;
        Some(initial_lr * if is_over { 1.0 } else { self.factor })
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}

/// Goes from one multiple of the rate to another in equal steps.
///
/// Source: `torch.optim.lr_scheduler.LinearLR`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearLR {
    /// The first multiple, in `(0, 1]`.
    pub start_factor: f64,
    /// The last multiple, in `[0, 1]`.
    pub end_factor: f64,
    /// In how many steps.
    pub total_iters: usize,
}

impl Default for LinearLR {
    fn default() -> Self {
        LinearLR { start_factor: 1.0 / 3.0, end_factor: 1.0, total_iters: 5 }
    }
}

impl LRScheduler for LinearLR {
    fn attach(&mut self, _: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        if !(self.start_factor > 0.0 && self.start_factor <= 1.0) {
            return refuse(
                "Starting multiplicative factor expected to be greater than 0 and less or equal to 1.",
            );
        }
        match (0.0..=1.0).contains(&self.end_factor) {
            true => Ok(()),
            false => refuse("Ending multiplicative factor expected to be between 0 and 1."),
        }
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let (start, total) = (self.start_factor, self.total_iters as f64);
        if at.last_epoch == 0.0 {
            return Ok(group.lr() * start);
        }
        if at.is_initial || at.last_epoch > total {
            return Ok(group.lr());
        }
        let range = self.end_factor - start;
        Ok(group.lr() * (1.0 + range / (total * start + (at.last_epoch - 1.0) * range)))
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        let total = self.total_iters as f64;
        let range = self.end_factor - self.start_factor;
        Some(initial_lr * (self.start_factor + range * epoch.min(total) / total))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}

/// Multiplies the rate by `gamma` at every step.
///
/// Source: `torch.optim.lr_scheduler.ExponentialLR`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExponentialLR {
    /// The factor.
    pub gamma: f64,
}

impl LRScheduler for ExponentialLR {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(if at.is_initial { group.lr() } else { group.lr() * self.gamma })
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        Some(initial_lr * elementary::pow(self.gamma, epoch))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}

/// Goes to 0 as a power of what is left of `total_iters` steps.
///
/// Source: `torch.optim.lr_scheduler.PolynomialLR`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolynomialLR {
    /// In how many steps.
    pub total_iters: usize,
    /// The power.
    pub power: f64,
}

impl Default for PolynomialLR {
    fn default() -> Self {
        PolynomialLR { total_iters: 5, power: 1.0 }
    }
}

impl LRScheduler for PolynomialLR {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let total = self.total_iters as f64;
        if at.is_initial || at.last_epoch > total {
            return Ok(group.lr());
        }
        let left = |epoch: f64| 1.0 - epoch / total;
        Ok(group.lr()
            * elementary::pow(left(at.last_epoch) / left(at.last_epoch - 1.0), self.power))
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        let total = self.total_iters as f64;
        Some(initial_lr * elementary::pow(1.0 - epoch.min(total) / total, self.power))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}
