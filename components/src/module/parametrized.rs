//! How a blueprint says that a tensor is computed from others: [`Parametrizations`] and [`WeightNormed`].

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::registry::tell_change;

/// The name of the child that holds a module's parametrizations.
pub const PARAMETRIZATIONS: &str = "parametrizations";

/// Holds a [`ParametrizationList`](crate::parametrizations::ParametrizationList) for each parametrized tensor of its parent, under the tensor's name.
///
/// Source: `module.parametrizations`, a `torch.nn.ModuleDict`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Parametrizations;

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
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Says that tensors of this module are made of a length `weight_g` and a direction `weight_v` of its own: the
/// older form of [`WeightNorm`]. A component of the module's entity.
///
/// Source: `torch.nn.utils.weight_norm`.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[component(immutable, on_insert = tell_change, on_remove = tell_change)]
pub struct WeightNormed(pub Vec<(String, Option<isize>)>);

impl WeightNormed {
    /// Finds how a tensor of that name is made.
    pub fn find(&self, name: &str) -> Option<WeightNorm> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|&(_, dim)| WeightNorm { dim })
    }

    /// Returns the name of the tensor that a parameter is the length or the direction of.
    pub fn tensor<'a>(&'a self, parameter: &str) -> Option<&'a str> {
        let base = parameter.strip_suffix("_g").or_else(|| parameter.strip_suffix("_v"))?;
        self.0.iter().map(|(known, _)| known.as_str()).find(|known| *known == base)
    }
}

impl WeightNorm {
    /// Returns the tensor of length `g` and direction `v`.
    pub fn join(&self, g: &Var, v: &Var) -> Var {
        v * (g / self.norm(v))
    }

    /// Returns the shape of the lengths of a tensor; `None` if it has no axis `dim`.
    pub fn lengths(&self, shape: &Shape) -> Option<Shape> {
        match self.dim {
            None | Some(-1) => Some(Shape::from([])),
            Some(dim) => {
                let kept = shape.axis(dim)?;
                let sizes = shape.iter().enumerate();
                Some(sizes.map(|(axis, &size)| if axis == kept { size } else { 1 }).collect())
            }
        }
    }

    /// Returns the norm of `v` over all axes but `dim`.
    pub fn norm(&self, v: &Var) -> Var {
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
