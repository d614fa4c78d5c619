//! Plain Rust, for machines without a vector unit that we know: lanes that the compiler may vectorize.
//!
//! It is the definition of every method: the other sets give its bits. It comes in any width, so that tests can tell
//! that no result depends on that.
#![expect(unsafe_code, reason = "loads and stores through pointers")]

use super::vector::Vector;
use super::{Float, Lanes, Simd, Vectorized};
use crate::arithmetic::Function;

/// No instruction set in particular, with vectors of `SINGLES` and `DOUBLES` numbers.
#[derive(Clone, Copy)]
pub(super) struct Portable<const SINGLES: usize, const DOUBLES: usize>;

/// What machines run that have nothing better.
pub(super) type Generic = Portable<4, 4>;

impl<const SINGLES: usize, const DOUBLES: usize> Simd for Portable<SINGLES, DOUBLES> {
    type F32 = Numbers<f32, SINGLES>;
    type F64 = Numbers<f64, DOUBLES>;
    const GEMM_ROWS: usize = 4;
    const INLINES_FUNCTIONS: bool = false;

    #[inline(never)]
    fn call<T: Float, F: Function>(f: F, x: T::Lanes<Self>) -> T::Lanes<Self> {
        f.of(Vector::<T, Self>(x)).0
    }
}

/// A kernel compiled for any machine: once, and beside its type (see the instances of the other sets).
pub(super) trait Instance: Vectorized {
    /// Runs the kernel.
    #[inline(never)]
    fn run_here(self) -> Self::Output {
        self.run::<Generic>()
    }
}

impl<V: Vectorized> Instance for V {}

/// Whether a multiplication and an addition that are rounded once are one instruction of every machine that this is
/// compiled for. Where not, they are a slow call, and kernels would consist of little else if they made it themselves.
const FUSES: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// `N` numbers, a power of two.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Numbers<T, const N: usize>(pub(super) [T; N]);

impl<T: Copy, const N: usize> Numbers<T, N> {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(T, T) -> T) -> Self {
        Numbers(core::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

macro_rules! lanes {
    ($float:ty, $bits:ty, $mantissa_bits:expr, $bias:expr) => {
        impl<const N: usize> Lanes<$float> for Numbers<$float, N> {
            const N: usize = N;
            type Mask = [bool; N];

            #[inline(always)]
            fn splat(x: $float) -> Self {
                Numbers([x; N])
            }

            #[inline(always)]
            unsafe fn load(from: *const $float) -> Self {
                // SAFETY: the caller promises `N` readable numbers.
                Numbers(unsafe { from.cast::<[$float; N]>().read_unaligned() })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $float) {
                // SAFETY: the caller promises `N` writable numbers.
                unsafe { to.cast::<[$float; N]>().write_unaligned(self.0) }
            }

            #[inline(always)]
            unsafe fn load_first(from: *const $float, n: usize) -> Self {
                let mut lanes = [0.0; N];
                // SAFETY: the caller promises `n ≤ N` readable numbers.
                unsafe { core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n) };
                Numbers(lanes)
            }

            #[inline(always)]
            unsafe fn store_first(self, to: *mut $float, n: usize) {
                // SAFETY: the caller promises `n ≤ N` writable numbers.
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
                #[inline(never)]
                fn apart<const N: usize>(
                    [a, b, c]: [&Numbers<$float, N>; 3],
                ) -> Numbers<$float, N> {
                    Numbers(core::array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])))
                }
                if FUSES {
                    return Numbers(core::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])));
                }
                apart([&self, &b, &c])
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
            fn lt(self, b: Self) -> [bool; N] {
                core::array::from_fn(|i| self.0[i] < b.0[i])
            }

            #[inline(always)]
            fn eq(self, b: Self) -> [bool; N] {
                core::array::from_fn(|i| self.0[i] == b.0[i])
            }

            #[inline(always)]
            fn select(mask: [bool; N], then: Self, otherwise: Self) -> Self {
                Numbers(core::array::from_fn(|i| if mask[i] { then.0[i] } else { otherwise.0[i] }))
            }

            #[inline(always)]
            fn any(mask: [bool; N]) -> bool {
                mask.contains(&true)
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
                let (mut lanes, mut half) = (self.0, N / 2);
                while half > 0 {
                    (0..half).for_each(|lane| lanes[lane] += lanes[lane + half]);
                    half /= 2;
                }
                lanes[0]
            }

            #[inline(always)]
            fn map(self, f: impl Fn($float) -> $float) -> Self {
                Numbers(self.0.map(f))
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
