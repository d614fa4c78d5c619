//! [`FusedLinearReLU`]: an affine map and a ReLU as one module.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;

use super::{Linear, ReLU, Sequential};
use crate::module::{Call, Declare, Init, Module};

/// Maps the last axis affinely and cuts off what is negative: `y = max(0, x · weightᵀ + bias)`.
///
/// Its parameters, their first numbers and their names in a `state_dict` are those of a [`Linear`]; it computes what a
/// `Linear` and a [`ReLU`] do, to the bit.
///
/// | value    | shape                         | at first                         |
/// |----------|-------------------------------|----------------------------------|
/// | `x`      | `[.., in_features]`           |                                  |
/// | `y`      | `[.., out_features]`          |                                  |
/// | `weight` | `[out_features, in_features]` | `U(-k, k)`, `k = 1/√in_features` |
/// | `bias`   | `[out_features]`              | as `weight`; absent if `!bias`   |
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::{FusedLinearReLU, Linear};
/// let fused = FusedLinearReLU::from(Linear::new(4, 16));
/// assert_eq!(fused, FusedLinearReLU { in_features: 4, out_features: 16, bias: true });
/// assert_eq!(fused.unfuse().get(0)?.downcast_ref(), Some(&Linear::new(4, 16)));
/// # Ok::<(), neurarch_components::layers::ContainerError>(())
/// ```
///
/// Source: `torch.ao.nn.intrinsic.LinearReLU`, which is a `Sequential` and so names its parameters `0.weight` and
/// `0.bias`; its quantized kin name them as here.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
pub struct FusedLinearReLU {
    /// Size of the last axis of `x`.
    pub in_features: usize,
    /// Size of the last axis of `y`.
    pub out_features: usize,
    /// Whether there is a `bias`.
    pub bias: bool,
}

impl From<Linear> for FusedLinearReLU {
    fn from(Linear { in_features, out_features, bias }: Linear) -> Self {
        FusedLinearReLU { in_features, out_features, bias }
    }
}

impl FusedLinearReLU {
    /// Makes a layer with a bias.
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Linear::new(in_features, out_features).into()
    }

    /// Gives the affine map alone.
    pub fn linear(&self) -> Linear {
        let FusedLinearReLU { in_features, out_features, bias } = *self;
        Linear { in_features, out_features, bias }
    }

    /// Gives the two modules that it stands for. For live models there is `fuse::unfuse_linear_relu` in the systems.
    pub fn unfuse(&self) -> Sequential {
        Sequential::new().push(self.linear()).push(ReLU)
    }
}

impl Module for FusedLinearReLU {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        self.linear().declare(declare);
    }

    fn attributes(&self) -> &'static [&'static str] {
        &["in_features", "out_features", "reset_parameters"]
    }

    fn reset(&self, name: &str) -> Init {
        self.linear().reset(name)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        self.linear().forward(call, x).relu()
    }

    fn extra_repr(&self) -> String {
        self.linear().extra_repr()
    }
}
