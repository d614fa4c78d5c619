//! The spatial axes of a convolution, and how items and channels lie.

use core::ops::Range;

use crate::ir::shape::Operand;

/// One spatial axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Size of the input.
    pub(super) x: usize,
    /// Size of the kernel.
    pub(super) k: usize,
    /// Size of the output.
    pub(super) y: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the input.
    pub(super) low: usize,
}

impl Axis {
    /// Gives where element `k` of the kernel looks from position `y`, if that is within the input.
    pub(super) fn at(&self, y: usize, k: usize) -> Option<usize> {
        (y * self.stride + k * self.dilation).checked_sub(self.low).filter(|&x| x < self.x)
    }

    /// Gives which of positions `from..from + n` look within the input through element `k` of the kernel,
    /// counted from `from` on, and where the first of them looks.
    pub(super) fn within(&self, from: usize, n: usize, k: usize) -> (Range<usize>, usize) {
        let start = from * self.stride + k * self.dilation;
        let first = self.low.saturating_sub(start).div_ceil(self.stride).min(n);
        let end = (self.low + self.x).saturating_sub(start).div_ceil(self.stride).clamp(first, n);
        (first..end, (start + first * self.stride).saturating_sub(self.low))
    }
}

/// Strides of items and of channels, where each channel's numbers lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planes {
    pub(super) item: usize,
    pub(super) channel: usize,
}

/// Gives the strides of items and channels if the spatial axes lie row-major.
pub(super) fn planes(operand: &Operand) -> Option<Planes> {
    let (shape, layout) = (&operand.ty.shape, &operand.layout);
    let mut stride = 1;
    for axis in (2..shape.rank()).rev() {
        if shape[axis] != 1 && layout[axis] != stride {
            return None;
        }
        stride *= shape[axis];
    }
    Some(Planes { item: layout[0], channel: layout[1] })
}
