//! L-BFGS of one model: what to try next, given losses and gradients of what was tried.
//!
//! The model is somebody else's: [`LbfgsStep::next`] says at which parameters the loss and gradient are needed. All
//! numbers are in double precision, sums in their [order](crate::cpu::sum). A line search is run from its start with the answers so far
//! whenever another one arrives: it has a few scalar products for each, next to nothing beside an evaluation.
//!
//! Source: `torch.optim.LBFGS`.

use std::collections::VecDeque;

use self::search::{Point, Search, strong_wolfe};
use crate::cpu::sum::{sum_of, sum_of_pairs};

mod search;

/// What decides how far a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LbfgsSettings {
    /// Learning rate.
    pub lr: f64,
    /// The most iterations of a step.
    pub max_iter: usize,
    /// The most evaluations of a step.
    pub max_eval: usize,
    /// A step ends where no number of the gradient is greater.
    pub tolerance_grad: f64,
    /// A step ends where parameters or loss change less.
    pub tolerance_change: f64,
    /// How many iterations are remembered.
    pub history_size: usize,
    /// Whether to search along each direction for the strong Wolfe conditions.
    pub strong_wolfe: bool,
    /// Whether to climb.
    pub maximize: bool,
}

/// What is kept from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lbfgs {
    direction: Vec<f64>,
    size: f64,
    /// Changes of the gradient and of the parameters, and the reciprocal of their product.
    history: VecDeque<(Vec<f64>, Vec<f64>, f64)>,
    scale: f64,
    previous: Vec<f64>,
    previous_loss: f64,
    n_iter: usize,
}

impl Lbfgs {
    /// Lists all that is kept, by torch's names: each a shape and its numbers, row-major.
    ///
    /// Source: the state in `torch.optim.LBFGS.state_dict`.
    pub fn state(&self) -> [(&'static str, Vec<usize>, Vec<f64>); 9] {
        let (n, kept) = (self.direction.len(), self.history.len());
        let history = self.history.iter();
        let gradients = history.clone().flat_map(|(y, _, _)| y.iter().copied()).collect();
        let steps = history.clone().flat_map(|(_, s, _)| s.iter().copied()).collect();
        let number = |name, x: f64| (name, Vec::new(), vec![x]);
        [
            ("d", vec![n], self.direction.clone()),
            number("t", self.size),
            ("old_dirs", vec![kept, n], gradients),
            ("old_stps", vec![kept, n], steps),
            ("ro", vec![kept], history.map(|(_, _, ro)| *ro).collect()),
            number("H_diag", self.scale),
            ("prev_flat_grad", vec![self.previous.len()], self.previous.clone()),
            number("prev_loss", self.previous_loss),
            number("n_iter", self.n_iter as f64),
        ]
    }

    /// Makes what [`state`](Lbfgs::state) lists of `n` parameters; `None` if something is missing or too short.
    pub fn from_state(n: usize, numbers: impl Fn(&str) -> Option<Vec<f64>>) -> Option<Self> {
        let number = |name| numbers(name)?.first().copied();
        let (gradients, steps, ro) = (numbers("old_dirs")?, numbers("old_stps")?, numbers("ro")?);
        let [direction, previous] = [numbers("d")?, numbers("prev_flat_grad")?];
        let fits = |of: &[f64]| of.is_empty() || of.len() == n;
        let all = n * ro.len();
        if !fits(&direction) || !fits(&previous) || gradients.len() != all || steps.len() != all {
            return None;
        }
        let row = |of: &[f64], place: usize| of[place * n..][..n].to_vec();
        let history = ro.iter().enumerate();
        let history = history.map(|(place, &ro)| (row(&gradients, place), row(&steps, place), ro));
        Some(Lbfgs {
            size: number("t")?,
            history: history.collect(),
            scale: number("H_diag")?,
            previous_loss: number("prev_loss")?,
            n_iter: number("n_iter")? as usize,
            direction,
            previous,
        })
    }
}

/// What a step needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The loss and gradient at these parameters.
    Evaluate(Vec<f64>),
    /// Nothing: these are the parameters after the step.
    Done(Vec<f64>),
}

/// A step that is under way.
#[derive(Clone, Debug)]
pub struct LbfgsStep {
    x: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    n_iter: usize,
    evals: usize,
    phase: Phase,
    answers: Vec<Point>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    First,
    Fixed,
    Search { slope: f64 },
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of_pairs(a, b, |a, b| a * b)
}

/// Gives the greatest size of a number; NaN if there is one.
fn greatest(numbers: &[f64]) -> f64 {
    let greater = |most: f64, &x: &f64| if x.abs() > most || x.is_nan() { x.abs() } else { most };
    numbers.iter().fold(0.0, greater)
}

fn moved(x: &[f64], size: f64, direction: &[f64]) -> Vec<f64> {
    x.iter().zip(direction).map(|(x, d)| x + size * d).collect()
}

impl Lbfgs {
    /// Turns the direction to where `gradient` leads.
    fn turn(&mut self, gradient: &[f64], settings: &LbfgsSettings) {
        self.n_iter += 1;
        if self.n_iter == 1 {
            self.direction = gradient.iter().map(|g| -g).collect();
            self.history.clear();
            self.scale = 1.0;
            return;
        }
        let y: Vec<_> = gradient.iter().zip(&self.previous).map(|(new, old)| new - old).collect();
        let s: Vec<_> = self.direction.iter().map(|d| d * self.size).collect();
        let ys = dot(&y, &s);
        if ys > 1e-10 {
            if self.history.len() >= settings.history_size {
                self.history.pop_front();
            }
            self.scale = ys / dot(&y, &y);
            self.history.push_back((y, s, 1.0 / ys));
        }
        let mut q: Vec<_> = gradient.iter().map(|g| -g).collect();
        let mut weights = Vec::with_capacity(self.history.len());
        for (y, s, ro) in self.history.iter().rev() {
            let weight = dot(s, &q) * ro;
            q = moved(&q, -weight, y);
            weights.push(weight);
        }
        let mut direction: Vec<_> = q.iter().map(|q| q * self.scale).collect();
        for ((y, s, ro), weight) in self.history.iter().zip(weights.iter().rev()) {
            direction = moved(&direction, weight - dot(y, &direction) * ro, s);
        }
        self.direction = direction;
    }
}

impl LbfgsStep {
    /// Begins a step at parameters `x`, whose loss and gradient [`next`](LbfgsStep::next) wants first.
    pub fn new(x: Vec<f64>) -> Self {
        let (gradient, answers) = (Vec::new(), Vec::new());
        let (loss, n_iter, evals) = (0.0, 0, 0);
        LbfgsStep { x, loss, gradient, n_iter, evals, phase: Phase::First, answers }
    }

    /// Takes the loss and the gradient of what was asked for.
    ///
    /// # Shape
    ///
    /// `gradient` is as long as the parameters, `[numel]`.
    pub fn next(
        &mut self,
        of: &mut Lbfgs,
        settings: &LbfgsSettings,
        loss: f64,
        gradient: &[f64],
    ) -> Ask {
        let sign = if settings.maximize { -1.0 } else { 1.0 };
        let gradient: Vec<_> = gradient.iter().map(|g| sign * g).collect();
        let loss = sign * loss;
        match self.phase {
            Phase::First => {
                (self.loss, self.gradient) = (loss, gradient);
                self.evals = 1;
                if greatest(&self.gradient) <= settings.tolerance_grad {
                    return Ask::Done(self.x.clone());
                }
                self.iterate(of, settings)
            }
            Phase::Fixed => {
                (self.loss, self.gradient) = (loss, gradient);
                self.evals += 1;
                self.conclude(of, settings)
            }
            Phase::Search { slope } => {
                let along = dot(&gradient, &of.direction);
                self.answers.push(Point { size: 0.0, loss, gradient, slope: along });
                self.search(of, settings, slope)
            }
        }
    }

    /// Begins an iteration.
    fn iterate(&mut self, of: &mut Lbfgs, settings: &LbfgsSettings) -> Ask {
        if self.n_iter >= settings.max_iter {
            return Ask::Done(self.x.clone());
        }
        self.n_iter += 1;
        of.turn(&self.gradient, settings);
        of.previous.clone_from(&self.gradient);
        of.previous_loss = self.loss;
        of.size = settings.lr;
        if of.n_iter == 1 {
            let total = sum_of(&self.gradient, f64::abs);
            of.size *= (1.0 / total).min(1.0);
        }
        let slope = dot(&self.gradient, &of.direction);
        if slope > -settings.tolerance_change {
            return Ask::Done(self.x.clone());
        }
        if settings.strong_wolfe {
            self.answers.clear();
            self.phase = Phase::Search { slope };
            return self.search(of, settings, slope);
        }
        self.x = moved(&self.x, of.size, &of.direction);
        if self.n_iter == settings.max_iter {
            return Ask::Done(self.x.clone());
        }
        self.phase = Phase::Fixed;
        Ask::Evaluate(self.x.clone())
    }

    fn search(&mut self, of: &mut Lbfgs, settings: &LbfgsSettings, slope: f64) -> Ask {
        let start = Point { size: 0.0, loss: self.loss, gradient: self.gradient.clone(), slope };
        let search = Search {
            start: &start,
            first: of.size,
            reach: greatest(&of.direction),
            tolerance_change: settings.tolerance_change,
            max_ls: settings.max_eval.saturating_sub(self.evals),
        };
        match strong_wolfe(&search, &self.answers) {
            Err(size) => Ask::Evaluate(moved(&self.x, size, &of.direction)),
            Ok(found) => {
                self.evals += self.answers.len();
                self.x = moved(&self.x, found.size, &of.direction);
                of.size = found.size;
                (self.loss, self.gradient) = (found.loss, found.gradient);
                self.conclude(of, settings)
            }
        }
    }

    /// Ends an iteration: goes on, unless there is a reason not to.
    fn conclude(&mut self, of: &mut Lbfgs, settings: &LbfgsSettings) -> Ask {
        let change = greatest(&of.direction.iter().map(|d| d * of.size).collect::<Vec<_>>());
        let is_over = self.n_iter == settings.max_iter
            || self.evals >= settings.max_eval
            || greatest(&self.gradient) <= settings.tolerance_grad
            || change <= settings.tolerance_change
            || (self.loss - of.previous_loss).abs() < settings.tolerance_change;
        match is_over {
            true => Ask::Done(self.x.clone()),
            false => self.iterate(of, settings),
        }
    }
}
