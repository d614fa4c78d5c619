//! The update rule of `SparseAdam`, in place: Adam on the rows that have a gradient.
//!
//! ```text
//! m ← m + (g - m) · (1 - β₁)        v ← v + (g² - v) · (1 - β₂)
//! p ← p - lr · √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + eps)
//! ```
//!
//! A row, along the first axis, whose gradient is 0 in every element stays as it is, its states too. It looks
//! at whole rows, so it is no [`Rule`](crate::ops::update::rule). Source: `torch.optim.SparseAdam`, which goes by the rows
//! that were looked up, whatever their gradient.

use std::sync::Arc;

use super::adam::corrections;
use crate::cpu::kernel::Cpu;
use crate::cpu::simd::Float;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::update::rule;
use crate::ops::update::rule::{UpdateInputs, Updated};

/// What decides the formula of [`Var::sparse_adam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SparseAdamSettings {
    /// Whether to climb.
    pub maximize: bool,
}

const RATES: [&str; 4] = ["lr", "beta1", "beta2", "eps"];

impl Var {
    /// Updates the rows of a parameter that have a gradient by Adam's rule; see [the module](self).
    ///
    /// States are torch's `exp_avg` and `exp_avg_sq`. Rates are `lr`, `beta1`, `beta2` and `eps`.
    ///
    /// # Shape
    ///
    /// `[rows, ..]`, as gradient and states; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.SparseAdam`.
    pub fn sparse_adam(&self, at: &UpdateInputs<'_>, settings: SparseAdamSettings) -> Updated {
        update::record(self, at, &RATES, 2, Arc::new(SparseAdamOp { index: at.index, settings }))
    }
}

#[derive(Clone, Copy, Debug)]
struct SparseAdamOp {
    index: usize,
    settings: SparseAdamSettings,
}

impl Op for SparseAdamOp {
    fn name(&self) -> &'static str {
        "sparse_adam"
    }

    fn attributes(&self) -> String {
        update::attributes(self.index, &[("maximize", self.settings.maximize)])
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        update::types("sparse_adam", inputs, (2, RATES.len()), self.index)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        update::in_place(2)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (op, shape) = (*self, &inputs[0].ty.shape);
            let row = shape.numel() / shape.first().copied().unwrap_or(1).max(1);
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(move |tile: &mut Tile<'_>| op.run::<f64>(tile, row)),
                _ => Box::new(move |tile: &mut Tile<'_>| op.run::<f32>(tile, row)),
            }
        });
    }
}

impl SparseAdamOp {
    fn run<T: Float>(self, tile: &mut Tile<'_>, row: usize) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let gradient = inputs.get::<T>(1);
            let [lr, beta1, beta2, eps]: [f64; 4] =
                core::array::from_fn(|i| inputs.get::<f64>(5 + i)[0]);
            let [parameter, mean, square] = [0; 3].map(|_| outputs.take::<T>());
            let counts = outputs.take::<f32>();
            counts[self.index] += 1.0;
            let [of_mean, of_square] = corrections([beta1, beta2], f64::from(counts[self.index]));
            let size = lr / of_square / of_mean;
            let sign = if self.settings.maximize { -1.0 } else { 1.0 };
            for (at, gradient) in gradient.chunks_exact(row.max(1)).enumerate() {
                if gradient.iter().all(|&g| g == T::default()) {
                    continue;
                }
                for (i, &g) in gradient.iter().enumerate().map(|(i, g)| (at * row + i, g)) {
                    let g: f64 = g.into();
                    let g = sign * g;
                    let [p, m, v]: [f64; 3] = [parameter[i], mean[i], square[i]].map(Into::into);
                    let (m, v) = (m + (g - m) * (1.0 - beta1), v + (g * g - v) * (1.0 - beta2));
                    (mean[i], square[i]) = (T::from_f64(m), T::from_f64(v));
                    parameter[i] = T::from_f64(p - size * m / (v.sqrt() + eps));
                }
            }
        }
    }
}
