//! `geqrf`: the QR decomposition of matrices as reflections, in LAPACK's form.
//!
//! Source: `torch.geqrf`.

use super::matrices::{PerMatrix, sizes, with_sizes};
use crate::cpu::kernel::Cpu;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;

/// Decomposes each matrix; there is no gradient, as in torch.
#[derive(Clone, Copy, Debug)]
struct Geqrf;

impl Op for Geqrf {
    fn name(&self) -> &'static str {
        "geqrf"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [a] = inputs else {
            return Err(OpError(format!("geqrf: expected 1 input, got {}", inputs.len())));
        };
        let (m, n) = sizes("geqrf", a)?;
        Ok(vec![a.clone(), with_sizes(a, 2, &[m.min(n)])])
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        let shape = &inputs[0].shape;
        4 * shape.numel() * shape[shape.rank() - 1]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let ty = &inputs[0].ty;
            let (m, n) = (ty.shape[ty.shape.rank() - 2], ty.shape[ty.shape.rank() - 1]);
            let of = move |[a]: [&mut [f64]; 1], [packed, tau]: [&mut [f64]; 2], _: &mut [f64]| {
                packed.copy_from_slice(a);
                (0..m.min(n)).for_each(|column| tau[column] = reflect(packed, m, n, column));
            };
            PerMatrix::boxed(ty, [m * n], [m * n, m.min(n)], 0, of)
        });
    }
}

/// Makes the elements of a column below its diagonal zero by a reflection `I - τ v vᵀ`, where `v` is 1 at the
/// diagonal; leaves the rest of `v` in their place and gives `τ`.
fn reflect(a: &mut [f64], m: usize, n: usize, column: usize) -> f64 {
    let alpha = a[column * n + column];
    let below: f64 = (column + 1..m).map(|row| a[row * n + column]).map(|x| x * x).sum();
    if below == 0.0 {
        return 0.0;
    }
    let beta = -alpha.signum() * (alpha * alpha + below).sqrt();
    let tau = (beta - alpha) / beta;
    (column + 1..m).for_each(|row| a[row * n + column] /= alpha - beta);
    a[column * n + column] = beta;
    for j in column + 1..n {
        let along: f64 = (column + 1..m).map(|row| a[row * n + column] * a[row * n + j]).sum();
        let step = tau * (a[column * n + j] + along);
        a[column * n + j] -= step;
        (column + 1..m).for_each(|row| a[row * n + j] -= step * a[row * n + column]);
    }
    tau
}

impl Var {
    /// Decomposes matrices into `Q · R`: gives `R` at and above the diagonal with the vectors of the reflections
    /// that make up `Q` below it, and their factors `τ`; see
    /// [`householder_product`](Var::householder_product). There is no gradient.
    ///
    /// # Shape
    ///
    /// `[.., m, n]`, as the first result; the second is `[.., min(m, n)]`. It is computed in double precision.
    ///
    /// Source: `torch.geqrf`.
    #[must_use]
    pub fn geqrf(&self) -> [Var; 2] {
        self.trace().apply_n(Geqrf, &[self])
    }
}
