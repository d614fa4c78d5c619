//! Lazy layers: their shapes are inferred from what they are first called with.

pub(crate) mod norm_conv;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::layers::Linear;
use crate::module::{Call, Declare, DynModule, Init, Module};

/// A [`Linear`] whose `in_features` is the size of the last axis of what it is first called with; then it
/// becomes that [`Linear`], in all models of the population at once.
///
/// Source: `torch.nn.LazyLinear`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct LazyLinear {
    /// Size of the last axis of `x`, if a `state_dict` said it; `None` until then.
    pub in_features: Option<usize>,
    /// Size of the last axis of `y`.
    pub out_features: usize,
    /// Whether there is a `bias`.
    pub bias: bool,
}

impl LazyLinear {
    /// Makes a layer with a bias.
    pub fn new(out_features: usize) -> Self {
        LazyLinear { in_features: None, out_features, bias: true }
    }

    /// Leaves the bias out: torch's `bias=False`.
    #[must_use]
    pub fn without_bias(self) -> Self {
        LazyLinear { bias: false, ..self }
    }

    fn linear(&self, in_features: usize) -> Linear {
        Linear { in_features, out_features: self.out_features, bias: self.bias }
    }
}

impl Module for LazyLinear {
    fn declare(&self, declare: &mut Declare) {
        Module::declare(&self.linear(self.in_features.unwrap_or(0)), declare);
        if self.in_features.is_none() {
            declare.uninitialized("weight").uninitialized("bias");
        }
    }

    fn reset(&self, name: &str) -> Init {
        Module::reset(&self.linear(self.in_features.unwrap_or(0)), name)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        Module::forward(&self.linear(self.in_features.unwrap_or(0)), call, x)
    }

    fn extra_repr(&self) -> String {
        Module::extra_repr(&self.linear(self.in_features.unwrap_or(0)))
    }

    fn is_lazy(&self) -> bool {
        true
    }

    fn initialize_parameters(
        &self,
        call: &Call<'_>,
        arguments: &Arguments,
    ) -> Option<Box<dyn DynModule>> {
        let Some(Tree::Leaf(x)) = arguments.positional.first() else { return None };
        match x.shape().last() {
            Some(&in_features) => Some(Box::new(self.linear(in_features))),
            None => {
                call.trace.fail("LazyLinear: expected an input with at least one axis, got []");
                None
            }
        }
    }

    fn materialize(&self, name: &str, shape: &Shape) -> Option<Box<dyn DynModule>> {
        match (name, &**shape) {
            ("weight", &[_, in_features]) => {
                Some(Box::new(LazyLinear { in_features: Some(in_features), ..*self }))
            }
            _ => None,
        }
    }
}
