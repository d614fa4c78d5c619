//! Schedulers that go up and down, momentum against the rate.

use core::f64::consts::PI;

use neurarch_kernels::arithmetic::elementary;
use serde::{Deserialize, Serialize};

use super::{LRScheduler, ParamGroup, Progress, SchedulerError, refuse};

/// How the height of the cycles of a [`CyclicLR`] changes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub enum CyclicMode {
    /// It stays.
    #[default]
    Triangular,
    /// It halves after each cycle.
    Triangular2,
    /// It is multiplied by a factor at each step.
    ExpRange {
        /// The factor, torch's `gamma`.
        gamma: f64,
    },
    /// It is multiplied by a function of the cycle's number, counted from 1.
    #[serde(skip)]
    PerCycle(fn(f64) -> f64),
    /// It is multiplied by a function of the number of steps done.
    #[serde(skip)]
    PerIteration(fn(f64) -> f64),
}

/// Goes from one rate to another and back, in straight lines, again and again.
///
/// Source: `torch.optim.lr_scheduler.CyclicLR`, after Smith, Cyclical learning rates (2017).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CyclicLR {
    /// The least rate.
    pub base_lr: f64,
    /// The greatest rate.
    pub max_lr: f64,
    /// In how many steps it goes up.
    pub step_size_up: usize,
    /// In how many steps it goes down; `None` for as many.
    pub step_size_down: Option<usize>,
    /// How the height of the cycles changes.
    pub mode: CyclicMode,
    /// The momentum at the greatest rate and that at the least; `None` leaves it alone.
    pub cycle_momentum: Option<(f64, f64)>,
}

impl CyclicLR {
    /// Creates one with torch's defaults: 2,000 steps up and as many down, and momentum between 0.8 and 0.9.
    pub fn new(base_lr: f64, max_lr: f64) -> Self {
        CyclicLR {
            base_lr,
            max_lr,
            step_size_up: 2000,
            step_size_down: None,
            mode: CyclicMode::Triangular,
            cycle_momentum: Some((0.8, 0.9)),
        }
    }
}

impl LRScheduler for CyclicLR {
    fn attach(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        if self.step_size_up == 0 {
            return refuse("Expected positive integer step_size_up, but got 0");
        }
        group.set_lr(self.base_lr);
        start_momentum(self.cycle_momentum, group)
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let up = self.step_size_up as f64;
        let total = up + self.step_size_down.map_or(up, |down| down as f64);
        let (epoch, ratio) = (at.last_epoch, up / total);
        let cycle = (1.0 + epoch / total).floor();
        let x = 1.0 + epoch / total - cycle;
        let height = if x <= ratio { x / ratio } else { (x - 1.0) / (ratio - 1.0) };
        let scale = match self.mode {
            CyclicMode::Triangular => 1.0,
            CyclicMode::Triangular2 => 1.0 / elementary::pow(2.0, cycle - 1.0),
            CyclicMode::ExpRange { gamma } => elementary::pow(gamma, epoch),
            CyclicMode::PerCycle(scale) => scale(cycle),
            CyclicMode::PerIteration(scale) => scale(epoch),
        };
        if let Some(((base, max), momentum)) = self.cycle_momentum.zip(group.momentum()) {
            *momentum = max - (max - base) * height * scale;
        }
        Ok(self.base_lr + (self.max_lr - self.base_lr) * height * scale)
    }

    fn has_functions(&self) -> bool {
        matches!(self.mode, CyclicMode::PerCycle(_) | CyclicMode::PerIteration(_))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}

/// Sets the momentum that a cycle begins with.
fn start_momentum(
    cycle_momentum: Option<(f64, f64)>,
    group: &mut ParamGroup<'_>,
) -> Result<(), SchedulerError> {
    let Some((_, max)) = cycle_momentum else { return Ok(()) };
    *group.momentum().ok_or(SchedulerError::NoMomentum)? = max;
    Ok(())
}

/// The line between two rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cos,
    /// Straight.
    Linear,
}

impl Anneal {
    fn between(self, from: f64, to: f64, share: f64) -> f64 {
        match self {
            Anneal::Cos => to + (from - to) / 2.0 * (elementary::cos(PI * share) + 1.0),
            Anneal::Linear => (to - from) * share + from,
        }
    }
}

/// Goes up to the greatest rate once and down to far below the first, which ends the training.
///
/// Source: `torch.optim.lr_scheduler.OneCycleLR`, after Smith and Topin, Super-convergence (2018).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneCycleLR {
    /// The greatest rate.
    pub max_lr: f64,
    /// How many steps there are: epochs times steps of each.
    pub total_steps: usize,
    /// The share of them in which the rate goes up.
    pub pct_start: f64,
    /// The line between two rates.
    pub anneal_strategy: Anneal,
    /// The momentum at the greatest rate and that at the first; `None` leaves it alone.
    pub cycle_momentum: Option<(f64, f64)>,
    /// The first rate is the greatest one divided by this.
    pub div_factor: f64,
    /// The last rate is the first one divided by this.
    pub final_div_factor: f64,
    /// Whether the way down stops at the first rate, as late as the way up lasts.
    pub three_phase: bool,
}

impl OneCycleLR {
    /// Creates one with torch's defaults.
    pub fn new(max_lr: f64, total_steps: usize) -> Self {
        OneCycleLR {
            max_lr,
            total_steps,
            pct_start: 0.3,
            anneal_strategy: Anneal::Cos,
            cycle_momentum: Some((0.85, 0.95)),
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }

    /// Lists the phases: the last step of each, its rates, and whether the momentum is the base one at its
    /// start and end.
    fn phases(&self) -> Vec<(f64, [f64; 2], [bool; 2])> {
        let (total, last) = (self.total_steps as f64, self.total_steps as f64 - 1.0);
        let (first, top) = (self.max_lr / self.div_factor, self.max_lr);
        let end = first / self.final_div_factor;
        let rise = self.pct_start * total - 1.0;
        let up = (rise, [first, top], [false, true]);
        match self.three_phase {
            true => vec![
                up,
                (2.0 * self.pct_start * total - 2.0, [top, first], [true, false]),
                (last, [first, end], [false, false]),
            ],
            false => vec![up, (last, [top, end], [true, false])],
        }
    }
}

impl LRScheduler for OneCycleLR {
    fn attach(&mut self, group: &mut ParamGroup<'_>) -> Result<(), SchedulerError> {
        if self.total_steps == 0 {
            return refuse("Expected positive integer total_steps, but got 0");
        }
        if !(0.0..=1.0).contains(&self.pct_start) {
            let got = self.pct_start;
            return refuse(format!("Expected float between 0 and 1 pct_start, but got {got}"));
        }
        group.set_initial_lr(self.max_lr / self.div_factor);
        start_momentum(self.cycle_momentum, group)
    }

    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let step = at.last_epoch;
        if step > self.total_steps as f64 {
            return Err(SchedulerError::Over { step, total: self.total_steps });
        }
        let (phases, mut start) = (self.phases(), 0.0);
        let at = phases.iter().position(|&(end, ..)| step <= end).unwrap_or(phases.len() - 1);
        if at > 0 {
            start = phases[at - 1].0;
        }
        let (end, [from, to], is_base) = phases[at];
        let share = (step - start) / (end - start);
        if let Some(((base, max), momentum)) = self.cycle_momentum.zip(group.momentum()) {
            let [from, to] = is_base.map(|is_base| if is_base { base } else { max });
            *momentum = self.anneal_strategy.between(from, to, share);
        }
        Ok(self.anneal_strategy.between(from, to, share))
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(*self)
    }
}
