//! [`Vector`]: the vectors of an instruction set as [`Arithmetic`], for formulas that are written over that.

use super::{Float, Lanes, Simd};
use crate::arithmetic::elementary;
use crate::arithmetic::{Arithmetic, Function};

/// A vector of `T` in instruction set `S`. Each method is that of [`Lanes`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Vector<T: Float, S: Simd>(
    /// The vector itself.
    pub T::Lanes<S>,
);

impl<T: Float, S: Simd> Arithmetic for Vector<T, S> {
    type Mask = <T::Lanes<S> as Lanes<T>>::Mask;

    const IS_DOUBLE: bool = size_of::<T>() == 8;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Vector(T::Lanes::<S>::splat(T::from_f64(x)))
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Vector(self.0.add(b.0))
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Vector(self.0.sub(b.0))
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Vector(self.0.mul(b.0))
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Vector(self.0.div(b.0))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Vector(self.0.mul_add(b.0, c.0))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Vector(self.0.sqrt())
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Vector(self.0.max(b.0))
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Vector(self.0.min(b.0))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Vector(self.0.abs())
    }

    #[inline(always)]
    fn round(self) -> Self {
        Vector(self.0.round())
    }

    #[inline(always)]
    fn trunc(self) -> Self {
        Vector(self.0.map(|x| T::from_f64(x.into().trunc())))
    }

    #[inline(always)]
    fn lt(self, b: Self) -> Self::Mask {
        self.0.lt(b.0)
    }

    #[inline(always)]
    fn eq(self, b: Self) -> Self::Mask {
        self.0.eq(b.0)
    }

    #[inline(always)]
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self {
        Vector(T::Lanes::<S>::select(mask, then.0, otherwise.0))
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, n: Self) -> Self {
        Vector(self.0.scale_by_power_of_two(n.0))
    }

    #[inline(always)]
    fn mantissa_exponent(self) -> (Self, Self) {
        let (mantissa, exponent) = self.0.mantissa_exponent();
        (Vector(mantissa), Vector(exponent))
    }

    #[inline(always)]
    fn huge_sin(self, mask: Self::Mask, otherwise: Self) -> Self {
        if !T::Lanes::<S>::any(mask) {
            return otherwise;
        }
        let exact = self.0.map(|x| T::from_f64(elementary::sin(x.into())));
        Self::select(mask, Vector(exact), otherwise)
    }

    #[inline(always)]
    fn huge_cos(self, mask: Self::Mask, otherwise: Self) -> Self {
        if !T::Lanes::<S>::any(mask) {
            return otherwise;
        }
        let exact = self.0.map(|x| T::from_f64(elementary::cos(x.into())));
        Self::select(mask, Vector(exact), otherwise)
    }

    /// In double precision, and where nothing is fast anyway, the function is compiled once and called: kernels that
    /// contain it themselves took longer to compile than all others together.
    #[inline(always)]
    fn call<F: Function>(self, f: F) -> Self {
        match Self::IS_DOUBLE || !S::INLINES_FUNCTIONS {
            true => Vector(S::call::<T, F>(f, self.0)),
            false => f.of(self),
        }
    }
}
