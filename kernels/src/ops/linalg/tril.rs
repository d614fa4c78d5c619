//! `tril`: the lower triangle of matrices, zeros above.

use super::matrices::sizes;
use crate::cpu::kernel::Cpu;
use crate::cpu::simd::Float;
use crate::cpu::tile::Tile;
use crate::device::code::{Cuda, DeviceCode};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;

/// Keeps the elements at and below the diagonal of that number; those above become zero.
#[derive(Clone, Copy, Debug)]
struct Tril {
    /// How many diagonals above the main one are kept; negative: how many below it go, itself included.
    diagonal: isize,
}

impl Op for Tril {
    fn name(&self) -> &'static str {
        "tril"
    }

    fn attributes(&self) -> String {
        format!("diagonal={}", self.diagonal)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("tril: expected 1 input, got {}", inputs.len())));
        };
        sizes("tril", x)?;
        Ok(vec![x.clone()])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let Tril { diagonal } = *self;
            let shape = &inputs[0].ty.shape;
            let (rows, columns) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
            match inputs[0].ty.dtype {
                Dtype::F64 => {
                    Box::new(move |tile: &mut Tile<'_>| keep::<f64>(tile, rows, columns, diagonal))
                }
                _ => {
                    Box::new(move |tile: &mut Tile<'_>| keep::<f32>(tile, rows, columns, diagonal))
                }
            }
        })
        .give::<Cuda>(|inputs, _| {
            let shape = &inputs[0].ty.shape;
            let (rows, columns) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
            let width = shape.numel();
            let diagonal = self.diagonal.clamp(-(rows as isize), columns as isize);
            let call = format!(
                "for (int i = t; i < {width}; i += T) \
                 {{1}}[i] = i % {columns} <= i / {columns} % {rows} + {diagonal} ? {{0}}[i] : 0;"
            );
            Box::new(DeviceCode { call, width, ..DeviceCode::default() })
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![at.gradients[0].as_ref().map(|dy| dy.tril(self.diagonal))]
    }
}

fn keep<T: Float>(tile: &mut Tile<'_>, rows: usize, columns: usize, diagonal: isize) {
    for model in 0..tile.models() {
        let (inputs, mut outputs, _) = tile.model(model).split();
        let (x, y) = (inputs.get::<T>(0), outputs.take::<T>());
        let lines = x.chunks(columns.max(1)).zip(y.chunks_mut(columns.max(1)));
        for (line, (x, y)) in lines.enumerate() {
            let last = ((line % rows.max(1)) as isize).saturating_add(diagonal);
            for (column, (x, y)) in x.iter().zip(y).enumerate() {
                *y = if column as isize <= last { *x } else { T::default() };
            }
        }
    }
}

impl Var {
    /// Keeps the lower triangle of matrices, up to the diagonal of that number: 0 is the main one, those
    /// above count up. Elements above it become zero.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::testing::{Array, evaluate};
    /// let x = Array::new(Dtype::F32, [2, 2], [1.0, 2.0, 3.0, 4.0]);
    /// let y = evaluate(|v| v[0].tril(0), &[x], &[]);
    /// assert_eq!(y.elements, [1.0, 0.0, 3.0, 4.0]);
    /// ```
    ///
    /// Source: `torch.tril`.
    #[must_use]
    pub fn tril(&self, diagonal: isize) -> Var {
        self.trace().apply(Tril { diagonal }, &[self])
    }
}
