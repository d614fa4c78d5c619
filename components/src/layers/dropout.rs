//! [`Dropout`]: zeroes elements at random while training.

use bevy_ecs::prelude::*;
use neurarch_kernels::program::trace::Var;

use crate::module::{Call, Module};
use crate::repr::float;

/// In training mode, zeroes each element with probability `p` and multiplies the others by
/// `1 / (1 - p)`; in evaluation mode, gives `x` as it is.
///
/// `p` is a scalar slot: a sweep over it is one blueprint. The numbers drawn follow from the
/// population's seed, the model's number and the count of its steps, so that no neighbor changes them.
///
/// Source: `torch.nn.Dropout`. `p` outside of 0 to 1, which torch refuses, is clamped.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(summary_tick)]
pub struct Dropout {
    /// Probability that an element becomes 0.
    pub p: f64,
}

impl Default for Dropout {
    fn default() -> Self {
        Dropout { p: 0.5 }
    }
}

impl Module for Dropout {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        if !call.training() {
            return x;
        }
        let p = call.scalar("p", x.dtype());
        x.dropout(&p)
    }

    fn structural(&self) -> Self {
        Dropout { p: 0.0 }
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        (name == "p").then_some(self.p.clamp(0.0, 1.0))
    }

    fn extra_repr(&self) -> String {
        format!("p={}, inplace=False", float(self.p))
    }
}
