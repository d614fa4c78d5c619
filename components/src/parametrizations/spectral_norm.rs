//! [`SpectralNorm`]: a tensor divided by its largest singular value.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::Tree;
use serde::{Deserialize, Serialize};

use super::{matrix, normalize};
use crate::module::{Call, Declare, Init, Module, NoInverse};

/// Divides a tensor by its largest singular value, as the power method estimates it: `W / (uᵀ W v)`.
///
/// `W` is a matrix: axis `dim` of the tensor, by all others. A vector is divided by its length.
///
/// | value | shape                                  | at first                                   |
/// |-------|----------------------------------------|--------------------------------------------|
/// | `_u`  | `[size of dim]`, a buffer              | random, then 15 rounds of the power method |
/// | `_v`  | `[product of the others]`, a buffer    | the same                                   |
///
/// In training mode, each reading of the tensor does `n_power_iterations` rounds of the power method; `_u` and
/// `_v` are constants to gradients.
///
/// Source: `torch.nn.utils.parametrizations.spectral_norm`. An assigned tensor gets `_u` and `_v` of its own,
/// where torch keeps the old ones.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct SpectralNorm {
    /// The tensor's shape.
    #[serde(with = "crate::wire")]
    pub shape: Shape,
    /// Rounds of the power method at each reading in training mode.
    pub n_power_iterations: usize,
    /// The axis of the matrix's rows.
    pub dim: usize,
    /// What `_u` and `_v` are divided by at least when they are normalized.
    pub eps: f64,
}

/// Rounds of the power method when the parametrization is registered.
const FIRST_ITERATIONS: usize = 15;

impl SpectralNorm {
    /// Does some rounds of the power method from the present `_u` and `_v`, and keeps what comes of it.
    fn iterate(&self, call: &Call<'_>, matrix: &Var, rounds: usize) -> [Var; 2] {
        let buffers = ["_u", "_v"].map(|name| call.buffer(name));
        let [mut u, mut v] = [0, 1].map(|i: usize| call.trace.stored(&buffers[i]));
        if rounds == 0 {
            return [u, v];
        }
        let matrix = matrix.detach();
        for _ in 0..rounds {
            u = normalize(&matrix.matmul(&v), self.eps);
            v = normalize(&matrix.t().matmul(&u), self.eps);
        }
        call.trace.store(&buffers[0], &u);
        call.trace.store(&buffers[1], &v);
        [u, v]
    }
}

impl Module for SpectralNorm {
    fn type_name(&self) -> &'static str {
        "_SpectralNorm"
    }

    fn declare(&self, declare: &mut Declare) {
        if self.shape.rank() > 1 {
            let rows = self.shape[self.dim];
            let others = self.shape.iter().enumerate().filter(|(axis, _)| *axis != self.dim);
            let columns: usize = others.map(|(_, size)| size).product();
            declare.buffer("_u", [rows], true).buffer("_v", [columns], true);
        }
    }

    fn reset(&self, _: &str) -> Init {
        Init::Normal { mean: 0.0, std: 1.0 }
    }

    fn forward(&self, call: &Call<'_>, tensor: Var) -> Var {
        if tensor.shape().rank() == 1 {
            return normalize(&tensor, self.eps);
        }
        let matrix = matrix(&tensor, self.dim);
        let rounds = if call.training() { self.n_power_iterations } else { 0 };
        let [u, v] = self.iterate(call, &matrix, rounds);
        tensor / u.matmul(&matrix.matmul(&v))
    }

    fn right_inverse(&self, call: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        if tensor.shape().rank() > 1 {
            self.iterate(call, &matrix(&tensor, self.dim), FIRST_ITERATIONS);
        }
        Ok(tensor.into())
    }
}
