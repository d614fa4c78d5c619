//! Which ops are [activations that kernels of products end with](ActivationKind).

use crate::arithmetic::activation::ActivationKind;
use crate::ir::op::Op;
use crate::ops::activation::gelu::Gelu;
use crate::ops::activation::relu::Relu;
use crate::ops::activation::sigmoid::Sigmoid;
use crate::ops::activation::silu::Silu;
use crate::ops::activation::tanh::Tanh;
use crate::ops::elementwise::pointwise::{Formula, Pointwise};

impl ActivationKind {
    /// Recognizes an activation's op.
    pub fn of(op: &dyn Op) -> Option<ActivationKind> {
        Pointwise::<Relu, 1, 1>::of(op)
            .map(|_| ActivationKind::Relu)
            .or_else(|| Pointwise::<Tanh, 1, 1>::of(op).map(|_| ActivationKind::Tanh))
            .or_else(|| Pointwise::<Sigmoid, 1, 1>::of(op).map(|_| ActivationKind::Sigmoid))
            .or_else(|| Pointwise::<Silu, 1, 1>::of(op).map(|_| ActivationKind::Silu))
            .or_else(|| {
                Pointwise::<Gelu, 1, 1>::of(op)
                    .map(|Gelu(approximate)| ActivationKind::Gelu(approximate))
            })
    }

    /// Gives the activation's op as it is printed: its name, and its attributes if there are some.
    pub fn printed(self) -> String {
        let (name, attributes) = match self {
            ActivationKind::Relu => (Relu.name(), Relu.attributes()),
            ActivationKind::Tanh => (Tanh.name(), Tanh.attributes()),
            ActivationKind::Sigmoid => (Sigmoid.name(), Sigmoid.attributes()),
            ActivationKind::Silu => (Silu.name(), Silu.attributes()),
            ActivationKind::Gelu(approximate) => {
                (Gelu(approximate).name(), Gelu(approximate).attributes())
            }
        };
        let space = if attributes.is_empty() { "" } else { " " };
        format!("{name}{space}{attributes}")
    }
}
