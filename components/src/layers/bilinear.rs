//! [`Bilinear`]: a product of two vectors for each output.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::module::repr::boolean;
use crate::module::{Call, Declare, Init, Module};

/// Computes `y_o = x1ᵀ · weight_o · x2 + bias_o`.
///
/// A module of `input1` and `input2`.
///
/// | value    | shape                                      | at first                          |
/// |----------|--------------------------------------------|-----------------------------------|
/// | `input1` | `[.., in1_features]`                       |                                   |
/// | `input2` | `[.., in2_features]`                       |                                   |
/// | `y`      | `[.., out_features]`                       |                                   |
/// | `weight` | `[out_features, in1_features, in2_features]` | `U(-k, k)`, `k = 1/√in1_features` |
/// | `bias`   | `[out_features]`                           | as `weight`; absent if `!bias`    |
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::Bilinear;
/// # use neurarch_components::module::repr::repr;
/// let bilinear = Bilinear::new(3, 2, 4);
/// let text = "Bilinear(in1_features=3, in2_features=2, out_features=4, bias=True)";
/// assert_eq!(repr(&bilinear), text);
/// ```
///
/// Source: `torch.nn.Bilinear`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Bilinear {
    /// Size of the last axis of `input1`; 0 is an error of the first call.
    pub in1_features: usize,
    /// Size of the last axis of `input2`.
    pub in2_features: usize,
    /// Size of the last axis of `y`.
    pub out_features: usize,
    /// Whether there is a `bias`.
    pub bias: bool,
}

impl Bilinear {
    /// Makes a layer with a bias.
    pub fn new(in1_features: usize, in2_features: usize, out_features: usize) -> Self {
        Bilinear { in1_features, in2_features, out_features, bias: true }
    }
}

impl Module for Bilinear {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        let Bilinear { in1_features, in2_features, out_features, bias } = *self;
        declare.parameter("weight", [out_features, in1_features, in2_features]);
        declare.optional_parameter("bias", bias.then_some([out_features]));
    }

    fn reset(&self, _: &str) -> Init {
        if self.in1_features == 0 {
            return Init::Zeros;
        }
        let high = 1.0 / (self.in1_features as f64).sqrt();
        Init::Uniform { low: -high, high }
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([a, b]) = call.named_values(arguments, ["input1", "input2"]) else {
            return call.trace.poison().into();
        };
        if self.in1_features == 0 {
            return call.trace.fail("in1_features must be > 0, but got 0").into();
        }
        let bias = call.optional_parameter("bias");
        a.bilinear(&b, &call.parameter("weight"), bias.as_ref()).into()
    }

    fn extra_repr(&self) -> String {
        let Bilinear { in1_features, in2_features, out_features, bias } = self;
        format!(
            "in1_features={in1_features}, in2_features={in2_features}, out_features={out_features}, bias={}",
            boolean(*bias)
        )
    }
}
