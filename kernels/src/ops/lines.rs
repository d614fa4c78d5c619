//! The lines of a value along one axis: what softmax and cross entropy work on, a vector of lines at a
//! time, each line in a lane of its own.
//!
//! Where lines start side by side, a vector reads them where they lie; elsewhere a block of them is brought
//! together in scratch memory. A lane sees the same numbers in the same order either way.

use crate::cpu::simd::{Float, MAX_LANES, Simd};
use crate::cpu::transpose::transpose;
use crate::ir::shape::Operand;
use crate::memory::padded;

/// Where the lines of an operand along one axis lie.
#[derive(Debug)]
pub(in crate::ops) struct Lines {
    /// Offset of each line's first element.
    starts: Vec<usize>,
    /// For each line, how many from it on start side by side.
    runs: Vec<usize>,
    /// Elements from one element of a line to the next.
    stride: usize,
    /// Elements from each line's start to the next one's, if they are evenly apart.
    apart: Option<usize>,
    /// Elements of a line.
    pub(in crate::ops) len: usize,
    /// Elements of the operand.
    numel: usize,
}

impl Lines {
    /// Lists the lines along `axis`; in which order, `order` says: all axes, from slowest to fastest.
    pub(in crate::ops) fn new(operand: &Operand, axis: usize, order: &[usize]) -> Self {
        operand.assert_addressable();
        let numel = operand.ty.shape.numel();
        // Lines of no elements need no place: there may be more of them than anything has room for.
        let mut starts = vec![0; usize::from(numel > 0)];
        for &other in order.iter().filter(|&&other| other != axis) {
            let (size, stride) = (operand.ty.shape[other], operand.layout[other]);
            starts = starts
                .iter()
                .flat_map(|start| (0..size).map(move |i| start + i * stride))
                .collect();
        }
        let mut runs = vec![1; starts.len()];
        for line in (1..starts.len()).rev() {
            if starts[line] == starts[line - 1] + 1 {
                runs[line - 1] = runs[line] + 1;
            }
        }
        let apart = starts.get(1).map_or(Some(1), |second| second.checked_sub(starts[0]));
        let is_even = |apart: &usize| starts.is_sorted_by(|one, next| one + apart == *next);
        let apart = apart.filter(is_even);
        let (stride, len) = (operand.layout[axis], operand.ty.shape[axis]);
        Lines { starts, runs, stride, apart, len, numel }
    }

    /// Asserts that operands have the elements of these lines: what addresses of [`read`](Lines::read) and
    /// [`write`](Lines::write) build on.
    #[inline(always)]
    pub(in crate::ops) fn assert_all_in(&self, numel: usize) {
        assert!(numel == self.numel, "a kernel meets the operands that it was made for");
    }

    /// Gives the bytes of the lists.
    pub(in crate::ops) fn table_bytes(&self) -> usize {
        size_of_val(self.starts.as_slice()) + size_of_val(self.runs.as_slice())
    }

    /// Counts the lines.
    pub(in crate::ops) fn count(&self) -> usize {
        self.starts.len()
    }

    /// Gives the offsets of the lines' first elements.
    pub(in crate::ops) fn into_starts(self) -> Vec<usize> {
        self.starts
    }

    /// Gives the number of elements of scratch memory that a block needs.
    pub(in crate::ops) fn scratch_len(&self) -> usize {
        if self.starts.is_empty() { 0 } else { self.len * MAX_LANES }
    }

    /// Gives address and stride at which the elements of lines `line` to `line + n - 1` can be read,
    /// `lanes` at a time: where they are, or in `scratch`.
    #[inline(always)]
    pub(in crate::ops) fn read<T: Float, S: Simd>(
        &self,
        x: &[T],
        (line, n, lanes): (usize, usize, usize),
        scratch: &mut [T],
    ) -> (*const T, usize) {
        if self.runs[line] >= n {
            return (x.as_ptr().wrapping_add(self.starts[line]), self.stride);
        }
        match self.apart {
            Some(apart) if self.stride == 1 => {
                transpose::<T, S>(&x[self.starts[line]..], apart, scratch, lanes, n, self.len);
            }
            _ => {
                for (lane, &start) in self.starts[line..line + n].iter().enumerate() {
                    for i in 0..self.len {
                        scratch[i * lanes + lane] = x[start + i * self.stride];
                    }
                }
            }
        }
        (scratch.as_ptr(), lanes)
    }

    /// Gives address and stride at which the elements of such lines can be written and read again; if
    /// that is in `scratch`, [`finish`](Lines::finish) puts them where they belong. `y` is the operand from its
    /// element `base` on.
    #[inline(always)]
    pub(in crate::ops) fn write<T: Float>(
        &self,
        y: &mut [T],
        base: usize,
        (line, n, lanes): (usize, usize, usize),
        scratch: &mut [T],
    ) -> (*mut T, usize) {
        if self.runs[line] >= n {
            (y.as_mut_ptr().wrapping_add(self.starts[line] - base), self.stride)
        } else {
            (scratch.as_mut_ptr(), lanes)
        }
    }

    /// Puts the elements that were written at [`write`](Lines::write) where they belong.
    #[inline(always)]
    pub(in crate::ops) fn finish<T: Float, S: Simd>(
        &self,
        y: &mut [T],
        base: usize,
        (line, n, lanes): (usize, usize, usize),
        scratch: &[T],
    ) {
        if self.runs[line] >= n {
            return;
        }
        if let Some(apart) = self.apart.filter(|_| self.stride == 1) {
            let y = &mut y[self.starts[line] - base..];
            transpose::<T, S>(scratch, lanes, y, apart, self.len, n);
        } else {
            for (lane, &start) in self.starts[line..line + n].iter().enumerate() {
                for i in 0..self.len {
                    y[start - base + i * self.stride] = scratch[i * lanes + lane];
                }
            }
        }
    }
}

/// Gives the bytes that parts of scratch memory with these numbers of elements take.
pub(in crate::ops) fn scratch_bytes<T>(lens: &[usize]) -> usize {
    lens.iter().map(|len| padded(len * size_of::<T>())).sum()
}

/// Splits parts of these numbers of elements from scratch memory.
#[inline(always)]
pub(in crate::ops) fn carve<T: bytemuck::Pod, const N: usize>(
    scratch: &mut [u8],
    lens: [usize; N],
) -> [&mut [T]; N] {
    let mut rest = scratch;
    lens.map(|len| {
        let (part, others) = core::mem::take(&mut rest).split_at_mut(padded(len * size_of::<T>()));
        rest = others;
        &mut bytemuck::cast_slice_mut(part)[..len]
    })
}
