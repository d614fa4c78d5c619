//! `solve`: the `X` of `A · X = B`, by elimination with the largest pivot of each column.
//!
//! Source: `torch.linalg.solve`.

use super::matrices::{PerMatrix, sizes, square};
use crate::cpu::kernel::Cpu;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::same_dtype;

/// Solves for each matrix of a batch.
#[derive(Clone, Copy, Debug)]
struct Solve;

impl Op for Solve {
    fn name(&self) -> &'static str {
        "linalg_solve"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [a, b] = inputs else {
            return Err(OpError(format!("solve: expected 2 inputs, got {}", inputs.len())));
        };
        let (n, (rows, _)) = (square("linalg.solve", a)?, sizes("linalg.solve", b)?);
        same_dtype("linalg.solve", a, b)?;
        let rank = a.shape.rank();
        if rows != n || b.shape.rank() != rank || a.shape[..rank - 2] != b.shape[..rank - 2] {
            return Err(OpError(format!(
                "linalg.solve: Incompatible shapes of A and B for the equation AX = B ({} and {})",
                a.shape, b.shape
            )));
        }
        Ok(vec![b.clone()])
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        let n = inputs[1].shape[inputs[1].shape.rank() - 2];
        n * (inputs[0].shape.numel() + 2 * inputs[1].shape.numel())
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (a, b) = (&inputs[0].ty, &inputs[1].ty.shape);
            let (n, k) = (b[b.rank() - 2], b[b.rank() - 1]);
            PerMatrix::boxed(a, [n * n, n * k], [n * k], 0, move |[a, b], [x], _| {
                x.copy_from_slice(b);
                solve(a, x, n, k);
            })
        });
    }

    /// `dB = A⁻ᵀ dX`, `dA = -dB · Xᵀ`.
    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(dx) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let db = at.inputs[0].mt().solve(dx);
        let da = at.needs[0].then(|| -db.matmul(&at.outputs[0].mt()));
        vec![da, Some(db)]
    }
}

/// Turns `x`, which is `B` at first, into the solution; `a` is overwritten.
fn solve(a: &mut [f64], x: &mut [f64], n: usize, k: usize) {
    for column in 0..n {
        let size = |row: &usize| a[row * n + column].abs();
        let pivot = (column..n).max_by(|one, other| size(one).total_cmp(&size(other)));
        let pivot = pivot.unwrap_or(column);
        if pivot != column {
            (0..n).for_each(|j| a.swap(pivot * n + j, column * n + j));
            (0..k).for_each(|j| x.swap(pivot * k + j, column * k + j));
        }
        for row in column + 1..n {
            let factor = a[row * n + column] / a[column * n + column];
            (column..n).for_each(|j| a[row * n + j] -= factor * a[column * n + j]);
            (0..k).for_each(|j| x[row * k + j] -= factor * x[column * k + j]);
        }
    }
    for row in (0..n).rev() {
        for j in 0..k {
            let known: f64 = (row + 1..n).map(|i| a[row * n + i] * x[i * k + j]).sum();
            x[row * k + j] = (x[row * k + j] - known) / a[row * n + row];
        }
    }
}

impl Var {
    /// Gives the `X` of `A · X = B`, where `A` is this value.
    ///
    /// # Shape
    ///
    /// `A` is `[.., n, n]`, `B` and the result are `[.., n, k]` with the same axes in front. It is computed in
    /// double precision.
    ///
    /// Source: `torch.linalg.solve`. Where `A` is singular, and torch raises an error, the result has elements
    /// that are not finite.
    #[must_use]
    pub fn solve(&self, b: &Var) -> Var {
        self.trace().apply(Solve, &[self, b])
    }
}
