//! The activations that other kernels can apply while they still hold the numbers in registers.

use super::gelu::{Approximate, Gelu};
use super::relu::Relu;
use super::sigmoid::Sigmoid;
use super::silu::Silu;
use super::tanh::Tanh;
use crate::arithmetic::Arithmetic;
use crate::ir::op::Op;
use crate::ops::elementwise::pointwise::{Formula, Pointwise};

/// An activation without settings of its own: a linear layer's kernel ends with it.
///
/// The formula is the op's own, so that fused or not, the bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationKind {
    /// [`Relu`].
    Relu,
    /// [`Tanh`].
    Tanh,
    /// [`Sigmoid`].
    Sigmoid,
    /// [`Silu`].
    Silu,
    /// [`Gelu`].
    Gelu(Approximate),
}

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

    /// Applies the activation.
    #[inline(always)]
    pub fn apply<A: Arithmetic>(self, x: A) -> A {
        let [y] = match self {
            ActivationKind::Relu => Relu.apply([x]),
            ActivationKind::Tanh => Tanh.apply([x]),
            ActivationKind::Sigmoid => Sigmoid.apply([x]),
            ActivationKind::Silu => Silu.apply([x]),
            ActivationKind::Gelu(approximate) => Gelu(approximate).apply([x]),
        };
        y
    }
}
