//! `embedding`: rows of a table, chosen by whole numbers.
//!
//! Source: `torch.nn.functional.embedding`. A number that names no row gives a row of NaN and has no gradient,
//! where torch raises "index out of range in self".

use core::marker::PhantomData;

use super::elementwise::computes;
use super::lines::{carve, scratch_bytes};
use super::number::Number;
use crate::cpu::tile::Tile;
use crate::dtype::Dtype;
use crate::op::{GradientAt, Kernel, Op, OpError};
use crate::program::trace::Var;
use crate::shape::{Operand, Shape, Type};

/// Inputs the indices and the table.
#[derive(Clone, Copy, Debug)]
struct Embedding {
    padding_idx: Option<usize>,
    scale_grad_by_freq: bool,
}

/// The gradient of the table from the indices and `dy`.
#[derive(Clone, Copy, Debug)]
struct EmbeddingGradient {
    embedding: Embedding,
    /// Rows of the table.
    rows: usize,
}

/// The number of the row that an index names.
fn row_of(index: i64, rows: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|&row| row < rows)
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn attributes(&self) -> String {
        format!("padding_idx={:?} scale_grad_by_freq={}", self.padding_idx, self.scale_grad_by_freq)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [index, table] = inputs else {
            return Err(OpError(format!("embedding: expected 2 inputs, got {}", inputs.len())));
        };
        computes("embedding", table)?;
        if index.dtype != Dtype::I64 {
            return Err(OpError(format!(
                "Expected tensor for argument #1 'indices' to have scalar type Long; but got {} instead",
                index.dtype
            )));
        }
        if table.shape.rank() != 2 {
            return Err(OpError("'weight' must be 2-D".into()));
        }
        let shape = index.shape.iter().copied().chain([table.shape[1]]).collect();
        Ok(vec![Type { dtype: table.dtype, shape }])
    }

    fn kernel(&self, inputs: &[Operand], _: &[Operand]) -> Box<dyn Kernel> {
        fn of<T: Number>([rows, columns]: [usize; 2]) -> Box<dyn Kernel> {
            Box::new(move |tile: &mut Tile<'_>| {
                for model in 0..tile.models() {
                    let (inputs, mut outputs, _) = tile.model(model).split();
                    let (indices, table) = (inputs.get::<i64>(0), inputs.get::<T>(1));
                    let y = outputs.take::<T>().chunks_exact_mut(columns.max(1));
                    for (&index, y) in indices.iter().zip(y) {
                        match row_of(index, rows) {
                            Some(row) => y.copy_from_slice(&table[row * columns..][..columns]),
                            None => y.fill(T::from_f64(f64::NAN)),
                        }
                    }
                }
            })
        }
        let sizes = [inputs[1].ty.shape[0], inputs[1].ty.shape[1]];
        match inputs[1].ty.dtype {
            Dtype::F64 => of::<f64>(sizes),
            _ => of::<f32>(sizes),
        }
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let op = EmbeddingGradient { embedding: *self, rows: at.inputs[1].shape()[0] };
        let dy = at.gradients[0].as_ref();
        vec![None, dy.map(|dy| dy.trace().apply(op, &[&at.inputs[0], dy]))]
    }
}

impl Op for EmbeddingGradient {
    fn name(&self) -> &'static str {
        "embedding_gradient"
    }

    fn attributes(&self) -> String {
        format!("{} rows={}", self.embedding.attributes(), self.rows)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [index, dy] = inputs else {
            return Err(OpError(format!("{}: got {} inputs", self.name(), inputs.len())));
        };
        computes(self.name(), dy)?;
        let fits = dy.shape.strip_prefix(&*index.shape).map(<[usize]>::len) == Some(1);
        if index.dtype != Dtype::I64 || !fits {
            return Err(OpError(format!("{}: {index} and {dy} do not fit", self.name())));
        }
        let shape = Shape::from([self.rows, dy.shape[dy.shape.rank() - 1]]);
        Ok(vec![Type { dtype: dy.dtype, shape }])
    }

    fn kernel(&self, _: &[Operand], outputs: &[Operand]) -> Box<dyn Kernel> {
        let columns = outputs[0].ty.shape[1];
        match outputs[0].ty.dtype {
            Dtype::F64 => Box::new(GradientKernel::<f64>(*self, columns, PhantomData)),
            _ => Box::new(GradientKernel::<f32>(*self, columns, PhantomData)),
        }
    }
}

/// Adds up the gradients of each row, in the order of the indices.
struct GradientKernel<T>(EmbeddingGradient, usize, PhantomData<T>);

impl<T: Number> Kernel for GradientKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let GradientKernel(EmbeddingGradient { embedding, rows, .. }, columns, _) = *self;
        let (one, padding) = (T::from_f64(1.0), embedding.padding_idx);
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let (indices, dy) = (inputs.get::<i64>(0), inputs.get::<T>(1));
            let table = outputs.take::<T>();
            let [counts] = carve::<T, 1>(scratch, [rows]);
            table.fill(T::default());
            counts.fill(T::default());
            let named = || {
                let rows = indices.iter().map(|&index| row_of(index, rows));
                let rows = rows.zip(dy.chunks_exact(columns.max(1)));
                rows.filter_map(|(row, dy)| Some((row?, dy)))
                    .filter(|(row, _)| Some(*row) != padding)
            };
            for (row, _) in named().filter(|_| embedding.scale_grad_by_freq) {
                counts[row] = counts[row] + one;
            }
            for (row, dy) in named() {
                let part = if embedding.scale_grad_by_freq { one / counts[row] } else { one };
                for (sum, &dy) in table[row * columns..][..columns].iter_mut().zip(dy) {
                    *sum = *sum + dy * part;
                }
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.0.rows])
    }
}

impl Var {
    /// Gives the rows of `weight` that these whole numbers name.
    ///
    /// The row `padding_idx` gets no gradient. With `scale_grad_by_freq` the gradient of a row is divided by
    /// how often it is named.
    ///
    /// # Shape
    ///
    /// `self` is `[..]`, in i64, `weight` `[rows, columns]`; the result is `[.., columns]`.
    ///
    /// Source: `torch.nn.functional.embedding`.
    #[must_use]
    pub fn embedding(
        &self,
        weight: &Var,
        padding_idx: Option<usize>,
        scale_grad_by_freq: bool,
    ) -> Var {
        self.trace().apply(Embedding { padding_idx, scale_grad_by_freq }, &[self, weight])
    }
}
