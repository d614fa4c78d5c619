//! Conversion between element types, of one number and of the numbers of a row: [`convert_in_place`].

use crate::cpu::simd::halves::{Stored, narrow, widen};
use crate::cpu::simd::{Simd, Vectorized, dispatch};
use crate::ir::dtype::{Dtype, Element, bf16, f16};

/// A number that can be converted, whole numbers without loss among themselves.
pub(crate) trait Convert: Element {
    fn to_f64(self) -> f64;
    fn from_f64(x: f64) -> Self;
}

macro_rules! converts {
    ($number:ty, $x:ident => $to:expr, $y:ident => $from:expr) => {
        impl Convert for $number {
            #[inline]
            fn to_f64(self) -> f64 {
                let $x = self;
                $to
            }

            #[inline]
            fn from_f64($y: f64) -> Self {
                $from
            }
        }
    };
}

converts!(f32, x => x.into(), y => y as f32);
converts!(f64, x => x, y => y);
converts!(i64, x => x as f64, y => y as i64);
converts!(u8, x => x.into(), y => u8::from(y != 0.0));
// By way of single precision, as torch does: what lies just above the middle of two halves may become the lower one.
converts!(f16, x => x.to_f32().into(), y => f16::from_f32(y as f32));
converts!(bf16, x => x.to_f32().into(), y => bf16::from_f32(y as f32));

/// Bytes that are converted at once, by way of the stack: they are zeroed for each row, and most rows are short.
const BLOCK_BYTES: usize = 512;

/// A block on the stack, aligned for any element.
#[repr(align(64))]
struct Block([u8; BLOCK_BYTES]);

/// Converts the first `count` numbers of a row to another element type, where they lie; the bytes that they need no more
/// become zero. The numbers are those of [`Var::to`](crate::ir::trace::Var::to).
///
/// # Panics
///
/// If the row has no room for the numbers of either type, or is not aligned for them.
pub fn convert_in_place(row: &mut [u8], count: usize, from: Dtype, to: Dtype) {
    let (old, new) = (from.size_bytes(), to.size_bytes());
    assert!(count <= row.len() / old.max(new), "room for {count} numbers of {from} and of {to}");
    if from == to {
        return;
    }
    let mut block = Block([0; BLOCK_BYTES]);
    let numbers = BLOCK_BYTES / old.max(new);
    let mut convert_block = |start: usize| {
        let count = numbers.min(count - start);
        let source = &mut block.0[..count * old];
        source.copy_from_slice(&row[start * old..][..count * old]);
        convert((from, source), (to, &mut row[start * new..][..count * new]));
    };
    // A block never overwrites one that is yet to be read.
    let starts = (0..count).step_by(numbers);
    match new <= old {
        true => starts.for_each(&mut convert_block),
        false => starts.rev().for_each(&mut convert_block),
    }
    if new < old {
        row[count * new..count * old].fill(0);
    }
}

/// Converts numbers from one slice to another.
fn convert((from, x): (Dtype, &[u8]), (to, y): (Dtype, &mut [u8])) {
    struct Widen<'a, H>(&'a [H], &'a mut [f32]);
    struct Narrow<'a, H>(&'a [f32], &'a mut [H]);

    impl<H: Stored<f32>> Vectorized for Widen<'_, H> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self) {
            widen::<H, S>(self.0, self.1);
        }
    }

    impl<H: Stored<f32>> Vectorized for Narrow<'_, H> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self) {
            narrow::<H, S>(self.0, self.1);
        }
    }

    fn one_by_one<A: Convert, B: Convert>(x: &[u8], y: &mut [u8]) {
        let (x, y) = (bytemuck::cast_slice::<_, A>(x), bytemuck::cast_slice_mut::<_, B>(y));
        y.iter_mut().zip(x).for_each(|(y, x)| *y = B::from_f64(x.to_f64()));
    }

    fn from_type<A: Convert>(x: &[u8], (to, y): (Dtype, &mut [u8])) {
        match to {
            Dtype::F32 => one_by_one::<A, f32>(x, y),
            Dtype::F64 => one_by_one::<A, f64>(x, y),
            Dtype::F16 => one_by_one::<A, f16>(x, y),
            Dtype::BF16 => one_by_one::<A, bf16>(x, y),
            Dtype::I64 => one_by_one::<A, i64>(x, y),
            Dtype::Bool => one_by_one::<A, u8>(x, y),
        }
    }

    use bytemuck::{cast_slice, cast_slice_mut};
    match (from, to) {
        // What halves are computed in: vectors of them at once.
        (Dtype::F16, Dtype::F32) => dispatch(Widen::<f16>(cast_slice(x), cast_slice_mut(y))),
        (Dtype::BF16, Dtype::F32) => dispatch(Widen::<bf16>(cast_slice(x), cast_slice_mut(y))),
        (Dtype::F32, Dtype::F16) => dispatch(Narrow::<f16>(cast_slice(x), cast_slice_mut(y))),
        (Dtype::F32, Dtype::BF16) => dispatch(Narrow::<bf16>(cast_slice(x), cast_slice_mut(y))),
        (Dtype::F32, _) => from_type::<f32>(x, (to, y)),
        (Dtype::F64, _) => from_type::<f64>(x, (to, y)),
        (Dtype::F16, _) => from_type::<f16>(x, (to, y)),
        (Dtype::BF16, _) => from_type::<bf16>(x, (to, y)),
        (Dtype::I64, _) => from_type::<i64>(x, (to, y)),
        (Dtype::Bool, _) => from_type::<u8>(x, (to, y)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::AlignedBytes;

    const ALL: [Dtype; 6] =
        [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::Bool];

    /// Numbers that every type holds exactly but the whole ones, by way of more than one block.
    fn row(dtype: Dtype, count: usize, room: usize) -> AlignedBytes {
        let mut row = AlignedBytes::new(room);
        let numbers: Vec<f64> = (0..count).map(|i| (i % 61) as f64 - 30.0).collect();
        let bytes = row.bytes_mut();
        bytes[..count * 8].copy_from_slice(bytemuck::cast_slice(&numbers));
        convert_in_place(bytes, count, Dtype::F64, dtype);
        row
    }

    #[test]
    fn a_row_is_converted_there_and_back_where_it_lies() {
        for (count, room) in [(0, 64), (1, 64), (7, 64), (1500, 12_032)] {
            for from in ALL {
                for to in ALL.into_iter().filter(|&to| to != Dtype::Bool) {
                    let before = row(from, count, room);
                    let mut converted = row(from, count, room);
                    convert_in_place(converted.bytes_mut(), count, from, to);
                    let end = count * to.size_bytes();
                    assert!(converted.bytes()[end..].iter().all(|&byte| byte == 0), "{from} {to}");
                    convert_in_place(converted.bytes_mut(), count, to, from);
                    assert!(converted.bytes() == before.bytes(), "{from} {to} {count}");
                }
            }
        }
    }

    /// Checked by `torch.tensor([1.00390625, 65520., 1e-8, float('nan')]).to(torch.bfloat16)` and `.to(torch.float16)`.
    #[test]
    fn halves_are_rounded_as_torch_does() {
        let numbers = [1.003_906_3_f32, 65520.0, 1e-8, f32::NAN];
        let converted = |to| {
            let mut row = AlignedBytes::new(64);
            row.bytes_mut()[..16].copy_from_slice(bytemuck::cast_slice(&numbers));
            convert_in_place(row.bytes_mut(), 4, Dtype::F32, to);
            row.bytes()[..8].to_vec()
        };
        let bytes = converted(Dtype::BF16);
        let given: &[bf16] = bytemuck::cast_slice(&bytes);
        assert_eq!(given[..3], [1.0, 65536.0, 1e-8].map(bf16::from_f32));
        assert!(given[3].is_nan());
        let bytes = converted(Dtype::F16);
        let given: &[f16] = bytemuck::cast_slice(&bytes);
        assert_eq!(given[..3], [1.003_906_3, f32::INFINITY, 0.0].map(f16::from_f32));
        assert!(given[3].is_nan());
    }

    #[test]
    #[should_panic = "room for 9 numbers of f32 and of f64"]
    fn a_row_without_room_is_refused() {
        convert_in_place(&mut [0; 64], 9, Dtype::F32, Dtype::F64);
    }
}
