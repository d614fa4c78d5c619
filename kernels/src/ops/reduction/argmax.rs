//! `argmax`: where along an axis the largest number stands.

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::tile::Tile;
use crate::device::code::{Cuda, Definition, DeviceCode};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::{Shape, Type, no_such_axis};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::computes;

/// Finds the first of the largest numbers along an axis; NaN counts as larger than all. There is no gradient.
#[derive(Clone, Copy, Debug)]
struct Argmax {
    axis: usize,
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn attributes(&self) -> String {
        format!("dim={}", self.axis)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("argmax: expected 1 input, got {}", inputs.len())));
        };
        computes("argmax", x)?;
        match x.shape.get(self.axis) {
            None => return Err(no_such_axis(self.axis as isize, &x.shape)),
            Some(0) => {
                let axis = self.axis;
                return Err(OpError(format!(
                    "argmax(): Expected reduction dim {axis} to have non-zero size."
                )));
            }
            Some(_) => {}
        }
        let axes = (0..x.shape.rank()).filter(|&axis| axis != self.axis);
        Ok(vec![Type::new(Dtype::I64, axes.map(|axis| x.shape[axis]).collect::<Shape>())])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let shape = &inputs[0].ty.shape;
            let (size, inner) = (shape[self.axis], shape[self.axis + 1..].iter().product());
            match inputs[0].ty.dtype {
                Dtype::F64 => argmax::<f64>(size, inner),
                _ => argmax::<f32>(size, inner),
            }
        })
        .give::<Cuda>(|inputs, outputs| {
            let shape = &inputs[0].ty.shape;
            let (size, inner) =
                (shape[self.axis], shape[self.axis + 1..].iter().product::<usize>());
            let width = outputs[0].ty.shape.numel();
            let call = format!("argmax<T, {width}, {size}, {inner}>(t, {{0}}, {{1}});");
            let definitions = vec![Definition::file("argmax", include_str!("argmax.cu"))];
            Box::new(DeviceCode { definitions, call, scratch_bytes: 0, width })
        });
    }
}

fn argmax<T: Number>(size: usize, inner: usize) -> Box<dyn Kernel> {
    Box::new(move |tile: &mut Tile<'_>| {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (x, y) = (inputs.get::<T>(0), outputs.take::<i64>());
            for (line, y) in y.iter_mut().enumerate() {
                let start = line / inner * size * inner + line % inner;
                let at = |i: usize| -> f64 { x[start + i * inner].into() };
                let larger = |a: f64, b: f64| a > b || (a.is_nan() && !b.is_nan());
                let most =
                    (1..size).fold(0, |most, i| if larger(at(i), at(most)) { i } else { most });
                *y = most as i64;
            }
        }
    })
}

impl Var {
    /// Gives along `dim` the place of the largest number, in i64: the first if there are several.
    ///
    /// # Shape
    ///
    /// The result lacks the axis `dim`.
    ///
    /// Source: `torch.argmax`.
    #[must_use]
    pub fn argmax(&self, dim: isize) -> Var {
        match self.shape().axis(dim) {
            Some(axis) => self.trace().apply(Argmax { axis }, &[self]),
            None => self.trace().fail(no_such_axis(dim, self.shape()).0),
        }
    }
}
