//! [`RowSum`]: the sum of the gradients that many models have of a parameter which they share.

use core::ops::AddAssign;

use bytemuck::Pod;
use rayon::prelude::*;

use super::sum::{BLOCK, PARTIALS, carries, runs_of};
use crate::ir::dtype::{Dtype, bf16, f16};
use crate::ir::shape::Type;

/// Elements that a thread sums at a time: the partial sums of a strip stay in the L1 cache.
const STRIP: usize = 256;

/// Sums rows in the [order of sums](super::sum), each row a term: those of half precision in single precision, rounded
/// in the end.
///
/// The bits follow from the rows and their order alone: neither how many come at a time matters, nor how
/// many threads there are. Kept are sixteen rows of partial sums and one for each doubling of the blocks.
///
/// # Example
///
/// ```
/// use neurarch_kernels::cpu::row_sum::RowSum;
/// use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_kernels::ir::shape::Type;
///
/// let mut sum = RowSum::new(&Type::new(Dtype::F32, [2]));
/// let rows: [[f32; 2]; 3] = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
/// sum.add(&[bytemuck::bytes_of(&rows[0])]);
/// sum.add(&[bytemuck::bytes_of(&rows[1]), bytemuck::bytes_of(&rows[2])]);
/// let total = sum.finish().unwrap();
/// assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&total), [9.0, 12.0]);
/// ```
pub struct RowSum(Numbers);

/// Rows of what type come in, and of what type the sums are.
enum Numbers {
    Double(Partials<f64>),
    Single(Partials<f32>, Dtype),
}

impl RowSum {
    /// Starts a sum of rows of a floating-point type.
    pub fn new(ty: &Type) -> Self {
        let numel = ty.shape.numel();
        RowSum(match ty.dtype {
            Dtype::F64 => Numbers::Double(Partials::new(numel)),
            dtype => Numbers::Single(Partials::new(numel), dtype),
        })
    }

    /// Adds rows, in order.
    ///
    /// # Panics
    ///
    /// If a row is shorter than the type says, or its elements are not aligned.
    pub fn add(&mut self, rows: &[&[u8]]) {
        match &mut self.0 {
            Numbers::Double(sums) => sums.add(rows, |x: f64| x),
            Numbers::Single(sums, Dtype::F16) => sums.add(rows, f16::to_f32),
            Numbers::Single(sums, Dtype::BF16) => sums.add(rows, bf16::to_f32),
            Numbers::Single(sums, _) => sums.add(rows, |x: f32| x),
        }
    }

    /// Gives the sum; `None` if there was no row.
    pub fn finish(self) -> Option<Vec<u8>> {
        match self.0 {
            Numbers::Double(sums) => sums.finish(|x| x),
            Numbers::Single(sums, Dtype::F16) => sums.finish(f16::from_f32),
            Numbers::Single(sums, Dtype::BF16) => sums.finish(bf16::from_f32),
            Numbers::Single(sums, _) => sums.finish(|x| x),
        }
    }
}

/// The sums in the making, a strip of elements side by side.
struct Partials<A> {
    numel: usize,
    /// Rows so far.
    rows: usize,
    strips: Vec<Strip<A>>,
}

/// The sums of up to [`STRIP`] elements.
struct Strip<A> {
    /// Row `i` holds the partial sums `i` of the block.
    partials: Vec<[A; STRIP]>,
    /// Row `n` holds the sum of 2ⁿ blocks, if there is one; see [`Pairs`](super::sum::Pairs).
    runs: Vec<[A; STRIP]>,
}

impl<A: Pod + AddAssign + Default + Send + Sync> Partials<A> {
    fn new(numel: usize) -> Self {
        let strip = || Strip { partials: Vec::new(), runs: Vec::new() };
        let strips = (0..numel.div_ceil(STRIP)).map(|_| strip()).collect();
        Partials { numel, rows: 0, strips }
    }

    fn add<T: Pod + Sync>(&mut self, rows: &[&[u8]], number: impl Fn(T) -> A + Sync) {
        let (before, numel) = (self.rows, self.numel);
        self.strips.par_iter_mut().enumerate().for_each(|(place, strip)| {
            let start = place * STRIP;
            let elements = start..numel.min(start + STRIP);
            for (index, row) in (before..).zip(rows) {
                let row: &[T] = bytemuck::cast_slice(&row[..numel * size_of::<T>()]);
                strip.add(index, &row[elements.clone()], &number);
            }
        });
        self.rows += rows.len();
    }

    fn finish<T: Pod>(mut self, number: impl Fn(A) -> T) -> Option<Vec<u8>> {
        let (rows, mut left) = (self.rows, self.numel);
        let mut total = Vec::with_capacity(self.numel * size_of::<T>());
        for strip in &mut self.strips {
            let sums = strip.finish(rows)?;
            let numbers = sums[..left.min(STRIP)].iter().map(|&sum| number(sum));
            numbers.for_each(|number| total.extend_from_slice(bytemuck::bytes_of(&number)));
            left = left.saturating_sub(STRIP);
        }
        (rows > 0).then_some(total)
    }
}

impl<A: Copy + AddAssign + Default> Strip<A> {
    #[inline]
    fn add<T: Copy>(&mut self, index: usize, row: &[T], number: impl Fn(T) -> A) {
        let place = index % BLOCK;
        if place == 0 && index > 0 {
            self.end_block(index / BLOCK - 1, PARTIALS);
        }
        if place < PARTIALS {
            match self.partials.get_mut(place) {
                Some(partial) => *partial = [A::default(); STRIP],
                None => self.partials.push([A::default(); STRIP]),
            }
        }
        let partial = &mut self.partials[place % PARTIALS];
        partial.iter_mut().zip(row).for_each(|(sum, &x)| *sum += number(x));
    }

    /// Adds block `block`, of which `n` partial sums have terms, to what is there.
    fn end_block(&mut self, block: usize, n: usize) {
        for half in [8, 4, 2, 1] {
            for i in 0..half.min(n.saturating_sub(half)) {
                let later = self.partials[i + half];
                add(&mut self.partials[i], &later);
            }
        }
        let mut sum = self.partials[0];
        let level = carries(block);
        self.runs[..level].iter().for_each(|earlier| add(&mut sum, earlier));
        if level == self.runs.len() {
            self.runs.push(sum);
        } else {
            self.runs[level] = sum;
        }
    }

    /// Gives the sums of so many rows; `None` if there is none.
    fn finish(&mut self, rows: usize) -> Option<[A; STRIP]> {
        let last = rows.checked_sub(1)?;
        self.end_block(last / BLOCK, (last % BLOCK + 1).min(PARTIALS));
        runs_of(last / BLOCK + 1).map(|run| self.runs[run]).reduce(|mut total, earlier| {
            add(&mut total, &earlier);
            total
        })
    }
}

fn add<A: Copy + AddAssign, const N: usize>(to: &mut [A; N], row: &[A; N]) {
    to.iter_mut().zip(row).for_each(|(to, &number)| *to += number);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::sum::sum_of;

    proptest! {
        #[test]
        fn bits_do_not_depend_on_how_many_rows_come_at_a_time(
            numbers in vec(-1.0..1.0_f32, 1..4_000),
            numel in 1..7_usize,
            cut in 1..600_usize,
        ) {
            let rows: Vec<&[u8]> = numbers.chunks_exact(numel).map(bytemuck::cast_slice).collect();
            let ty = Type::new(Dtype::F32, [numel]);
            let mut whole = RowSum::new(&ty);
            whole.add(&rows);
            let mut parts = RowSum::new(&ty);
            rows.chunks(cut).for_each(|rows| parts.add(rows));
            let found = whole.finish();
            prop_assert_eq!(&found, &parts.finish());

            let expected: Vec<f32> = (0..numel).filter(|_| !rows.is_empty()).map(|i| {
                let column: Vec<f32> = numbers.chunks_exact(numel).map(|row| row[i]).collect();
                sum_of(&column, |x| x)
            }).collect();
            let found = found.map(|found| bytemuck::pod_collect_to_vec::<u8, f32>(&found));
            prop_assert_eq!(found.unwrap_or_default(), expected);
        }
    }
}
