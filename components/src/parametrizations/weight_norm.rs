//! [`WeightNorm`]: a tensor as its length times its direction.

use bevy_ecs::prelude::*;
use neurarch_kernels::program::trace::Var;
use neurarch_kernels::program::tree::{Arguments, Tree};

use crate::module::{Call, Module, NoInverse};

/// Makes a tensor of its length `g` and its direction `v`: `g · v / ‖v‖`.
///
/// The norm is over all axes but `dim`, so that each slice along it has a length of its own, or over all of
/// them.
///
/// | value       | shape                                                               |
/// |-------------|---------------------------------------------------------------------|
/// | `original0` | `g`: that of the tensor with 1 for all axes but `dim`; `[]` without |
/// | `original1` | `v`: that of the tensor                                             |
///
/// Source: `torch.nn.utils.parametrizations.weight_norm`, whose `dim=-1` means all axes, as here.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
pub struct WeightNorm {
    /// The axis along which lengths differ; `None` and -1 stand for one length of all.
    pub dim: Option<isize>,
}

impl Default for WeightNorm {
    fn default() -> Self {
        WeightNorm { dim: Some(0) }
    }
}

impl WeightNorm {
    /// Gives the norm of `v` over all axes but `dim`.
    fn norm(&self, v: &Var) -> Var {
        let rank = v.shape().rank();
        let dim = match self.dim {
            None | Some(-1) => return v.square().sum(&[], false).sqrt(),
            Some(dim) => dim,
        };
        let Some(axis) = v.shape().axis(dim) else {
            let last = rank.max(1) as isize;
            return v.trace().fail(format!(
                "Dimension out of range (expected to be in range of [{}, {}], but got {dim})",
                -last,
                last - 1
            ));
        };
        let others: Vec<_> = (0..rank as isize).filter(|&other| other != axis as isize).collect();
        match others.is_empty() {
            true => v.square().sqrt(),
            false => v.square().sum(&others, true).sqrt(),
        }
    }
}

impl Module for WeightNorm {
    fn type_name(&self) -> &'static str {
        "_WeightNorm"
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match &arguments.positional[..] {
            [Tree::Leaf(g), Tree::Leaf(v)] if arguments.keyword.is_empty() => {
                (v * (g / self.norm(v))).into()
            }
            _ => {
                let given = arguments.positional.len();
                call.trace
                    .fail(format!("_WeightNorm.forward(): expected two Tensors, got {given}"))
                    .into()
            }
        }
    }

    fn right_inverse(&self, _: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        Ok((self.norm(&tensor), tensor).into())
    }
}
