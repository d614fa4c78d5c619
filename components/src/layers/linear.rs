//! [`Linear`]: an affine map of the last axis; and its kind inside attention.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::module::repr::boolean;
use crate::module::{Call, Declare, Init, Module};

/// Maps the last axis affinely: `y = x · weightᵀ + bias`.
///
/// | value    | shape                         | at first                         |
/// |----------|-------------------------------|----------------------------------|
/// | `x`      | `[.., in_features]`           |                                  |
/// | `y`      | `[.., out_features]`          |                                  |
/// | `weight` | `[out_features, in_features]` | `U(-k, k)`, `k = 1/√in_features` |
/// | `bias`   | `[out_features]`              | as `weight`; absent if `!bias`   |
///
/// Immutable, because other sizes are another structure: insert a new value, which hooks see.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::Linear;
/// let linear = Linear::new(4, 16).without_bias();
/// assert_eq!(linear, Linear { in_features: 4, out_features: 16, bias: false });
/// ```
///
/// Source: `torch.nn.Linear`. `U(-k, k)` is its `kaiming_uniform_(a=√5)`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Linear {
    /// Size of the last axis of `x`.
    pub in_features: usize,
    /// Size of the last axis of `y`.
    pub out_features: usize,
    /// Whether there is a `bias`.
    pub bias: bool,
}

impl Linear {
    /// Makes a layer with a bias.
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Linear { in_features, out_features, bias: true }
    }

    /// Leaves the bias out: torch's `bias=False`.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Linear { bias: false, ..self }
    }
}

impl Module for Linear {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        declare.kaiming_parameter("weight", [self.out_features, self.in_features]);
        declare.optional_parameter("bias", self.bias.then_some([self.out_features]));
    }

    fn attributes(&self) -> &'static [&'static str] {
        &["in_features", "out_features", "reset_parameters"]
    }

    fn reset(&self, _: &str) -> Init {
        // Without inputs torch leaves the weight empty and the bias zero.
        if self.in_features == 0 {
            return Init::Zeros;
        }
        let high = 1.0 / (self.in_features as f64).sqrt();
        Init::Uniform { low: -high, high }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let weight = call.parameter("weight");
        let bias = call.optional_parameter("bias");
        x.linear(&weight, bias.as_ref())
    }

    fn extra_repr(&self) -> String {
        let Linear { in_features, out_features, bias } = self;
        let bias = boolean(*bias);
        format!("in_features={in_features}, out_features={out_features}, bias={bias}")
    }
}

/// The [`Linear`] that [`MultiheadAttention`](super::MultiheadAttention) has as `out_proj`. It is never called:
/// attention reads its `weight` and `bias`, whose shapes and first numbers are `Linear`'s.
///
/// Source: `torch.nn.modules.linear.NonDynamicallyQuantizableLinear`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct NonDynamicallyQuantizableLinear(pub Linear);

impl Module for NonDynamicallyQuantizableLinear {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        self.0.declare(declare);
    }

    fn attributes(&self) -> &'static [&'static str] {
        Module::attributes(&self.0)
    }

    fn reset(&self, name: &str) -> Init {
        self.0.reset(name)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        self.0.forward(call, x)
    }

    fn extra_repr(&self) -> String {
        self.0.extra_repr()
    }
}
