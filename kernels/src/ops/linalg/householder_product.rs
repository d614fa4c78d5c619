//! `householder_product`: the first columns of a product of reflections `I - τ v vᵀ`.
//!
//! Source: `torch.linalg.householder_product`.

use super::matrices::{PerMatrix, sizes, with_sizes};
use crate::cpu::kernel::Cpu;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Operand, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::same_dtype;

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

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
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
        });
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

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (m, n, k) = sizes_of(inputs);
            let numel = m * n;
            let of = move |[a, tau, e, de]: [&mut [f64]; 4],
                           [da, dtau]: [&mut [f64]; 2],
                           work: &mut [f64]| {
                da.fill(0.0);
                let (inside, outside) = work.split_at_mut(n);
                for i in 0..k {
                    let v = Reflection { a, m, n, i };
                    let square =
                        1.0 + (i + 1..m).map(|row| a[row * n + i]).map(|x| x * x).sum::<f64>();
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
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [a, tau, _, dq] = at.inputs else { return Vec::new() };
        let trace = dq.trace();
        let along = |output: usize, like: &Var| {
            let given = at.gradients[output].clone();
            given.unwrap_or_else(|| trace.constant(0.0, like.dtype(), like.shape().clone()))
        };
        let inputs = [a, tau, dq, &along(0, a), &along(1, tau)];
        let [da, dtau, dq] = trace.apply_n(HouseholderSecond, &inputs);
        // What changes with A and τ is theirs alone, Q included.
        vec![Some(da), Some(dtau), at.zero(2), Some(dq)]
    }
}

/// The gradients of `A`, `τ` and `dQ`, from these and a direction of `A` and one of `τ`: of how `⟨dQ, Q⟩` changes
/// along both.
///
/// The product is made from the innermost reflection outwards, once itself and once its change, and kept; then its
/// reflections are gone through from the outermost.
#[derive(Clone, Copy, Debug)]
struct HouseholderSecond;

impl Op for HouseholderSecond {
    fn name(&self) -> &'static str {
        "householder_product_second_gradient"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        match inputs {
            [a, tau, dq, of_a, of_tau] if a == dq && a == of_a && tau == of_tau => {
                check(a, tau)?;
                Ok(vec![a.clone(), tau.clone(), a.clone()])
            }
            _ => Err(OpError(format!("{}: expected A, tau, dQ and directions", self.name()))),
        }
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        30 * inputs[0].shape.numel() * inputs[1].shape.last().copied().unwrap_or(0)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (m, n, k) = sizes_of(inputs);
            let numel = m * n;
            let of = move |[a, tau, p, u, w]: [&mut [f64]; 5],
                           [da, dtau, dq]: [&mut [f64]; 3],
                           work: &mut [f64]| {
                let (kept, work) = work.split_at_mut(2 * (k + 1) * numel);
                let (s, lines) = work.split_at_mut(numel);
                let pairs: Vec<_> = (0..k).map(|i| Pair { a, u, m, n, i }).collect();
                // At 2 · i · numel lie the product of the reflections from i on, and its change.
                let (product, change) = kept[2 * k * numel..].split_at_mut(numel);
                product.fill(0.0);
                (0..n).for_each(|i| product[i * n + i] = 1.0);
                change.fill(0.0);
                for (i, of) in pairs.iter().enumerate().rev() {
                    let (outer, inner) = kept[2 * i * numel..].split_at_mut(2 * numel);
                    outer.copy_from_slice(&inner[..2 * numel]);
                    let (product, change) = outer.split_at_mut(numel);
                    of.turn(product, change, [tau[i], w[i]], lines);
                }
                dq.copy_from_slice(&kept[numel..2 * numel]);
                da.fill(0.0);
                s.fill(0.0);
                for (i, of) in pairs.iter().enumerate() {
                    let (product, change) =
                        kept[2 * (i + 1) * numel..][..2 * numel].split_at(numel);
                    let (da, dtau) = (&mut *da, &mut dtau[i]);
                    of.gradient([product, change, p, s], [tau[i], w[i]], lines, da, dtau);
                    of.turn(p, s, [tau[i], w[i]], lines);
                }
            };
            let work = (2 * (k + 1) + 1) * numel + LINES * n;
            let sizes = [numel, k, numel, numel, k];
            PerMatrix::boxed(&inputs[0].ty, sizes, [numel, k, numel], work, of)
        });
    }
}

/// Lines of working memory of [`Pair`].
const LINES: usize = 6;

/// The vector `v` of one reflection, and its direction `u`, which is 0 where `v` is 1.
#[derive(Clone, Copy)]
struct Pair<'a> {
    a: &'a [f64],
    u: &'a [f64],
    m: usize,
    n: usize,
    i: usize,
}

impl Pair<'_> {
    /// Returns `v` and `u` at a row from `i` on.
    fn at(self, row: usize) -> [f64; 2] {
        let Pair { a, u, n, i, .. } = self;
        if row == i { [1.0, 0.0] } else { [a[row * n + i], u[row * n + i]] }
    }

    /// Writes `vᵀ · E` and `uᵀ · E`.
    fn along(self, e: &[f64], of_v: &mut [f64], of_u: &mut [f64]) {
        let Pair { m, n, i, .. } = self;
        of_v.fill(0.0);
        of_u.fill(0.0);
        for row in i..m {
            let [v, u] = self.at(row);
            for ((e, of_v), of_u) in e[row * n..][..n].iter().zip(&mut *of_v).zip(&mut *of_u) {
                *of_v += v * e;
                *of_u += u * e;
            }
        }
    }

    /// Turns `E` into `H E`, and its change `F` into `H F + H' E`, where `H' = -τ' v vᵀ - τ (u vᵀ + v uᵀ)`.
    fn turn(self, e: &mut [f64], f: &mut [f64], [tau, change]: [f64; 2], lines: &mut [f64]) {
        let Pair { m, n, i, .. } = self;
        let [ve, ue, vf, uf] = split(lines, n);
        self.along(e, ve, ue);
        self.along(f, vf, uf);
        for row in i..m {
            let [v, u] = self.at(row);
            for column in 0..n {
                let at = row * n + column;
                f[at] -= v * (tau * (vf[column] + ue[column]) + change * ve[column])
                    + tau * u * ve[column];
                e[at] -= tau * v * ve[column];
            }
        }
    }

    /// Writes the gradients of column `i` below the diagonal and of `τ`: of `⟨S, H R⟩ + ⟨P, H' R + H R'⟩`.
    fn gradient(
        self,
        [r, r_change, p, s]: [&[f64]; 4],
        [tau, change]: [f64; 2],
        lines: &mut [f64],
        da: &mut [f64],
        dtau: &mut f64,
    ) {
        let Pair { m, n, i, .. } = self;
        let [vr, ur, vc, vp, up, vs] = split(lines, n);
        self.along(s, vs, up);
        self.along(r_change, vc, up);
        self.along(r, vr, ur);
        self.along(p, vp, up);
        let with = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
        *dtau = -(with(vs, vr) + with(vp, vc) + with(up, vr) + with(vp, ur));
        for row in i + 1..m {
            let of = |matrix| -> &[f64] { &<[f64]>::as_ref(matrix)[row * n..][..n] };
            let (r, r_change, p, s) = (of(r), of(r_change), of(p), of(s));
            let plain = with(s, vr) + with(p, vc) + with(r, vs) + with(r_change, vp);
            let of_v = with(p, vr) + with(r, vp);
            let of_u = with(p, ur) + with(r, up);
            da[row * n + i] = -tau * (plain + of_u) - change * of_v;
        }
    }
}

/// Splits memory into lines of `n` numbers.
fn split<const N: usize>(lines: &mut [f64], n: usize) -> [&mut [f64]; N] {
    let mut rest = lines;
    [(); N].map(|()| {
        let (own, others) = core::mem::take(&mut rest).split_at_mut(n);
        rest = others;
        own
    })
}

impl Var {
    /// Gives the first columns of the product of reflections `(I - τ₁ v₁ v₁ᵀ) (I - τ₂ v₂ v₂ᵀ) …`. Column `i` of
    /// this value holds `vᵢ` below the diagonal; `vᵢ` is 1 there and 0 above.
    ///
    /// # Shape
    ///
    /// `[.., m, n]` with `m ≥ n`, as the result; `tau` is `[.., k]` with `k ≤ n`. It is computed in double
    /// precision. There is a second gradient, and no third one.
    ///
    /// Source: `torch.linalg.householder_product`.
    #[must_use]
    pub fn householder_product(&self, tau: &Var) -> Var {
        self.trace().apply(HouseholderProduct, &[self, tau])
    }
}
