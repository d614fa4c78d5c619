//! What ops of linear algebra share: a kernel that computes matrix after matrix in double precision.

use core::array;

use crate::cpu::kernel::Kernel;
use crate::cpu::simd::Float;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::OpError;
use crate::ir::shape::{Shape, Type};
use crate::ops::elementwise::pointwise::computes;
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// Gives the rows and columns of a matrix, or of each of a batch.
///
/// # Errors
///
/// If there are fewer than two axes, or the elements cannot be computed with; torch's words.
pub(super) fn sizes(op: &str, ty: &Type) -> Result<(usize, usize), OpError> {
    computes(op, ty)?;
    match ty.shape[..] {
        [.., rows, columns] => Ok((rows, columns)),
        _ => Err(OpError(format!(
            "{op}: The input tensor A must have at least 2 dimensions, got {}",
            ty.shape.rank()
        ))),
    }
}

/// As [`sizes`], of square matrices; gives the rows.
///
/// # Errors
///
/// As [`sizes`], and if they are not square; torch's words.
pub(super) fn square(op: &str, ty: &Type) -> Result<usize, OpError> {
    match sizes(op, ty)? {
        (rows, columns) if rows == columns => Ok(rows),
        (rows, columns) => Err(OpError(format!(
            "{op}: A must be batches of square matrices, but they are {rows} by {columns} matrices"
        ))),
    }
}

/// Gives the type with other sizes after the axes of the batch, which are all but `last`.
pub(super) fn with_sizes(ty: &Type, last: usize, sizes: &[usize]) -> Type {
    let batch = &ty.shape[..ty.shape.rank() - last];
    Type { dtype: ty.dtype, shape: batch.iter().chain(sizes).copied().collect::<Shape>() }
}

/// Computes `of` for each matrix of a batch: from one matrix of each input, one of each output, with working
/// memory. Operands lie row-major; singles are computed in double precision and rounded once.
pub(super) struct PerMatrix<F, const IN: usize, const OUT: usize> {
    dtype: Dtype,
    /// How many matrices each operand has.
    count: usize,
    /// Elements of one matrix of each input.
    inputs: [usize; IN],
    /// Elements of one matrix of each output.
    outputs: [usize; OUT],
    /// Numbers of working memory.
    work: usize,
    of: F,
}

impl<F, const IN: usize, const OUT: usize> PerMatrix<F, IN, OUT>
where
    F: Fn([&mut [f64]; IN], [&mut [f64]; OUT], &mut [f64]) + Send + Sync + 'static,
{
    /// Makes the kernel; the first input is a batch of matrices of `inputs[0]` elements. `of` may overwrite
    /// its inputs, which are copies.
    pub(super) fn boxed(
        ty: &Type,
        inputs: [usize; IN],
        outputs: [usize; OUT],
        work: usize,
        of: F,
    ) -> Box<dyn Kernel> {
        let count = ty.shape[..ty.shape.rank() - 2].iter().product();
        Box::new(PerMatrix { dtype: ty.dtype, count, inputs, outputs, work, of })
    }

    fn lens(&self) -> [usize; 3] {
        [self.inputs.iter().sum(), self.outputs.iter().sum(), self.work]
    }

    fn compute<T: Float>(&self, tile: &mut Tile<'_>) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let [copies, results, work] = carve::<f64, 3>(scratch, self.lens());
            let inputs: [&[T]; IN] = array::from_fn(|i| inputs.get::<T>(i));
            let mut outputs: [&mut [T]; OUT] = array::from_fn(|_| outputs.take::<T>());
            for matrix in 0..self.count {
                let mut copies = parts(copies, self.inputs);
                for (copy, (all, &len)) in copies.iter_mut().zip(inputs.iter().zip(&self.inputs)) {
                    let from = &all[matrix * len..][..len];
                    copy.iter_mut().zip(from).for_each(|(to, &x)| *to = x.into());
                }
                (self.of)(copies, parts(results, self.outputs), work);
                let made = parts(results, self.outputs);
                for (all, (from, &len)) in outputs.iter_mut().zip(made.iter().zip(&self.outputs)) {
                    let to = &mut all[matrix * len..][..len];
                    to.iter_mut().zip(from.iter()).for_each(|(to, &x)| *to = T::from_f64(x));
                }
            }
        }
    }
}

/// Splits memory into parts of these lengths.
fn parts<const N: usize>(memory: &mut [f64], lens: [usize; N]) -> [&mut [f64]; N] {
    let mut rest = memory;
    lens.map(|len| {
        let (own, others) = core::mem::take(&mut rest).split_at_mut(len);
        rest = others;
        own
    })
}

impl<F, const IN: usize, const OUT: usize> Kernel for PerMatrix<F, IN, OUT>
where
    F: Fn([&mut [f64]; IN], [&mut [f64]; OUT], &mut [f64]) + Send + Sync + 'static,
{
    fn run(&self, tile: &mut Tile<'_>) {
        match self.dtype {
            Dtype::F64 => self.compute::<f64>(tile),
            _ => self.compute::<f32>(tile),
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<f64>(&self.lens())
    }
}
