//! What a reduction computes, and along which axes.

use crate::ir::shape::Shape;

/// What a [`Reduce`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sum,
    Mean,
    Amax,
}

/// Reduces some axes.
#[derive(Clone, Debug)]
pub(super) struct Reduce {
    pub(super) kind: Kind,
    /// The axes, ascending.
    pub(super) axes: Vec<usize>,
    /// Those of them that the result does not have; it has the others with size 1.
    pub(super) dropped: Vec<usize>,
}

impl Reduce {
    /// Gives the shape with size 1 along the reduced axes.
    pub(super) fn kept(&self, shape: &Shape) -> Shape {
        (0..shape.rank())
            .map(|axis| if self.axes.contains(&axis) { 1 } else { shape[axis] })
            .collect()
    }
}
