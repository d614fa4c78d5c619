//! Arithmetic on single numbers of either floating-point type, for kernels that leave the vectors to the
//! compiler: loops over slices, whose sums run in 16 partial results.

use core::ops::{Add, Div, Mul, Sub};

use crate::cpu::simd::Float;

/// A floating-point number.
pub(in crate::ops) trait Number:
    Float + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Gives `√self`.
    fn sqrt(self) -> Self;
}

impl Number for f32 {
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
}

impl Number for f64 {
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
}

/// Partial results of a sum.
const PARTS: usize = 16;

/// Adds up `f(x, y)` over two slices of one length: number `i` goes to partial result `i mod 16`, and those
/// are joined by halves. So the order of the additions follows from the length alone.
#[inline(always)]
pub(in crate::ops) fn sum_of_pairs<T: Number>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut parts = [T::default(); PARTS];
    let (x, x_rest) = x.as_chunks::<PARTS>();
    let (y, y_rest) = y.as_chunks::<PARTS>();
    for (x, y) in x.iter().zip(y) {
        for part in 0..PARTS {
            parts[part] = parts[part] + f(x[part], y[part]);
        }
    }
    for ((part, &x), &y) in parts.iter_mut().zip(x_rest).zip(y_rest) {
        *part = *part + f(x, y);
    }
    for half in [8, 4, 2, 1] {
        for part in 0..half {
            parts[part] = parts[part] + parts[part + half];
        }
    }
    parts[0]
}

/// Adds up `f(x)`, as [`sum_of_pairs`] does.
#[inline(always)]
pub(in crate::ops) fn sum_of<T: Number>(x: &[T], f: impl Fn(T) -> T) -> T {
    sum_of_pairs(x, x, |x, _| f(x))
}
