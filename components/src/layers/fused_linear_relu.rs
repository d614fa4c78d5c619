//! [`FusedLinearReLU`]: an affine map and a ReLU as one module.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use super::{Linear, ReLU, Sequential};
use crate::module::repr::boolean;
use crate::module::{Call, Declare, Module};

/// Maps the last axis affinely and cuts off what is negative: `y = max(0, x · weightᵀ + bias)`.
///
/// Its child `linear` is a [`Linear`], so a `state_dict` has `linear.weight` and `linear.bias`; it computes what that and a
/// [`ReLU`] do, to the bit, fused or not.
///
/// | value    | shape                         | at first                         |
/// |----------|-------------------------------|----------------------------------|
/// | `x`      | `[.., in_features]`           |                                  |
/// | `y`      | `[.., out_features]`          |                                  |
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::{FusedLinearReLU, Linear};
/// let fused = FusedLinearReLU::from(Linear::new(4, 16));
/// assert_eq!(fused, FusedLinearReLU::new(4, 16));
/// assert!(fused.is_fused && !fused.unfuse().is_fused);
/// assert_eq!(fused.to_sequential().get(0)?.downcast_ref(), Some(&Linear::new(4, 16)));
/// # Ok::<(), neurarch_components::layers::ContainerError>(())
/// ```
///
/// Source: `torch.ao.nn.intrinsic.LinearReLU`, which is a `Sequential` and so names its parameters `0.weight` and
/// `0.bias`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct FusedLinearReLU {
    /// Size of the last axis of `x`.
    pub in_features: usize,
    /// Size of the last axis of `y`.
    pub out_features: usize,
    /// Whether there is a `bias`.
    pub bias: bool,
    /// Whether the two count as one: `_is_fused`. It decides no bit, and models of either kind run together.
    pub is_fused: bool,
}

impl From<Linear> for FusedLinearReLU {
    fn from(Linear { in_features, out_features, bias }: Linear) -> Self {
        FusedLinearReLU { in_features, out_features, bias, is_fused: true }
    }
}

impl FusedLinearReLU {
    /// Makes a layer with a bias.
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Linear::new(in_features, out_features).into()
    }

    /// Returns the affine map alone.
    pub fn linear(&self) -> Linear {
        let FusedLinearReLU { in_features, out_features, bias, .. } = *self;
        Linear { in_features, out_features, bias }
    }

    /// Says that the two count as two. For live modules there is `fuse::unfuse` in the systems.
    #[must_use]
    pub fn unfuse(self) -> Self {
        FusedLinearReLU { is_fused: false, ..self }
    }

    /// Returns the two modules that it stands for. For live models there is `fuse::unfuse_linear_relu` in the systems.
    pub fn to_sequential(&self) -> Sequential {
        Sequential::new().push(self.linear()).push(ReLU)
    }
}

impl Module for FusedLinearReLU {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        declare.child("linear", self.linear());
    }

    fn attributes(&self) -> &'static [&'static str] {
        &["_is_fused", "unfuse"]
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        call.child("linear", &x).relu()
    }

    fn structural(&self) -> Self {
        FusedLinearReLU { is_fused: true, ..*self }
    }

    fn extra_repr(&self) -> String {
        format!("is_fused={}", boolean(self.is_fused))
    }
}
