//! [`Orthogonal`]: matrices with orthonormal columns, or rows.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::Tree;
use serde::{Deserialize, Serialize};

use super::eye;
use crate::module::{Call, Declare, Init, Module, NoInverse};

/// Makes matrices with orthonormal columns, or rows if these are fewer, of matrices without that constraint.
///
/// With `use_trivialization` the result is multiplied by the buffer `base`, `[.., n, n]` where `n` is the
/// larger size: the tensor at registration, orthogonalized, and completed to a square where it is none.
///
/// Source: `torch.nn.utils.parametrizations.orthogonal`. What completes `base` follows from the tensor, where
/// torch draws it.
#[derive(Component, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Orthogonal {
    /// The tensor's shape: two or more axes.
    #[serde(with = "crate::wire")]
    pub shape: Shape,
    /// How an orthogonal matrix is made.
    pub orthogonal_map: OrthogonalMap,
    /// Whether there is a `base`.
    pub use_trivialization: bool,
}

/// How an orthogonal matrix is made of any matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OrthogonalMap {
    /// `exp(A)`, where `A` is skew-symmetric: the lower triangle minus its transposed.
    MatrixExp,
    /// `(I + A/2) (I - A/2)⁻¹`, `A` as before.
    Cayley,
    /// A product of reflections, one for each column below the diagonal.
    Householder,
}

impl Orthogonal {
    /// Returns the rows and columns of matrices that are not wide, and whether these are.
    fn sizes(&self) -> (usize, usize, bool) {
        let rank = self.shape.rank();
        let (rows, columns) = (self.shape[rank - 2], self.shape[rank - 1]);
        (rows.max(columns), rows.min(columns), rows < columns)
    }

    /// Makes orthonormal columns of tall matrices by the exponential or Cayley's map.
    fn of_skew(&self, x: &Var) -> Var {
        let (n, k, _) = self.sizes();
        let x = widen(&x.tril(0), n, k);
        let a = &x - x.mt();
        let q = match self.orthogonal_map {
            OrthogonalMap::Cayley => {
                let half = &a * 0.5;
                let eye = eye(&a, n, n).expand(a.shape().clone());
                (&eye - &half).solve(&(&eye + &half))
            }
            _ => a.matrix_exp(),
        };
        if n == k { q } else { q.slice(-1, 0..k) }
    }

    /// Makes orthonormal columns of tall matrices by reflections.
    fn of_reflections(&self, x: &Var) -> Var {
        let a = x.tril(-1);
        let tau = 2.0 / ((&a * &a).sum(&[-2], false) + 1.0);
        // The diagonal holds the signs of the columns, and is not differentiated.
        let signs = diagonal(&x.detach()).trunc();
        let signs = signs.reshape(kept(x.shape(), signs.shape()[signs.shape().rank() - 1]));
        a.householder_product(&tau) * signs
    }
}

/// Adds columns of zeros to matrices of `k` columns, so that they have `n`.
fn widen(x: &Var, n: usize, k: usize) -> Var {
    if n == k {
        return x.clone();
    }
    let batch = &x.shape()[..x.shape().rank() - 2];
    let shape: Shape = batch.iter().copied().chain([n, n - k]).collect();
    Var::cat(&[x, &x.trace().constant(0.0, x.dtype(), shape)], -1)
}

/// Returns the diagonals of tall matrices: `[.., columns]`.
fn diagonal(x: &Var) -> Var {
    let rank = x.shape().rank();
    let eye = eye(x, x.shape()[rank - 2], x.shape()[rank - 1]);
    (x * eye).sum(&[-2], false)
}

/// The shape of a line for each matrix of a batch.
fn kept(of: &Shape, columns: usize) -> Shape {
    of[..of.rank() - 2].iter().copied().chain([1, columns]).collect()
}

/// Returns `Q` of `A = Q · R` where the diagonal of `R` is not negative, completed to a square; `A` is tall.
fn complete(a: &Var) -> Var {
    let rank = a.shape().rank();
    let (n, k) = (a.shape()[rank - 2], a.shape()[rank - 1]);
    let [packed, tau] = a.geqrf();
    let signs = diagonal(&packed).sign();
    let q = widen(&packed, n, k).householder_product(&tau);
    let columns = |range| q.slice(-1, range);
    let own = columns(0..k) * signs.reshape(kept(a.shape(), k));
    if n == k { own } else { Var::cat(&[&own, &columns(k..n)], -1) }
}

impl Module for Orthogonal {
    fn type_name(&self) -> &'static str {
        "_Orthogonal"
    }

    fn declare(&self, declare: &mut Declare) {
        if self.use_trivialization {
            let n = self.sizes().0;
            let batch = &self.shape[..self.shape.rank() - 2];
            declare.buffer("base", batch.iter().copied().chain([n, n]).collect::<Shape>(), true);
        }
    }

    fn reset(&self, _: &str) -> Init {
        if self.shape.rank() == 2 { Init::Eye } else { Init::Zeros }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let is_wide = self.sizes().2;
        let x = if is_wide { x.mt() } else { x };
        let q = match self.orthogonal_map {
            OrthogonalMap::Householder => self.of_reflections(&x),
            _ => self.of_skew(&x),
        };
        let q = if self.use_trivialization { call.buffer("base").matmul(&q) } else { q };
        if is_wide { q.mt() } else { q }
    }

    fn right_inverse(&self, call: &Call<'_>, q: Var) -> Result<Tree, NoInverse> {
        if *q.shape() != self.shape {
            return Ok(call
                .trace
                .fail(format!(
                    "Expected a matrix or batch of matrices of shape {}. Got a tensor of shape {}.",
                    self.shape,
                    q.shape()
                ))
                .into());
        }
        let is_wide = self.sizes().2;
        let tall = if is_wide { q.mt() } else { q.clone() };
        let rank = tall.shape().rank();
        let (n, k) = (tall.shape()[rank - 2], tall.shape()[rank - 1]);
        if self.use_trivialization {
            call.trace.store(&call.buffer("base"), &complete(&tall));
            // With -1 on the diagonal, which reflections take for signs, each map gives the first columns of I.
            let eye = eye(&tall, n, k).expand(tall.shape().clone());
            return Ok((-if is_wide { eye.mt() } else { eye }).into());
        }
        if self.orthogonal_map != OrthogonalMap::Householder {
            return Err(NoInverse(
                "It is not possible to assign to the matrix exponential or the Cayley \
                 parametrizations when use_trivialization=False."
                    .into(),
            ));
        }
        let [packed, tau] = tall.geqrf();
        // Where there was no reflection the one that `forward` makes turns the column around.
        let turned = tau.sign().square() * 2.0 - 1.0;
        let signs = (diagonal(&packed).sign() * turned).reshape(kept(tall.shape(), k));
        let eye = eye(&tall, n, k);
        let off_diagonal = &packed * (1.0 - &eye);
        let a = off_diagonal + eye * signs;
        Ok(if is_wide { a.mt() } else { a }.into())
    }
}
