//! Schedulers that follow a cosine.

use core::f64::consts::PI;

use neurarch_kernels::arithmetic::elementary;
use serde::{Deserialize, Serialize};

use super::{LRScheduler, ParamGroup, Progress, SchedulerError, refuse};

/// Goes down to `eta_min` along half a cosine in `t_max` steps, and up again.
///
/// Source: `torch.optim.lr_scheduler.CosineAnnealingLR`, after Loshchilov and Hutter, SGDR (2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CosineAnnealingLR {
    /// In how many steps; torch's `T_max`.
    pub t_max: usize,
    /// The least rate; torch's default is 0.
    pub eta_min: f64,
}

impl LRScheduler for CosineAnnealingLR {
    fn attach(&mut self, _: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        match self.t_max {
            0 => refuse("Expected positive integer T_max, but got 0"),
            _ => Ok(()),
        }
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        if at.is_initial {
            return Ok(group.lr());
        }
        let (t_max, epoch) = (self.t_max as f64, at.last_epoch);
        if (epoch - 1.0 - t_max).rem_euclid(2.0 * t_max) == 0.0 {
            let range = group.initial_lr() - self.eta_min;
            return Ok(group.lr() + range * (1.0 - elementary::cos(PI / t_max)) / 2.0);
        }
        let height = |epoch: f64| 1.0 + elementary::cos(PI * epoch / t_max);
        let above = group.lr() - self.eta_min;
        Ok(height(epoch) / height(epoch - 1.0) * above + self.eta_min)
    }

    fn closed_form(&self, epoch: f64, initial_lr: f64) -> Option<f64> {
        Some(annealed(initial_lr, self.eta_min, epoch / self.t_max as f64))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}

/// Returns the rate after a share of the way down.
fn annealed(from: f64, to: f64, share: f64) -> f64 {
    to + (from - to) * (1.0 + elementary::cos(PI * share)) / 2.0
}

/// Goes down to `eta_min` along half a cosine, starts again from the first rate, and takes `t_mult` times
/// as long each time.
///
/// Source: `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`, after Loshchilov and Hutter, SGDR (2017).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CosineAnnealingWarmRestarts {
    /// How many steps the first way down takes; torch's `T_0`.
    t_0: usize,
    /// How many times longer each is than the one before; torch's `T_mult`.
    t_mult: usize,
    /// The least rate.
    eta_min: f64,
    /// Steps since the last start, and steps from it to the next.
    now: (f64, f64),
}

impl CosineAnnealingWarmRestarts {
    /// Creates one; torch's defaults are a `t_mult` of 1 and an `eta_min` of 0.
    pub fn new(t_0: usize, t_mult: usize, eta_min: f64) -> Self {
        CosineAnnealingWarmRestarts { t_0, t_mult, eta_min, now: (-1.0, t_0 as f64) }
    }

    /// Finds where an epoch lies.
    fn place(&self, epoch: f64) -> (f64, f64) {
        let (t_0, t_mult) = (self.t_0 as f64, self.t_mult as f64);
        if epoch < t_0 {
            (epoch, t_0)
        } else if self.t_mult == 1 {
            (epoch % t_0, self.now.1)
        } else {
            let n = (elementary::ln(epoch / t_0 * (t_mult - 1.0) + 1.0) / elementary::ln(t_mult))
                .trunc();
            let length = elementary::pow(t_mult, n);
            (epoch - t_0 * (length - 1.0) / (t_mult - 1.0), t_0 * length)
        }
    }
}

impl LRScheduler for CosineAnnealingWarmRestarts {
    fn attach(&mut self, _: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        match (self.t_0, self.t_mult) {
            (0, _) => refuse("Expected positive integer T_0, but got 0"),
            (_, 0) => refuse("Expected integer T_mult >= 1, but got 0"),
            _ => Ok(()),
        }
    }

    fn lr(&mut self, _: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let (since, length) = self.now;
        Ok(annealed(group.initial_lr(), self.eta_min, since / length))
    }

    fn step(
        &mut self,
        progress: &mut Progress,
        group: &mut ParamGroup<'_>,
        to: Option<f64>,
    ) -> Result<(), SchedulerError> {
        let to = to.or((progress.last_epoch < 0.0).then_some(0.0));
        match to {
            Some(epoch) if epoch < 0.0 => {
                return refuse(format!("Expected non-negative epoch, but got {epoch}"));
            }
            Some(epoch) => self.now = self.place(epoch),
            None => {
                let (since, length) = (self.now.0 + 1.0, self.now.1);
                let is_over = since >= length;
                let longer = length * self.t_mult as f64;
                self.now = if is_over { (since % length, longer) } else { (since, length) };
            }
        }
        progress.last_epoch = to.unwrap_or(progress.last_epoch + 1.0).floor();
        let lr = self.lr(*progress, group)?;
        group.set_lr(lr);
        Ok(())
    }

    fn takes_epochs(&self) -> bool {
        true
    }

    fn state(&self) -> Vec<(&'static str, f64)> {
        vec![("T_cur", self.now.0), ("T_i", self.now.1)]
    }

    fn set_state(&mut self, name: &str, number: f64) {
        match name {
            "T_cur" => self.now.0 = number,
            "T_i" => self.now.1 = number,
            _ => {}
        }
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}
