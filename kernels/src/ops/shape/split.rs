//! All parts of an axis: `split`, whose gradient is one `cat`.

use std::sync::Arc;

use super::copy::{CopyApart, Region};
use super::on_device;
use super::slice::{window, with_size};
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type, no_such_axis};
use crate::ir::trace::Var;

/// Gives the first `sizes[0]` indices of an axis, then the next `sizes[1]`, ….
#[derive(Clone, Debug)]
struct Split {
    axis: usize,
    sizes: Arc<[usize]>,
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn attributes(&self) -> String {
        format!("dim={} {:?}", self.axis, self.sizes)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("split: expected 1 input, got {}", inputs.len())));
        };
        let size = x.shape.get(self.axis).copied();
        let size = size.ok_or_else(|| no_such_axis(self.axis as isize, &x.shape))?;
        let sum = self.sizes.iter().try_fold(0_usize, |sum, &size| sum.checked_add(size));
        if sum != Some(size) {
            return Err(OpError(format!(
                "split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at dimension \
                 {}), but got split_sizes={:?}",
                self.axis, self.sizes
            )));
        }
        let part =
            |&size: &usize| Type { dtype: x.dtype, shape: with_size(&x.shape, self.axis, size) };
        Ok(self.sizes.iter().map(part).collect())
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let order = inputs[0].layout.order(&inputs[0].ty.shape);
        outputs.iter().map(|ty| ty.shape.ordered(&order)).collect()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let stride = inputs[0].layout[self.axis];
            let mut start = 0;
            let part = |to: &Operand| {
                let from = window(&inputs[0], &to.ty.shape);
                let part = Region::new((&from, start * stride), (to, 0));
                start += to.ty.shape[self.axis];
                part
            };
            let parts = outputs.iter().map(part).collect();
            CopyApart { parts, element_bytes: inputs[0].ty.dtype.size_bytes() }.kernel()
        })
        .give::<Cuda>(|inputs, outputs| {
            let stride = inputs[0].layout[self.axis];
            let mut start = 0;
            let copy = |(number, to): (usize, &Operand)| {
                let from = window(&inputs[0], &to.ty.shape);
                let copy = on_device::copy((0, &from, start * stride), (1 + number, to, 0));
                start += to.ty.shape[self.axis];
                copy
            };
            let loops: Vec<_> = outputs.iter().enumerate().map(copy).collect();
            Box::new(on_device::code(&loops, inputs[0].ty.shape.numel()))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        if at.gradients.iter().all(Option::is_none) {
            return vec![None];
        }
        let whole = |(y, dy): (&Var, &Option<Var>)| {
            dy.clone().unwrap_or_else(|| y.trace().constant(0.0, y.dtype(), y.shape().clone()))
        };
        let parts: Vec<_> = at.outputs.iter().zip(at.gradients).map(whole).collect();
        vec![Some(Var::cat(&parts.iter().collect::<Vec<_>>(), self.axis as isize))]
    }
}

impl Var {
    /// Gives the parts of the value along `axis`, of these sizes, which add up to that of the axis.
    ///
    /// Source: `torch.split`.
    #[must_use]
    pub fn split(&self, axis: isize, sizes: &[usize]) -> Vec<Var> {
        match self.shape().axis(axis) {
            Some(axis) => {
                let op = Split { axis, sizes: sizes.into() };
                self.trace().apply_all(Arc::new(op), &[self], sizes.len())
            }
            None => {
                let poison = self.trace().fail(no_such_axis(axis, self.shape()).0);
                vec![poison; sizes.len()]
            }
        }
    }

    /// Returns `N` parts of one size of the value along `axis`.
    ///
    /// Source: `torch.chunk`, of a size that is a multiple of `N`.
    #[must_use]
    pub fn chunk<const N: usize>(&self, axis: isize) -> [Var; N] {
        let size = self.shape().axis(axis).map_or(0, |axis| self.shape()[axis]);
        let parts = self.split(axis, &[size / N.max(1); N]);
        parts.try_into().unwrap_or_else(|_| unreachable!("split gives as many as asked for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::dtype::Dtype;
    use crate::ir::trace::Trace;
    use crate::testing::{Array, check_gradient, check_layouts};

    fn x() -> Array {
        Array::from_fn(Dtype::F64, [2, 4, 3], |i| i as f64 / 7.0)
    }

    #[test]
    fn parts_are_those_that_slice_gives() {
        for part in 0..3 {
            let split = |v: &[Var]| v[0].split(1, &[1, 2, 1]).swap_remove(part);
            let range = [0..1, 1..3, 3..4][part].clone();
            let slice = |v: &[Var]| v[0].slice(1, range.clone());
            assert_eq!(check_layouts(split, &[x()]), check_layouts(slice, &[x()]));
        }
    }

    #[test]
    fn parts_that_nothing_depends_on_have_a_gradient_of_zeros() {
        let first_and_last = |v: &[Var]| {
            let [a, _, c] = v[0].chunk(-1);
            a * c
        };
        check_gradient(first_and_last, &[x()], 1e-6);
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        let trace = Trace::new();
        let x = trace.input(Type::new(Dtype::F32, [4]));
        let _ = x.split(0, &[1, 2]);
        let error = trace.error().map(|error| error.message).unwrap_or_default();
        assert!(error.starts_with("split_with_sizes expects split_sizes to sum exactly to 4"));
    }
}
