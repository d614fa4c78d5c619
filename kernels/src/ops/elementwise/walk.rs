//! [`Walk`]: in which order elementwise kernels visit the elements of their inputs.

use crate::cpu::tile::Input;
use crate::ir::dtype::Element;
use crate::ir::shape::{Operand, Shape};

/// In which order the elements of `IN` inputs are visited, so that the output's lie one behind the
/// other. Axes that lie alike in all operands are joined.
#[derive(Debug)]
pub(crate) struct Walk<const IN: usize> {
    /// Sizes of the outer axes, slowest first, with each input's stride along them.
    pub(in crate::ops) outer: Vec<(usize, [usize; IN])>,
    /// Size of the inner axis.
    pub(in crate::ops) inner: usize,
    /// Each input's stride along the inner axis.
    pub(in crate::ops) steps: [usize; IN],
    /// Elements of the output.
    pub(in crate::ops) numel: usize,
    /// How many elements each input has up to the last one that is visited: `usize::MAX` if that cannot be counted.
    pub(in crate::ops) reach: [usize; IN],
}

impl<const IN: usize> Walk<IN> {
    /// Prepares the walk over an output that lies densely, and inputs that broadcast to it.
    pub(crate) fn new(inputs: &[Operand], output: &Operand) -> Self {
        let shape = &output.ty.shape;
        let mut axes: Vec<(usize, [usize; IN])> = Vec::with_capacity(shape.rank());
        for axis in output.layout.order(shape) {
            let strides: [usize; IN] =
                core::array::from_fn(|i| broadcast_stride(&inputs[i], shape, axis));
            match axes.last_mut() {
                _ if shape[axis] == 1 => {}
                Some((size, outer))
                    if (0..IN).all(|i| outer[i] == strides[i].saturating_mul(shape[axis])) =>
                {
                    (*size, *outer) = (*size * shape[axis], strides);
                }
                _ => axes.push((shape[axis], strides)),
            }
        }
        let numel = shape.numel();
        if numel == 0 {
            return Walk { outer: Vec::new(), inner: 0, steps: [0; IN], numel, reach: [0; IN] };
        }
        let along = |i: usize| {
            let spans = axes.iter().map(|(size, strides)| (size - 1).saturating_mul(strides[i]));
            spans.fold(1, usize::saturating_add)
        };
        let reach = core::array::from_fn(along);
        let (inner, steps) = axes.pop().unwrap_or((1, [0; IN]));
        Walk { outer: axes, inner, steps, numel, reach }
    }

    /// Asserts that inputs have the elements that are visited, in every model: what loops over elements build on.
    #[inline(always)]
    pub(super) fn assert_in_tile<T: Element>(&self, x: &[Input<'_, T>; IN]) {
        for (x, &reach) in x.iter().zip(&self.reach) {
            assert!(x.numel() >= reach, "a kernel meets the operands that it was made for");
        }
    }

    /// Asserts that the inputs of one model have the elements that are visited.
    #[inline(always)]
    pub(super) fn assert_within<T>(&self, x: &[&[T]; IN]) {
        for (x, &reach) in x.iter().zip(&self.reach) {
            assert!(x.len() >= reach, "a kernel meets the operands that it was made for");
        }
    }

    /// Counts the inner loops.
    pub(in crate::ops) fn n_rows(&self) -> usize {
        self.outer.iter().map(|(size, _)| size).product()
    }

    /// Gives each input's offset at the start of inner loop `row`.
    #[inline(always)]
    pub(in crate::ops) fn row(&self, row: usize) -> [usize; IN] {
        let mut offsets = [0; IN];
        let mut rest = row;
        for (place, (size, strides)) in self.outer.iter().enumerate().rev() {
            // The slowest axis needs no division.
            let i = if place == 0 { rest } else { rest % size };
            rest = if place == 0 { 0 } else { rest / size };
            for k in 0..IN {
                offsets[k] += i * strides[k];
            }
        }
        offsets
    }
}

/// Gives the stride of `input` along `axis` of the shape it broadcasts to.
fn broadcast_stride(input: &Operand, shape: &Shape, axis: usize) -> usize {
    match (axis + input.ty.shape.rank()).checked_sub(shape.rank()) {
        Some(own) if input.ty.shape[own] != 1 => input.layout[own],
        _ => 0,
    }
}
