//! [`Primitive`]: operations that round once, of which everything else is made.

/// One or more numbers of one precision, with the operations that formulas are made of. Each rounds once, to nearest.
///
/// Comparisons give masks with which [`select`](Primitive::select) chooses. What NaN holds besides being NaN is open.
pub trait Primitive: Copy {
    /// The results of a comparison.
    type Mask: Copy;

    /// Whether they are doubles. Known when a body is compiled, so that the other precision's part is left out.
    const IS_DOUBLE: bool;

    /// `x`, rounded to the precision.
    fn splat(x: f64) -> Self;

    /// `self + b`.
    fn add(self, b: Self) -> Self;
    /// `self - b`.
    fn sub(self, b: Self) -> Self;
    /// `self · b`.
    fn mul(self, b: Self) -> Self;
    /// `self / b`.
    fn div(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `√self`.
    fn sqrt(self) -> Self;
    /// The larger; `b` if either is NaN or both are zeros.
    fn max(self, b: Self) -> Self;
    /// The smaller; `b` if either is NaN or both are zeros.
    fn min(self, b: Self) -> Self;
    /// `|self|`.
    fn abs(self) -> Self;
    /// The nearest whole number, ties to even.
    fn round(self) -> Self;
    /// The whole part: rounded toward 0.
    fn trunc(self) -> Self;
    /// Where `self < b`.
    fn lt(self, b: Self) -> Self::Mask;
    /// Where `self == b`.
    fn eq(self, b: Self) -> Self::Mask;
    /// `then` where the mask is set, `otherwise` elsewhere.
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self;

    /// `self · 2ⁿ` for whole numbers `n` for which `2ⁿ` is a normal number.
    fn scale_by_power_of_two(self, n: Self) -> Self;
    /// Splits positive normal numbers into mantissa in `[1, 2)` and exponent.
    fn mantissa_exponent(self) -> (Self, Self);
    /// Crate `libm`'s sine in double precision, rounded, where the mask is set, `otherwise` elsewhere: for numbers that
    /// need more digits of π than the sine of formulas has.
    fn huge_sin(self, mask: Self::Mask, otherwise: Self) -> Self;
    /// As [`huge_sin`](Primitive::huge_sin), the cosine.
    fn huge_cos(self, mask: Self::Mask, otherwise: Self) -> Self;

    /// `f(self)`, computed here or by a call.
    fn call<F: Function>(self, f: F) -> Self;
}

/// An elementary function of one number, with what else it needs: a body of its own for whatever computes it.
pub trait Function: Copy {
    /// Its name, a C identifier: functions of one name are the same.
    fn name(self) -> String;

    /// Computes it. Implementations are `#[inline(always)]`.
    fn of<A: Primitive>(self, x: A) -> A;
}

/// Makes a [`Function`] of the body of a function.
macro_rules! function {
    ($(#[$about:meta])* $type:ident, $name:literal, $body:ident) => {
        $(#[$about])*
        #[derive(Clone, Copy)]
        pub(super) struct $type;

        impl Function for $type {
            fn name(self) -> String {
                $name.to_owned()
            }

            #[inline(always)]
            fn of<A: Primitive>(self, x: A) -> A {
                $body(x)
            }
        }
    };
}
pub(super) use function;

/// `c[0] · xᵏ + c[1] · xᵏ⁻¹ + … + c[k]` by Horner's rule, a fused multiplication and addition a step.
#[inline(always)]
pub(super) fn polynomial<A: Primitive>(x: A, c: &[f64]) -> A {
    let (first, others) = c.split_first().expect("a polynomial has coefficients");
    others.iter().fold(A::splat(*first), |y, &c| y.mul_add(x, A::splat(c)))
}

/// `y`, but `x` itself where that is 0 or NaN: for odd functions, whose zeros keep their sign.
#[inline(always)]
pub(super) fn odd<A: Primitive>(x: A, y: A) -> A {
    A::select(A::splat(0.0).lt(x.abs()), y, x)
}
