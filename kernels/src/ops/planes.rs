//! [`Planes`]: where the channels of a value lie whose spatial axes are row-major, one behind the other.

use crate::ir::shape::Operand;

/// Where each channel starts, in the order in which the shape counts them.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Planes {
    starts: Vec<usize>,
}

impl Planes {
    /// Lists the channels if the last `spatial` axes lie row-major.
    pub(in crate::ops) fn new(operand: &Operand, spatial: usize) -> Option<Self> {
        let (shape, layout) = (&operand.ty.shape, &operand.layout);
        let first = shape.rank().checked_sub(spatial)?;
        let mut stride = 1;
        for axis in (first..shape.rank()).rev() {
            if shape[axis] != 1 && layout[axis] != stride {
                return None;
            }
            stride *= shape[axis].max(1);
        }
        if shape.numel() == 0 {
            return Some(Planes { starts: Vec::new() });
        }
        let mut starts = vec![0];
        for axis in 0..first {
            let next = |start: &usize| {
                let start = *start;
                (0..shape[axis]).map(move |i| start + i * layout[axis])
            };
            starts = starts.iter().flat_map(next).collect();
        }
        Some(Planes { starts })
    }

    /// Lists the channels of an operand that a kernel was promised to take.
    pub(in crate::ops) fn row_major_or(operand: &Operand, spatial: usize) -> Self {
        Planes::new(operand, spatial).unwrap_or_else(|| {
            let whole = Operand::row_major(operand.ty.clone());
            Planes::new(&whole, spatial).unwrap_or(Planes { starts: Vec::new() })
        })
    }

    /// Orders axes, from slowest to fastest, as those of `like` before the spatial ones, then these.
    pub(in crate::ops) fn order(like: &Operand, spatial: usize) -> Vec<usize> {
        let (shape, first) = (&like.ty.shape, like.ty.shape.rank().saturating_sub(spatial));
        let leading = like.layout.order(shape).into_iter().filter(|&axis| axis < first);
        leading.chain(first..shape.rank()).collect()
    }

    /// Lists the channels' numbers in the order in which the channels lie.
    pub(in crate::ops) fn in_place(&self) -> Vec<usize> {
        let mut numbers: Vec<_> = (0..self.starts.len()).collect();
        numbers.sort_by_key(|&number| self.starts[number]);
        numbers
    }

    /// Gives channel `number`, of `numel` elements.
    pub(in crate::ops) fn channel<'a, T>(
        &self,
        of: &'a [T],
        number: usize,
        numel: usize,
    ) -> &'a [T] {
        if numel == 0 { &[] } else { &of[self.starts[number]..][..numel] }
    }
}
