//! Schedulers made of others.

use super::{LRScheduler, ParamGroup, Progress, SchedulerError, Timed, refuse};
use serde::{Deserialize, Serialize};

/// Follows one scheduler after the other.
///
/// # Example
///
/// ```
/// # use neurarch_components::scheduler::*;
/// let warmup = LinearLR { start_factor: 0.1, total_iters: 10, ..LinearLR::default() };
/// let after = CosineAnnealingLR { t_max: 90, eta_min: 0.0 };
/// let scheduler = SequentialLR::new([10]).push(warmup).push(after);
/// ```
///
/// Source: `torch.optim.lr_scheduler.SequentialLR`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SequentialLR {
    #[serde(skip)]
    parts: Vec<Timed>,
    milestones: Vec<usize>,
}

impl SequentialLR {
    /// Creates one whose schedulers change at these steps, in ascending order.
    pub fn new(milestones: impl Into<Vec<usize>>) -> Self {
        SequentialLR { parts: Vec::new(), milestones: milestones.into() }
    }

    /// Adds a scheduler.
    #[must_use]
    pub fn push(mut self, scheduler: impl LRScheduler) -> Self {
        self.parts.push(Timed::of(scheduler.clone_box()));
        self
    }

    /// Returns the place of the scheduler that a step belongs to.
    fn place(&self, epoch: f64) -> usize {
        self.milestones.iter().filter(|&&at| at as f64 <= epoch).count()
    }
}

/// Refuses a part whose steps take metrics.
fn check_parts(composed: &'static str, parts: &[Timed]) -> Result<(), SchedulerError> {
    match parts.iter().position(|part| part.rule.takes_metrics()) {
        Some(index) => Err(SchedulerError::Plateau { composed, index }),
        None => Ok(()),
    }
}

impl SequentialLR {
    fn check(&self) -> Result<(), SchedulerError> {
        let (parts, milestones) = (self.parts.len(), self.milestones.len());
        if parts == 0 {
            return refuse("SequentialLR expects at least one scheduler, but got no scheduler.");
        }
        check_parts("SequentialLR", &self.parts)?;
        if milestones + 1 != parts {
            return refuse(format!(
                "Sequential Schedulers expects number of schedulers provided to be one more than the \
                 number of milestone points, but got number of schedulers {parts} and the number of \
                 milestones to be equal to {milestones}"
            ));
        }
        Ok(())
    }
}

impl LRScheduler for SequentialLR {
    fn attach(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        self.check()?;
        self.parts.iter_mut().try_for_each(|part| part.attach(group))?;
        group.set_lr(group.initial_lr());
        self.parts.iter_mut().for_each(Timed::undo);
        let first = self.place(0.0);
        self.parts[first].begin(group)
    }

    fn lr(&mut self, _: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(group.lr())
    }

    fn step(
        &mut self,
        progress: &mut Progress,
        group: &mut ParamGroup<'_>,
        to: Option<f64>,
    ) -> Result<(), SchedulerError> {
        let epoch = to.unwrap_or(progress.last_epoch + 1.0);
        // The first step is that of the part, which began with it.
        if !progress.is_initial {
            let place = self.place(epoch);
            let is_new = place > 0 && self.milestones[place - 1] as f64 == epoch;
            self.parts[place].step(group, is_new.then_some(0.0))?;
        }
        progress.last_epoch = epoch;
        Ok(())
    }

    fn parts(&mut self) -> &mut [Timed] {
        &mut self.parts
    }

    fn set_parts(&mut self, parts: Vec<Timed>) -> Result<(), SchedulerError> {
        self.parts = parts;
        self.check()
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}

/// Steps several schedulers, one on what the other made of the rate.
///
/// Source: `torch.optim.lr_scheduler.ChainedScheduler`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChainedScheduler {
    #[serde(skip)]
    parts: Vec<Timed>,
}

impl ChainedScheduler {
    /// Creates an empty one.
    pub fn new() -> Self {
        ChainedScheduler::default()
    }

    /// Adds a scheduler.
    #[must_use]
    pub fn push(mut self, scheduler: impl LRScheduler) -> Self {
        self.parts.push(Timed::of(scheduler.clone_box()));
        self
    }
}

impl ChainedScheduler {
    fn check(&self) -> Result<(), SchedulerError> {
        if self.parts.is_empty() {
            return refuse(
                "ChainedScheduler expects at least one scheduler to be chained, but got no scheduler.",
            );
        }
        check_parts("ChainedScheduler", &self.parts)
    }
}

impl LRScheduler for ChainedScheduler {
    fn attach(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        self.check()?;
        self.parts.iter_mut().try_for_each(|part| part.attach(group))
    }

    fn lr(&mut self, _: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(group.lr())
    }

    fn step(
        &mut self,
        progress: &mut Progress,
        group: &mut ParamGroup<'_>,
        _: Option<f64>,
    ) -> Result<(), SchedulerError> {
        if !progress.is_initial {
            self.parts.iter_mut().try_for_each(|part| part.step(group, None))?;
        }
        progress.last_epoch += 1.0;
        Ok(())
    }

    fn parts(&mut self) -> &mut [Timed] {
        &mut self.parts
    }

    fn set_parts(&mut self, parts: Vec<Timed>) -> Result<(), SchedulerError> {
        self.parts = parts;
        self.check()
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}
