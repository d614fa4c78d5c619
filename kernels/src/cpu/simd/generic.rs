//! Plain Rust, for machines without a vector unit that we know: four lanes that the compiler may
//! vectorize.
#![expect(unsafe_code, reason = "loads and stores through pointers")]

use super::{Lanes, Simd};

/// No instruction set in particular.
#[derive(Clone, Copy)]
pub(super) struct Generic;

impl Simd for Generic {
    type F32 = Four<f32>;
    type F64 = Four<f64>;
    const GEMM_ROWS: usize = 4;
}

/// Four numbers.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Four<T>([T; 4]);

impl<T: Copy> Four<T> {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(T, T) -> T) -> Self {
        Four(core::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

macro_rules! lanes {
    ($float:ty, $bits:ty, $mantissa_bits:expr, $bias:expr) => {
        impl Lanes<$float> for Four<$float> {
            const N: usize = 4;
            type Mask = [bool; 4];

            #[inline(always)]
            fn splat(x: $float) -> Self {
                Four([x; 4])
            }

            #[inline(always)]
            unsafe fn load(from: *const $float) -> Self {
                // SAFETY: the caller promises 4 readable numbers.
                Four(unsafe { from.cast::<[$float; 4]>().read_unaligned() })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $float) {
                // SAFETY: the caller promises 4 writable numbers.
                unsafe { to.cast::<[$float; 4]>().write_unaligned(self.0) }
            }

            #[inline(always)]
            unsafe fn load_first(from: *const $float, n: usize) -> Self {
                let mut lanes = [0.0; 4];
                // SAFETY: the caller promises `n ≤ 4` readable numbers.
                unsafe { core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n) };
                Four(lanes)
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut $float, n: usize) {
                // SAFETY: the caller promises `n ≤ 4` writable numbers.
                unsafe { core::ptr::copy_nonoverlapping(self.0.as_ptr(), to, n) };
            }

            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self.zip(b, |a, b| a + b)
            }

            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self.zip(b, |a, b| a - b)
            }

            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self.zip(b, |a, b| a * b)
            }

            #[inline(always)]
            fn div(self, b: Self) -> Self {
                self.zip(b, |a, b| a / b)
            }

            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // Rounded once, as by the hardware of the other sets; a slow call where there is none.
                Four(core::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.map(<$float>::sqrt)
            }

            #[inline(always)]
            fn max(self, b: Self) -> Self {
                self.zip(b, |a, b| if a > b { a } else { b })
            }

            #[inline(always)]
            fn min(self, b: Self) -> Self {
                self.zip(b, |a, b| if a < b { a } else { b })
            }

            #[inline(always)]
            fn abs(self) -> Self {
                self.map(<$float>::abs)
            }

            #[inline(always)]
            fn round(self) -> Self {
                self.map(<$float>::round_ties_even)
            }

            #[inline(always)]
            fn lt(self, b: Self) -> [bool; 4] {
                core::array::from_fn(|i| self.0[i] < b.0[i])
            }

            #[inline(always)]
            fn eq(self, b: Self) -> [bool; 4] {
                core::array::from_fn(|i| self.0[i] == b.0[i])
            }

            #[inline(always)]
            fn select(mask: [bool; 4], then: Self, otherwise: Self) -> Self {
                Four(core::array::from_fn(|i| if mask[i] { then.0[i] } else { otherwise.0[i] }))
            }

            #[inline(always)]
            fn scale_by_power_of_two(self, n: Self) -> Self {
                self.zip(n, |x, n| {
                    x * <$float>::from_bits(((n as i64 + $bias) as $bits) << $mantissa_bits)
                })
            }

            #[inline(always)]
            fn mantissa_exponent(self) -> (Self, Self) {
                let mantissa = self.map(|x| {
                    let fraction = x.to_bits() & ((1 << $mantissa_bits) - 1);
                    <$float>::from_bits(fraction | ($bias << $mantissa_bits))
                });
                let exponent =
                    self.map(|x| ((x.to_bits() >> $mantissa_bits) as i64 - $bias) as $float);
                (mantissa, exponent)
            }

            #[inline(always)]
            fn sum(self) -> $float {
                let [a, b, c, d] = self.0;
                (a + c) + (b + d)
            }

            #[inline(always)]
            fn map(self, f: impl Fn($float) -> $float) -> Self {
                Four(self.0.map(f))
            }

            #[inline(always)]
            unsafe fn transpose(
                from: *const $float,
                from_stride: usize,
                to: *mut $float,
                to_stride: usize,
                rows: usize,
                columns: usize,
            ) {
                for i in 0..rows {
                    for j in 0..columns {
                        // SAFETY: the caller promises that this number can be read and written.
                        unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
                    }
                }
            }
        }
    };
}

lanes!(f32, u32, 23, 127);
lanes!(f64, u64, 52, 1023);
