//! The update rule of Adafactor, in place.
//!
//! ```text
//! w = t^beta2_decay                  ρ = min(lr, 1 / √t)
//! α = max(eps₂, ‖p‖ / √numel) · ρ    p ← p · (1 - lr · weight_decay)
//! R ← R + (mean of g² over columns - R) · w,   C ← C + (mean of g² over rows - C) · w
//! v = R · C / max(mean of R, eps₁)   (of a vector: v ← v + (g² - v) · w)
//! u = g / √max(v, eps₁²)             p ← p - α / max(1, ‖u‖ / (√numel · d)) · u
//! ```
//!
//! Rows and columns are those of the last two axes. It needs sums over the whole parameter, so it is no
//! [`Rule`](crate::ops::update::rule); sums are in double precision, in order. Source: `torch.optim.Adafactor`.

use std::sync::Arc;

use crate::arithmetic::elementary;
use crate::cpu::kernel::Cpu;
use crate::cpu::simd::Float;
use crate::cpu::sum::{Running, sum_of, sum_of_terms};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::update::rule;
use crate::ops::update::rule::{UpdateInputs, Updated};

/// What decides the formula of [`Var::adafactor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdafactorSettings {
    /// Whether to climb.
    pub maximize: bool,
}

const RATES: [&str; 6] = ["lr", "beta2_decay", "eps1", "eps2", "d", "weight_decay"];

impl Var {
    /// Updates a parameter by Adafactor's rule; see [the module](self).
    ///
    /// States are two. Of a vector, the first is torch's `variance` and the second not used; otherwise the first
    /// begins with the numbers of `row_var`, the second with those of `col_var`. Rates are `lr`, `beta2_decay`,
    /// `eps1`, `eps2`, `d` and `weight_decay`.
    ///
    /// # Shape
    ///
    /// Gradient and states have the type of `self`; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.Adafactor`.
    pub fn adafactor(&self, at: &UpdateInputs<'_>, settings: AdafactorSettings) -> Updated {
        update::record(self, at, &RATES, 2, Arc::new(AdafactorOp { index: at.index, settings }))
    }
}

#[derive(Clone, Copy, Debug)]
struct AdafactorOp {
    index: usize,
    settings: AdafactorSettings,
}

impl Op for AdafactorOp {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn attributes(&self) -> String {
        update::attributes(self.index, &[("maximize", self.settings.maximize)])
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        update::types("adafactor", inputs, (2, RATES.len()), self.index)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        update::in_place(2)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (op, shape) = (*self, &inputs[0].ty.shape);
            let matrix = match shape.rank() {
                0 | 1 => None,
                rank => Some([shape[rank - 2], shape[rank - 1]]),
            };
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(move |tile: &mut Tile<'_>| op.run::<f64>(tile, matrix)),
                _ => Box::new(move |tile: &mut Tile<'_>| op.run::<f32>(tile, matrix)),
            }
        });
    }
}

impl AdafactorOp {
    fn run<T: Float>(self, tile: &mut Tile<'_>, matrix: Option<[usize; 2]>) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let gradient = inputs.get::<T>(1);
            let rates = core::array::from_fn(|i| inputs.get::<f64>(5 + i)[0]);
            let (parameter, first) = (outputs.take::<T>(), outputs.take::<T>());
            let (second, counts) = (outputs.take::<T>(), outputs.take::<f32>());
            counts[self.index] += 1.0;
            let step = f64::from(counts[self.index]);
            let sign = if self.settings.maximize { -1.0 } else { 1.0 };
            update(parameter, gradient, [first, second], matrix, rates, (step, sign));
        }
    }
}

/// Moves an average on to a new number.
fn lerp<T: Float>(average: &mut T, new: f64, weight: f64) {
    let old: f64 = (*average).into();
    *average = T::from_f64(old + (new - old) * weight);
}

fn square<T: Float>(x: T) -> f64 {
    let x: f64 = x.into();
    x * x
}

fn update<T: Float>(
    parameter: &mut [T],
    gradient: &[T],
    [first, second]: [&mut [T]; 2],
    matrix: Option<[usize; 2]>,
    [lr, beta2_decay, eps1, eps2, d, weight_decay]: [f64; 6],
    (step, sign): (f64, f64),
) {
    let numel = parameter.len();
    if numel == 0 {
        return;
    }
    let weight = elementary::pow(step, beta2_decay);
    let rho = lr.min(1.0 / step.sqrt());
    let root = (numel as f64).sqrt();
    let size = sum_of(parameter, square).sqrt() / root;
    let alpha = eps2.max(size) * rho;
    match matrix {
        None => {
            for (variance, &g) in first.iter_mut().zip(gradient) {
                lerp(variance, square(g), weight);
            }
        }
        Some([rows, columns]) => {
            let area = rows * columns;
            for (b, g) in gradient.chunks_exact(area).enumerate() {
                let row_var = &mut first[b * rows..][..rows];
                for (row, g) in row_var.iter_mut().zip(g.chunks_exact(columns)) {
                    let mean = sum_of(g, square) / columns as f64;
                    lerp(row, mean, weight);
                }
                for (j, column) in second[b * columns..][..columns].iter_mut().enumerate() {
                    let sum = sum_of_terms(rows, |i| square(g[i * columns + j]));
                    lerp(column, sum / rows as f64, weight);
                }
            }
        }
    }
    // What the products of row and column are divided by; the directions of all elements, in order.
    let area = matrix.map_or(numel, |[rows, columns]| rows * columns);
    let scale = |batch: usize| match matrix {
        None => 1.0,
        Some([rows, _]) => {
            let sum: f64 = sum_of(&first[batch * rows..][..rows], |row: T| row.into());
            (sum / rows as f64).max(eps1)
        }
    };
    let direction = |at: usize, scale: f64| {
        let variance: f64 = match matrix {
            None => first[at].into(),
            Some([_, columns]) => {
                let row: f64 = first[at / columns].into();
                let column: f64 = second[at / area * columns + at % columns].into();
                row * column / scale
            }
        };
        let g: f64 = gradient[at].into();
        sign * g / variance.max(eps1 * eps1).sqrt()
    };
    let mut sum = Running::new();
    for batch in 0..numel / area {
        let scale = scale(batch);
        let directions = (batch * area..(batch + 1) * area).map(|at| direction(at, scale));
        directions.for_each(|x| sum.add(x * x));
    }
    let size = alpha / (sum.finish().sqrt() / (root * d)).max(1.0);
    for (batch, part) in parameter.chunks_exact_mut(area).enumerate() {
        let scale = scale(batch);
        for (place, p) in part.iter_mut().enumerate() {
            let old: f64 = (*p).into();
            let down = size * direction(batch * area + place, scale);
            *p = T::from_f64(old * (1.0 - lr * weight_decay) - down);
        }
    }
}
