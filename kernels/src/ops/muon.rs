//! The update rule of Muon, in place.
//!
//! ```text
//! b ← b + (g - b) · (1 - momentum)        u = g + (b - g) · momentum  if nesterov, else b
//! X = u / max(‖u‖, eps)                   ns_steps times: G = X·Xᵀ,  X ← a·X + (b·G + c·G²)·X
//! p ← p · (1 - lr · weight_decay) - lr · adjusted(lr) · X
//! ```
//!
//! `X` is transposed if it has more rows than columns. As in torch its numbers are rounded to bfloat16 after
//! every operation, and sums are singles. It needs whole matrices, so it is no [`Rule`](crate::ops::update::rule).
//! Source: `torch.optim.Muon`, after Jordan, Muon (2024).

use std::sync::Arc;

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::Float;
use crate::cpu::sum::sum_of;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::reduction::lines::{carve, scratch_bytes};
use crate::ops::update::rule;
use crate::ops::update::rule::{UpdateInputs, Updated};

/// By what [`Var::muon`] multiplies the learning rate of a matrix of `A` rows and `B` columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdjustLr {
    /// `√max(1, A / B)`.
    #[default]
    Original,
    /// `0.2 · √max(A, B)`: the size of the steps of AdamW.
    MatchRmsAdamW,
    /// `√(A / B)`.
    SpectralUnclamped,
}

impl AdjustLr {
    fn ratio(self, [rows, columns]: [usize; 2]) -> f64 {
        let (a, b) = (rows as f64, columns as f64);
        match self {
            AdjustLr::Original => (a / b).max(1.0).sqrt(),
            AdjustLr::MatchRmsAdamW => 0.2 * a.max(b).sqrt(),
            AdjustLr::SpectralUnclamped => (a / b).sqrt(),
        }
    }
}

/// What decides the formula of [`Var::muon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MuonSettings {
    /// Whether to look ahead along the direction.
    pub nesterov: bool,
    /// How often the direction is brought nearer to an orthogonal matrix.
    pub ns_steps: usize,
    /// What multiplies the learning rate.
    pub adjust_lr_fn: AdjustLr,
}

const RATES: [&str; 7] = ["lr", "weight_decay", "momentum", "eps", "a", "b", "c"];

impl Var {
    /// Updates a matrix by Muon's rule; see [the module](self).
    ///
    /// The state is torch's `momentum_buffer`. Rates are `lr`, `weight_decay`, `momentum`, `eps`, and torch's
    /// `ns_coefficients` `a`, `b` and `c`.
    ///
    /// # Shape
    ///
    /// `[rows, columns]`, as gradient and state; the counts of steps are `[k]` of f32.
    ///
    /// Source: `torch.optim.Muon`.
    pub fn muon(&self, at: &UpdateInputs<'_>, settings: MuonSettings) -> Updated {
        update::record(self, at, &RATES, 1, Arc::new(MuonOp { index: at.index, settings }))
    }
}

#[derive(Clone, Copy, Debug)]
struct MuonOp {
    index: usize,
    settings: MuonSettings,
}

impl Op for MuonOp {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn attributes(&self) -> String {
        let MuonSettings { nesterov, ns_steps, adjust_lr_fn } = self.settings;
        let flags = update::attributes(self.index, &[("nesterov", nesterov)]);
        format!("{flags} ns_steps={ns_steps} adjust_lr_fn={adjust_lr_fn:?}")
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        if let Some(parameter) = inputs.first().filter(|ty| ty.shape.rank() != 2) {
            let shape = &parameter.shape;
            return Err(OpError(format!(
                "Muon only supports 2D parameters whereas we found a parameter with size: torch.Size({shape})"
            )));
        }
        update::types("muon", inputs, (1, RATES.len()), self.index)
    }

    fn in_place(&self) -> &[(usize, usize)] {
        update::in_place(1)
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        let shape = &inputs[0].shape;
        let least = shape.iter().copied().min().unwrap_or(0);
        self.settings.ns_steps * 4 * least * shape.numel()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let Type { dtype, shape } = &inputs[0].ty;
            Box::new(MuonKernel { op: *self, dtype: *dtype, matrix: [shape[0], shape[1]] })
        });
    }
}

struct MuonKernel {
    op: MuonOp,
    dtype: Dtype,
    matrix: [usize; 2],
}

impl MuonKernel {
    /// The lengths of the working memory: the matrix, its transpose, the next one, and two squares.
    fn lens(&self) -> [usize; 5] {
        let [rows, columns] = self.matrix;
        let (numel, least) = (rows * columns, rows.min(columns));
        [numel, numel, numel, least * least, least * least]
    }

    fn run<T: Float>(&self, tile: &mut Tile<'_>) {
        let [rows, columns] = self.matrix;
        let (settings, index) = (self.op.settings, self.op.index);
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let gradient = inputs.get::<T>(1);
            let [lr, weight_decay, momentum, eps, a, b, c]: [f64; 7] =
                core::array::from_fn(|i| inputs.get::<f64>(4 + i)[0]);
            let (parameter, buffer) = (outputs.take::<T>(), outputs.take::<T>());
            outputs.take::<f32>()[index] += 1.0;
            let mut work = Work {
                of: carve::<f32, 5>(scratch, self.lens()),
                least: rows.min(columns),
                most: rows.max(columns),
            };
            // Where the element of a place lies in the matrix that has no more rows than columns.
            let turned = |at: usize| match rows > columns {
                true => at % columns * rows + at / columns,
                false => at,
            };
            for (at, (mean, &g)) in buffer.iter_mut().zip(gradient).enumerate() {
                let g: f64 = g.into();
                *mean = T::from_f64(lerp((*mean).into(), g, 1.0 - momentum));
                let mean: f64 = (*mean).into();
                let direction = if settings.nesterov { lerp(g, mean, momentum) } else { mean };
                work.of[0][turned(at)] = bfloat16(T::from_f64(direction).into() as f32);
            }
            work.normalize(eps as f32);
            for _ in 0..settings.ns_steps {
                work.iterate([a, b, c].map(|x| x as f32));
            }
            let size = lr * settings.adjust_lr_fn.ratio(self.matrix);
            for (at, p) in parameter.iter_mut().enumerate() {
                let old: f64 = (*p).into();
                let down = size * f64::from(work.of[0][turned(at)]);
                *p = T::from_f64(old * (1.0 - lr * weight_decay) - down);
            }
        }
    }
}

impl Kernel for MuonKernel {
    fn run(&self, tile: &mut Tile<'_>) {
        match self.dtype {
            Dtype::F64 => self.run::<f64>(tile),
            _ => self.run::<f32>(tile),
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<f32>(&self.lens())
    }
}

/// Goes from one number towards another, as `torch.lerp` does.
fn lerp(start: f64, end: f64, weight: f64) -> f64 {
    match weight < 0.5 {
        true => start + weight * (end - start),
        false => end - (end - start) * (1.0 - weight),
    }
}

/// Rounds to the nearest bfloat16, to an even one if two are.
fn bfloat16(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let bits = x.to_bits();
    let odd = bits >> 16 & 1;
    f32::from_bits(bits.wrapping_add(0x7fff + odd) & 0xffff_0000)
}

/// A matrix that becomes orthogonal, with no more rows than columns.
struct Work<'a> {
    /// The matrix, its transpose, the next one, and two squares.
    of: [&'a mut [f32]; 5],
    least: usize,
    most: usize,
}

impl Work<'_> {
    fn normalize(&mut self, eps: f32) {
        let sum: f32 = sum_of(self.of[0], |x: f32| x * x);
        let norm = bfloat16(bfloat16(sum.sqrt()).max(eps));
        self.of[0].iter_mut().for_each(|x| *x = bfloat16(*x / norm));
    }

    fn iterate(&mut self, [a, b, c]: [f32; 3]) {
        let Work { of: [x, transposed, next, gram, update], least, most } = self;
        let (least, most) = (*least, *most);
        for (row, line) in x.chunks_exact(most.max(1)).enumerate() {
            line.iter().enumerate().for_each(|(column, &x)| transposed[column * least + row] = x);
        }
        multiply(x, transposed, gram, [least, most, least]);
        gram.iter_mut().for_each(|x| *x = bfloat16(*x));
        multiply(gram, gram, update, [least; 3]);
        update.iter_mut().zip(&**gram).for_each(|(x, &g)| *x = bfloat16(c * *x + b * g));
        multiply(update, x, next, [least, least, most]);
        x.iter_mut().zip(&**next).for_each(|(x, &new)| *x = bfloat16(new + a * *x));
    }
}

/// Writes `A · B` to `c`; `A` is `[rows, inner]`, `B` is `[inner, columns]`.
fn multiply(a: &[f32], b: &[f32], c: &mut [f32], [rows, inner, columns]: [usize; 3]) {
    c.fill(0.0);
    for row in 0..rows {
        let c = &mut c[row * columns..][..columns];
        for k in 0..inner {
            let factor = a[row * inner + k];
            c.iter_mut().zip(&b[k * columns..][..columns]).for_each(|(c, &b)| *c += factor * b);
        }
    }
}
