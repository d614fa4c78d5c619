//! Arithmetic on single numbers of either floating-point type, for kernels that leave the vectors to the
//! compiler: loops over slices.

use core::ops::{Add, Div, Mul, Sub};

use crate::cpu::simd::Float;

/// A floating-point number.
pub(in crate::ops) trait Number:
    Float + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Returns `√self`.
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
