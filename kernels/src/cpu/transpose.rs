//! Transposition of matrices in memory, by blocks of one vector's square.
#![expect(unsafe_code, reason = "blocks are read and written through pointers into checked slices")]

use super::simd::{Float, Lanes, Simd};

/// Writes the transposed of a matrix of `rows` rows: the number at `i · src_stride + j` of `src` goes to
/// `j · dst_stride + i` of `dst`. Strides are in elements.
///
/// # Panics
///
/// If a slice is too short.
#[inline(always)]
pub fn transpose<T: Float, S: Simd>(
    src: &[T],
    src_stride: usize,
    dst: &mut [T],
    dst_stride: usize,
    rows: usize,
    columns: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * src_stride + columns <= src.len(), "the matrix lies within its slice");
    assert!((columns - 1) * dst_stride + rows <= dst.len(), "the result lies within its slice");
    let n = T::Lanes::<S>::N;
    let mut i = 0;
    while i < rows {
        let mut j = 0;
        while j < columns {
            let from = src.as_ptr().wrapping_add(i * src_stride + j);
            let to = dst.as_mut_ptr().wrapping_add(j * dst_stride + i);
            let (block_rows, block_columns) = (n.min(rows - i), n.min(columns - j));
            // SAFETY: the block lies within the matrix, and both were checked to lie within their
            // slices.
            unsafe {
                T::Lanes::<S>::transpose(
                    from,
                    src_stride,
                    to,
                    dst_stride,
                    block_rows,
                    block_columns,
                );
            }
            j += n;
        }
        i += n;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::simd::{InstructionSet, Vectorized, dispatch_to};

    struct Transpose<'a, T>(&'a [T], usize, &'a mut [T], usize, usize, usize);

    impl<T: Float> Vectorized for Transpose<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self) {
            transpose::<T, S>(self.0, self.1, self.2, self.3, self.4, self.5);
        }
    }

    fn check<T: Float>(rows: usize, columns: usize, gap: usize) {
        let (src_stride, dst_stride) = (columns + gap, rows + gap);
        let src: Vec<T> = (0..rows * src_stride).map(|i| T::from_f64(1.0 + i as f64)).collect();
        for set in InstructionSet::available() {
            let mut dst = vec![T::default(); columns * dst_stride];
            dispatch_to(set, Transpose(&src, src_stride, &mut dst, dst_stride, rows, columns));
            for (at, &y) in dst.iter().enumerate() {
                let (j, i) = (at / dst_stride, at % dst_stride);
                let expected = if i < rows { src[i * src_stride + j] } else { T::default() };
                assert_eq!(y, expected, "{set:?} {rows} × {columns}, row {j}, column {i}");
            }
        }
    }

    proptest! {
        #[test]
        fn rows_become_columns_and_nothing_else_is_written(
            rows in 1..40_usize, columns in 1..40_usize, gap in 0..3_usize,
        ) {
            check::<f32>(rows, columns, gap);
            check::<f64>(rows, columns, gap);
        }
    }
}
