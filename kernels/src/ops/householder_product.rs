//! `householder_product`: the first columns of a product of reflections `I - τ v vᵀ`.
//!
//! Source: `torch.linalg.householder_product`.

use super::elementwise::same_dtype;
use super::matrices::{PerMatrix, sizes, with_sizes};
use crate::op::{GradientAt, Kernel, Op, OpError};
use crate::program::trace::Var;
use crate::shape::{Operand, Type};

/// The product for each matrix, whose column `i` below the diagonal holds `v` of reflection `i`.
#[derive(Clone, Copy, Debug)]
struct HouseholderProduct;

/// Checks `A` and `τ`; gives the rows and columns of `A`, and the number of reflections.
fn check(a: &Type, tau: &Type) -> Result<(usize, usize, usize), OpError> {
    let (m, n) = sizes("linalg.householder_product", a)?;
    same_dtype("linalg.householder_product", a, tau)?;
    let k = tau.shape.last().copied().unwrap_or(0);
    if *tau != with_sizes(a, 2, &[k]) {
        return Err(OpError(format!(
            "linalg.householder_product: Expected batch dimensions of tau to be equal to those of \
             input, got {} and {}",
            tau.shape, a.shape
        )));
    }
    if m < n || n < k {
        return Err(OpError(format!(
            "linalg.householder_product: input.shape[-2] must be greater than or equal to \
             input.shape[-1], and input.shape[-1] to tau.shape[-1], got {} and {}",
            a.shape, tau.shape
        )));
    }
    Ok((m, n, k))
}

/// The sizes of operands that [`check`] let through.
fn sizes_of(inputs: &[Operand]) -> (usize, usize, usize) {
    let (a, tau) = (&inputs[0].ty.shape, &inputs[1].ty.shape);
    (a[a.rank() - 2], a[a.rank() - 1], tau[tau.rank() - 1])
}

impl Op for HouseholderProduct {
    fn name(&self) -> &'static str {
        "linalg_householder_product"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [a, tau] = inputs else {
            let got = inputs.len();
            return Err(OpError(format!("householder_product: expected 2 inputs, got {got}")));
        };
        check(a, tau)?;
        Ok(vec![a.clone()])
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        4 * inputs[0].shape.numel() * inputs[1].shape.last().copied().unwrap_or(0)
    }

    fn kernel(&self, inputs: &[Operand], _: &[Operand]) -> Box<dyn Kernel> {
        let (m, n, k) = sizes_of(inputs);
        let of = move |[a, tau]: [&mut [f64]; 2], [q]: [&mut [f64]; 1], line: &mut [f64]| {
            q.fill(0.0);
            (0..n).for_each(|i| q[i * n + i] = 1.0);
            for i in (0..k).rev() {
                let v = Reflection { a, m, n, i };
                v.along(q, line);
                v.subtract(q, line, tau[i]);
            }
        };
        PerMatrix::boxed(&inputs[0].ty, [m * n, k], [m * n], n, of)
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(dq) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let (a, tau) = (&at.inputs[0], &at.inputs[1]);
        let inputs = [a, tau, &at.outputs[0], dq];
        let [da, dtau] = dq.trace().apply_n(HouseholderGradient, &inputs);
        vec![Some(da), Some(dtau)]
    }
}

/// The vector of one reflection: 1 at row `i`, column `i` of `a` below, 0 above.
#[derive(Clone, Copy)]
struct Reflection<'a> {
    a: &'a [f64],
    m: usize,
    n: usize,
    i: usize,
}

impl Reflection<'_> {
    /// Writes `vᵀ · E` to `line`.
    fn along(self, e: &[f64], line: &mut [f64]) {
        let Reflection { a, m, n, i } = self;
        line.copy_from_slice(&e[i * n..][..n]);
        for row in i + 1..m {
            let v = a[row * n + i];
            line.iter_mut().zip(&e[row * n..][..n]).for_each(|(sum, &e)| *sum += v * e);
        }
    }

    /// Subtracts `factor · v · line` from `E`.
    fn subtract(self, e: &mut [f64], line: &[f64], factor: f64) {
        let Reflection { a, m, n, i } = self;
        for row in i..m {
            let step = factor * if row == i { 1.0 } else { a[row * n + i] };
            e[row * n..][..n].iter_mut().zip(line).for_each(|(e, &x)| *e -= step * x);
        }
    }
}

/// The gradients of `A` and `τ` from `A`, `τ`, `Q` and `dQ`.
///
/// Goes through the reflections from the outermost, and takes each off `Q` by its inverse, so that nothing of
/// the forward pass need be kept.
#[derive(Clone, Copy, Debug)]
struct HouseholderGradient;

impl Op for HouseholderGradient {
    fn name(&self) -> &'static str {
        "householder_product_gradient"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        match inputs {
            [a, tau, q, dq] if a == q && a == dq => {
                check(a, tau)?;
                Ok(vec![a.clone(), tau.clone()])
            }
            _ => Err(OpError("householder_product_gradient: expected A, tau, Q and dQ".into())),
        }
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        10 * inputs[0].shape.numel() * inputs[1].shape.last().copied().unwrap_or(0)
    }

    fn kernel(&self, inputs: &[Operand], _: &[Operand]) -> Box<dyn Kernel> {
        let (m, n, k) = sizes_of(inputs);
        let numel = m * n;
        let of = move |[a, tau, e, de]: [&mut [f64]; 4],
                       [da, dtau]: [&mut [f64]; 2],
                       work: &mut [f64]| {
            da.fill(0.0);
            let (inside, outside) = work.split_at_mut(n);
            for i in 0..k {
                let v = Reflection { a, m, n, i };
                let square = 1.0 + (i + 1..m).map(|row| a[row * n + i].powi(2)).sum::<f64>();
                // E' = H⁻¹ E; then `inside` is vᵀ E', `outside` is vᵀ dE.
                v.along(e, inside);
                v.subtract(e, inside, tau[i] / (tau[i] * square - 1.0));
                v.along(e, inside);
                v.along(de, outside);
                dtau[i] = -inside.iter().zip(outside.iter()).map(|(x, y)| x * y).sum::<f64>();
                for row in i + 1..m {
                    let (e, de) = (&e[row * n..][..n], &de[row * n..][..n]);
                    let with = |line: &[f64], x: &[f64]| -> f64 {
                        line.iter().zip(x).map(|(x, y)| x * y).sum()
                    };
                    da[row * n + i] = -tau[i] * (with(inside, de) + with(outside, e));
                }
                v.subtract(de, outside, tau[i]);
            }
        };
        PerMatrix::boxed(&inputs[0].ty, [numel, k, numel, numel], [numel, k], 2 * n, of)
    }
}

impl Var {
    /// Gives the first columns of the product of reflections `(I - τ₁ v₁ v₁ᵀ) (I - τ₂ v₂ v₂ᵀ) …`. Column `i` of
    /// this value holds `vᵢ` below the diagonal; `vᵢ` is 1 there and 0 above.
    ///
    /// # Shape
    ///
    /// `[.., m, n]` with `m ≥ n`, as the result; `tau` is `[.., k]` with `k ≤ n`. It is computed in double
    /// precision. The gradient has no gradient of its own.
    ///
    /// Source: `torch.linalg.householder_product`.
    #[must_use]
    pub fn householder_product(&self, tau: &Var) -> Var {
        self.trace().apply(HouseholderProduct, &[self, tau])
    }
}
