//! `embedding`: rows of a table, chosen by whole numbers.
//!
//! Source: `torch.nn.functional.embedding`. A number that names no row gives a row of NaN and has no gradient,
//! where torch raises "index out of range in self".

use core::marker::PhantomData;

use super::scatter::{Scatter, sum_rows};
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::Simd;
use crate::cpu::tile::Tile;
use crate::cpu::vector_kernel::{VectorKernel, vector_kernel};
use crate::device::code::{Cuda, Definition, DeviceCode};
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::computes;
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// Inputs the indices and the table.
#[derive(Clone, Copy, Debug)]
struct Embedding {
    padding_idx: Option<usize>,
    scale_grad_by_freq: bool,
    /// Whether rows are treated as the table's gradient treats them: that of the padding is 0, one that is named
    /// often is divided. It is the gradient of [`EmbeddingGradient`].
    is_second: bool,
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
        if self.is_second { "embedding_second_gradient" } else { "embedding" }
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

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let sizes = [inputs[1].ty.shape[0], inputs[1].ty.shape[1]];
            match inputs[1].ty.dtype {
                Dtype::F64 => Box::new(RowsKernel::<f64>(*self, sizes, PhantomData)),
                _ => Box::new(RowsKernel::<f32>(*self, sizes, PhantomData)),
            }
        })
        .give::<Cuda>(|inputs, outputs| {
            let Embedding { scale_grad_by_freq, is_second, .. } = *self;
            let (n, width) = (inputs[0].ty.shape.numel(), outputs[0].ty.shape.numel());
            let (rows, columns) = (inputs[1].ty.shape[0], inputs[1].ty.shape[1]);
            let padding = self.padding();
            let call = format!(
                "embedding<T, {n}, {rows}, {columns}, {is_second}, {scale_grad_by_freq}, {padding}>\
                 (t, {{0}}, {{1}}, {{2}});"
            );
            Box::new(on_device(call, width))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let embedding = Embedding { is_second: false, ..*self };
        let op = EmbeddingGradient { embedding, rows: at.inputs[1].shape()[0] };
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

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            fn of<T: Number>(
                op: EmbeddingGradient,
                index: &Type,
                columns: usize,
            ) -> Box<dyn Kernel> {
                let indices = index.shape.numel();
                vector_kernel(GradientKernel::<T> {
                    of: op,
                    columns,
                    indices,
                    element: PhantomData,
                })
            }
            let columns = outputs[0].ty.shape[1];
            match outputs[0].ty.dtype {
                Dtype::F64 => of::<f64>(*self, &inputs[0].ty, columns),
                _ => of::<f32>(*self, &inputs[0].ty, columns),
            }
        })
        .give::<Cuda>(|inputs, outputs| {
            let (n, width) = (inputs[0].ty.shape.numel(), outputs[0].ty.shape.numel());
            let (rows, columns) = (self.rows, outputs[0].ty.shape[1]);
            let Embedding { scale_grad_by_freq, .. } = self.embedding;
            let padding = self.embedding.padding();
            let call = format!(
                "embedding_gradient<T, {n}, {rows}, {columns}, {scale_grad_by_freq}, {padding}>\
                 (t, {{0}}, {{1}}, {{2}});"
            );
            Box::new(on_device(call, width))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let op = Embedding { is_second: true, ..self.embedding };
        let g = at.gradients[0].as_ref();
        vec![None, g.map(|g| g.trace().apply(op, &[&at.inputs[0], g]))]
    }
}

/// Returns the device code of a call of the functions of this op's file.
fn on_device(call: String, width: usize) -> DeviceCode {
    let definitions = vec![Definition::file("embedding", include_str!("embedding.cu"))];
    DeviceCode { definitions, call, scratch_bytes: 0, width }
}

/// Copies rows of a table, each `sizes[1]` long.
struct RowsKernel<T>(Embedding, [usize; 2], PhantomData<T>);

impl<T: Number> Kernel for RowsKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let RowsKernel(embedding, [rows, columns], _) = *self;
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let (indices, table) = (inputs.get::<i64>(0), inputs.get::<T>(1));
            let [counts] = carve::<T, 1>(scratch, [self.counted()]);
            if embedding.scale_grad_by_freq && embedding.is_second {
                embedding.count(indices, counts);
            }
            let y = outputs.take::<T>().chunks_exact_mut(columns.max(1));
            for (&index, y) in indices.iter().zip(y) {
                match row_of(index, rows) {
                    Some(row) => {
                        y.copy_from_slice(&table[row * columns..][..columns]);
                        if embedding.is_second {
                            y.iter_mut().for_each(|y| *y = *y * embedding.part(row, counts));
                        }
                    }
                    None => y.fill(T::from_f64(f64::NAN)),
                }
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.counted()])
    }
}

impl<T> RowsKernel<T> {
    fn counted(&self) -> usize {
        if self.0.is_second { self.1[0] } else { 0 }
    }
}

impl Embedding {
    /// Returns the number of the padding's row for the device code, -1 if there is none.
    fn padding(&self) -> i64 {
        self.padding_idx.map_or(-1, |row| row as i64)
    }

    /// Counts how often each row is named.
    fn count<T: Number>(&self, indices: &[i64], counts: &mut [T]) {
        counts.fill(T::default());
        let rows = counts.len();
        for row in indices.iter().filter_map(|&index| row_of(index, rows)) {
            counts[row] = counts[row] + T::from_f64(1.0);
        }
    }

    /// Gives what the gradient of a row is multiplied by, each time that it is named.
    #[inline(always)]
    fn part<T: Number>(&self, row: usize, counts: &[T]) -> T {
        match self.scale_grad_by_freq {
            _ if self.padding_idx == Some(row) => T::default(),
            true => T::from_f64(1.0) / counts[row],
            false => T::from_f64(1.0),
        }
    }
}

/// Adds up the gradients of each row, in the order of the indices.
struct GradientKernel<T> {
    of: EmbeddingGradient,
    columns: usize,
    indices: usize,
    element: PhantomData<T>,
}

impl<T: Number> VectorKernel for GradientKernel<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let GradientKernel { of: EmbeddingGradient { embedding, rows }, columns, .. } = *self;
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let (indices, dy) = (inputs.get::<i64>(0), inputs.get::<T>(1));
            let [ends, items] = carve::<usize, 2>(scratch, [rows, self.indices]);
            let named = indices.iter().map(|&index| row_of(index, rows));
            let named = Scatter::new(named, ends, items);
            let table = outputs.take::<T>().chunks_exact_mut(columns.max(1));
            for (row, sum) in table.enumerate() {
                let items = named.of(row);
                if items.is_empty() || embedding.padding_idx == Some(row) {
                    sum.fill(T::default());
                    continue;
                }
                let part = match embedding.scale_grad_by_freq {
                    true => T::from_f64(1.0) / T::from_f64(items.len() as f64),
                    false => T::from_f64(1.0),
                };
                sum_rows(items.iter().map(|item| (&dy[item * columns..][..columns], part)), sum);
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<usize>(&[self.of.rows, self.indices])
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
        let op = Embedding { padding_idx, scale_grad_by_freq, is_second: false };
        self.trace().apply(op, &[self, weight])
    }
}
