//! What the loss, its gradient and both at once know.

use crate::ir::shape::Shape;
use crate::ops::reduction::reduce::Reduction;

/// What all three ops know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) ignore_index: i64,
    pub(super) reduction: Reduction,
    pub(super) has_weight: bool,
}

/// Which axis counts classes.
pub(super) fn class_axis(shape: &Shape) -> usize {
    usize::from(shape.rank() > 1)
}
