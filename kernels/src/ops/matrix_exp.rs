//! `matrix_exp`: the exponential of square matrices, `Σ Aⁱ / i!`.
//!
//! By scaling and squaring: a Taylor polynomial of `A / 2ˢ`, squared `s` times, where `s` brings the norm
//! below `LARGEST_NORM`. Source: `torch.matrix_exp`.

use super::matrices::{PerMatrix, square};
use crate::cpu::kernel::Cpu;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;

/// Up to this norm the polynomial is exact within rounding.
const LARGEST_NORM: f64 = 0.5;

/// The degree of the polynomial: `0.5¹⁷ / 17!` is 2e-20, far below a rounding of 1.
const DEGREE: usize = 16;

/// The exponential of each matrix.
#[derive(Clone, Copy, Debug)]
struct MatrixExp;

impl Op for MatrixExp {
    fn name(&self) -> &'static str {
        "matrix_exp"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [a] = inputs else {
            return Err(OpError(format!("matrix_exp: expected 1 input, got {}", inputs.len())));
        };
        square("linalg.matrix_exp", a)?;
        Ok(vec![a.clone()])
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        let shape = &inputs[0].shape;
        2 * (DEGREE + 2) * shape.numel() * shape[shape.rank() - 1]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let ty = &inputs[0].ty;
            let n = ty.shape[ty.shape.rank() - 1];
            PerMatrix::boxed(ty, [n * n], [n * n], n * n, move |[a], [y], work| exp(a, y, work, n))
        });
    }

    /// The derivative at `Aᵀ` in the direction of `dy`: a block of the exponential of `[[Aᵀ, dy], [0, Aᵀ]]`.
    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let gradient = |dy: &Var| {
            let a = at.inputs[0].mt();
            let shape = a.shape().clone();
            let n = shape[shape.rank() - 1];
            let zeros = a.trace().constant(0.0, a.dtype(), shape);
            let (above, below) = (Var::cat(&[&a, dy], -1), Var::cat(&[&zeros, &a], -1));
            let whole = Var::cat(&[&above, &below], -2).matrix_exp();
            whole.slice(-2, 0..n).slice(-1, n..2 * n)
        };
        vec![at.gradients[0].as_ref().map(gradient)]
    }
}

/// Writes `eᴬ` to `y`; `a` is overwritten.
fn exp(a: &mut [f64], y: &mut [f64], work: &mut [f64], n: usize) {
    let column = |j: usize| (0..n).map(|i| a[i * n + j].abs()).sum::<f64>();
    let norm = (0..n).map(column).fold(0.0, |most: f64, sum| {
        if sum.is_nan() {
            sum
        } else if most.is_nan() {
            most
        } else {
            most.max(sum)
        }
    });
    if !norm.is_finite() {
        return y.fill(f64::NAN);
    }
    let mut squarings = 0;
    let mut scale = 1.0;
    while norm * scale > LARGEST_NORM {
        (squarings, scale) = (squarings + 1, scale * 0.5);
    }
    a.iter_mut().for_each(|x| *x *= scale);
    // Horner's scheme: y = I + A (I + A/2 (I + A/3 (…))).
    identity(y, n);
    for i in (1..=DEGREE).rev() {
        multiply(a, y, work, n);
        let factor = 1.0 / i as f64;
        y.iter_mut().zip(work.iter()).for_each(|(y, &x)| *y = x * factor);
        (0..n).for_each(|i| y[i * n + i] += 1.0);
    }
    for _ in 0..squarings {
        multiply(y, y, work, n);
        y.copy_from_slice(work);
    }
}

fn identity(y: &mut [f64], n: usize) {
    y.fill(0.0);
    (0..n).for_each(|i| y[i * n + i] = 1.0);
}

/// Writes `A · B` to `c`.
fn multiply(a: &[f64], b: &[f64], c: &mut [f64], n: usize) {
    c.fill(0.0);
    for (row, c) in c.chunks_mut(n.max(1)).enumerate() {
        for k in 0..n {
            let factor = a[row * n + k];
            c.iter_mut().zip(&b[k * n..][..n]).for_each(|(c, &b)| *c += factor * b);
        }
    }
}

impl Var {
    /// Gives the exponential of square matrices.
    ///
    /// # Shape
    ///
    /// `[.., n, n]`, as the result. It is computed in double precision.
    ///
    /// Source: `torch.matrix_exp`.
    #[must_use]
    pub fn matrix_exp(&self) -> Var {
        self.trace().apply(MatrixExp, &[self])
    }
}
