//! [`BlockSum`]: the sum of the gradients that many models have of a parameter which they share.

use bytemuck::Pod;
use core::ops::AddAssign;
use rayon::prelude::*;

use crate::cpu::memory::AlignedBytes;
use crate::dtype::{Dtype, bf16, f16};
use crate::shape::Type;

/// How many rows a block has. It decides the order of the sum, hence its bits: 16 rows lose as few digits as
/// 16 partial sums of ops do, and a block is no barrier to a single row.
pub const BLOCK: usize = 16;

/// Elements that a thread sums at a time: block and total of a strip stay in the L1 cache.
const STRIP: usize = 1024;

/// Sums rows in the order in which they come: within blocks of [`BLOCK`] rows one after the other, then the
/// blocks one after the other.
///
/// The bits follow from the rows and their order alone: neither how many come at a time matters, nor how
/// many threads there are. Two rows of memory are all that is kept.
///
/// # Example
///
/// ```
/// use neurarch_kernels::{cpu::sum::BlockSum, dtype::Dtype, shape::Type};
///
/// let mut sum = BlockSum::new(&Type::new(Dtype::F32, [2]));
/// let rows: [[f32; 2]; 3] = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
/// sum.add(&[bytemuck::bytes_of(&rows[0])]);
/// sum.add(&[bytemuck::bytes_of(&rows[1]), bytemuck::bytes_of(&rows[2])]);
/// let total = sum.finish().unwrap();
/// assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&total), [9.0, 12.0]);
/// ```
pub struct BlockSum {
    dtype: Dtype,
    row_bytes: usize,
    rows: usize,
    block: AlignedBytes,
    total: AlignedBytes,
}

impl BlockSum {
    /// Starts a sum of rows of a floating-point type.
    pub fn new(ty: &Type) -> Self {
        let (block, total) =
            (AlignedBytes::new(ty.size_bytes()), AlignedBytes::new(ty.size_bytes()));
        BlockSum { dtype: ty.dtype, row_bytes: ty.size_bytes(), rows: 0, block, total }
    }

    /// Adds rows, in order.
    ///
    /// # Panics
    ///
    /// If a row is shorter than the type says, or its elements are not aligned.
    pub fn add(&mut self, rows: &[&[u8]]) {
        match self.dtype {
            Dtype::F64 => self.add_elements::<f64>(rows),
            Dtype::F16 => self.add_elements::<f16>(rows),
            Dtype::BF16 => self.add_elements::<bf16>(rows),
            _ => self.add_elements::<f32>(rows),
        }
        self.rows += rows.len();
    }

    fn add_elements<T: Pod + AddAssign + Send + Sync>(&mut self, rows: &[&[u8]]) {
        let (before, row_bytes) = (self.rows, self.row_bytes);
        let block: &mut [T] = bytemuck::cast_slice_mut(&mut self.block.bytes_mut()[..row_bytes]);
        let total: &mut [T] = bytemuck::cast_slice_mut(&mut self.total.bytes_mut()[..row_bytes]);
        let strips = block.par_chunks_mut(STRIP).zip(total.par_chunks_mut(STRIP)).enumerate();
        strips.for_each(|(strip, (block, total))| {
            for (number, row) in (before..).zip(rows) {
                let row: &[T] = bytemuck::cast_slice(&row[..row_bytes]);
                let row = &row[strip * STRIP..][..block.len()];
                if number % BLOCK > 0 {
                    add(block, row);
                    continue;
                }
                if number > 0 {
                    end_block::<T>(
                        number,
                        bytemuck::cast_slice(block),
                        bytemuck::cast_slice_mut(total),
                    );
                }
                block.copy_from_slice(row);
            }
        });
    }

    /// Gives the sum; `None` if there was no row.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        let (rows, row_bytes) = (self.rows, self.row_bytes);
        let block = &self.block.bytes()[..row_bytes];
        let total = &mut self.total.bytes_mut()[..row_bytes];
        match self.dtype {
            Dtype::F64 => end_block::<f64>(rows, block, total),
            Dtype::F16 => end_block::<f16>(rows, block, total),
            Dtype::BF16 => end_block::<bf16>(rows, block, total),
            _ => end_block::<f32>(rows, block, total),
        }
        (rows > 0).then(|| total.to_vec())
    }
}

/// Adds a block to the total, of which it is the first if there were no more rows than fit one.
fn end_block<T: Pod + AddAssign>(rows: usize, block: &[u8], total: &mut [u8]) {
    match rows <= BLOCK {
        true => total.copy_from_slice(block),
        false => add::<T>(bytemuck::cast_slice_mut(total), bytemuck::cast_slice(block)),
    }
}

fn add<T: Pod + AddAssign>(to: &mut [T], row: &[T]) {
    to.iter_mut().zip(row).for_each(|(to, &number)| *to += number);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_do_not_depend_on_how_many_rows_come_at_a_time(
            numbers in vec(-1.0..1.0_f32, 1..400),
            numel in 1..7_usize,
            cut in 1..40_usize,
        ) {
            let rows: Vec<&[u8]> = numbers.chunks_exact(numel).map(bytemuck::cast_slice).collect();
            let ty = Type::new(Dtype::F32, [numel]);
            let mut whole = BlockSum::new(&ty);
            whole.add(&rows);
            let mut parts = BlockSum::new(&ty);
            rows.chunks(cut).for_each(|rows| parts.add(rows));
            let found = whole.finish();
            prop_assert_eq!(&found, &parts.finish());

            // Sixteen by sixteen, then the sums.
            let blocks = numbers.chunks_exact(numel).collect::<Vec<_>>();
            let sum = |rows: &[&[f32]], i: usize| rows.iter().map(|row| row[i]).reduce(|a, b| a + b);
            let expected: Vec<f32> = (0..numel).filter_map(|i| {
                blocks.chunks(BLOCK).filter_map(|rows| sum(rows, i)).reduce(|a, b| a + b)
            }).collect();
            let found = found.map(|found| bytemuck::pod_collect_to_vec::<u8, f32>(&found));
            prop_assert_eq!(found.unwrap_or_default(), if rows.is_empty() { Vec::new() } else { expected });
        }
    }
}
