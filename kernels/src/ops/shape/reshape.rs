//! Other shapes for the same elements, counted row-major: `reshape`, `flatten`.

use super::copy::{CopyParts, Region};
use super::on_device;
use crate::cpu::kernel::Cpu;
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type, no_such_axis};
use crate::ir::trace::Var;

/// Gives the elements another shape.
#[derive(Clone, Debug)]
struct Reshape {
    from: Shape,
    to: Shape,
}

impl Reshape {
    /// Says whether only axes of size 1 come or go, so that any layout can stay.
    fn keeps_layout(&self) -> bool {
        let sizes = |shape: &Shape| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
        sizes(&self.from) == sizes(&self.to)
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn attributes(&self) -> String {
        format!("shape={}", self.to)
    }

    fn mixing(&self) -> Mixing {
        Mixing::Untouched
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("reshape: expected 1 input, got {}", inputs.len())));
        };
        if x.shape != self.from || x.shape.numel() != self.to.numel() {
            return Err(OpError(format!(
                "shape '{}' is invalid for input of size {}",
                self.to,
                x.shape.numel()
            )));
        }
        Ok(vec![Type { dtype: x.dtype, shape: self.to.clone() }])
    }

    fn copies_as_is(&self) -> bool {
        true
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        self.keeps_layout()
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let to = &outputs[0].shape;
        if !self.keeps_layout() {
            return vec![to.row_major()];
        }
        // The axes longer than 1 correspond one to one; the others may come first.
        let longer =
            |shape: &Shape| (0..shape.rank()).filter(|&a| shape[a] != 1).collect::<Vec<_>>();
        let (old, new) = (longer(&self.from), longer(to));
        let mut order: Vec<_> = (0..to.rank()).filter(|&axis| to[axis] == 1).collect();
        for axis in inputs[0].layout.order(&self.from) {
            if let Some(place) = old.iter().position(|&other| other == axis) {
                order.push(new[place]);
            }
        }
        vec![to.ordered(&order)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            CopyParts::one(Region::flat(&inputs[0]), inputs[0].ty.dtype.size_bytes())
        })
        .give::<Cuda>(|inputs, outputs| {
            let numel = outputs[0].ty.shape.numel();
            let call = format!("for (int i = t; i < {numel}; i += T) {{1}}[i] = {{0}}[i];");
            Box::new(on_device::code(&[call], inputs[0].ty.shape.numel()))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| dy.reshape(self.from.clone()))]
    }
}

impl Var {
    /// Gives the elements, counted row-major, shape `shape`.
    ///
    /// Source: `torch.reshape`, without -1 for a size that follows from the others.
    #[must_use]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Var {
        let to = shape.into();
        if *self.shape() == to {
            return self.clone();
        }
        self.trace().apply(Reshape { from: self.shape().clone(), to }, &[self])
    }

    /// Joins the axes from `start_dim` to `end_dim`, both included, into one.
    ///
    /// Source: `torch.flatten`.
    #[must_use]
    pub fn flatten(&self, start_dim: isize, end_dim: isize) -> Var {
        let shape = self.shape();
        if shape.rank() == 0 {
            return self.reshape([1]);
        }
        let (Some(start), Some(end)) = (shape.axis(start_dim), shape.axis(end_dim)) else {
            let wrong = if shape.axis(start_dim).is_none() { start_dim } else { end_dim };
            return self.trace().fail(no_such_axis(wrong, shape).0);
        };
        if start > end {
            return self
                .trace()
                .fail("flatten() has invalid args: start_dim cannot come after end_dim");
        }
        let joined = shape[start..=end].iter().product::<usize>();
        let sizes = shape[..start].iter().copied().chain([joined]);
        self.reshape(sizes.chain(shape[end + 1..].iter().copied()).collect::<Shape>())
    }
}
