//! `ln x` and `ln(1 + x)`.

use core::f64::consts::SQRT_2;

use super::primitive::{Function, Primitive, function, odd, polynomial};

function! {
    /// `ln x`, within 1 ulp in both precisions.
    ///
    /// `x = 2ᵉ (1 + f)` with `1 + f` in `[√½, √2)`. Source: Cephes' `logf` in single precision, FreeBSD's `e_log.c` in
    /// double precision.
    Ln, "ln", ln_here
}

#[inline(always)]
fn ln_here<A: Primitive>(x: A) -> A {
    let c = A::splat;
    let (f, e) = parts(x);
    let y = of_parts(f, e, None);
    let y = A::select(x.eq(c(0.0)), c(f64::NEG_INFINITY), y);
    let y = A::select(x.eq(c(f64::INFINITY)), x, y);
    let y = A::select(x.lt(c(0.0)), c(f64::NAN), y);
    A::select(x.eq(x), y, x)
}

function! {
    /// `ln(1 + x)`, within 2 ulp in both precisions, also where `x` is near 0.
    ///
    /// `ln u` of `u = 1 + x`, rounded, and the quotient of what rounding lost and `u`. Source: FreeBSD's `s_log1p.c`.
    Ln1p, "ln_1p", ln_1p_here
}

#[inline(always)]
fn ln_1p_here<A: Primitive>(x: A) -> A {
    let c = A::splat;
    let u = c(1.0).add(x);
    let (f, e) = split(u);
    let lost_of_one = c(1.0).sub(u.sub(x));
    let lost_of_x = x.sub(u.sub(c(1.0)));
    let lost = A::select(c(1.0).lt(x), lost_of_one, lost_of_x).div(u);
    // Where u is not scaled, nothing needs to be lost.
    let near = e.eq(c(0.0));
    let f = A::select(near, x, f);
    let lost = A::select(near, c(0.0), lost);
    let y = of_parts(f, e, Some(lost));
    let y = A::select(u.eq(c(0.0)), c(f64::NEG_INFINITY), y);
    let y = A::select(x.eq(c(f64::INFINITY)), x, y);
    let y = A::select(u.lt(c(0.0)), c(f64::NAN), y);
    odd(x, y)
}

/// [`split`] for all positive numbers.
#[inline(always)]
pub(super) fn parts<A: Primitive>(x: A) -> (A, A) {
    let c = A::splat;
    // Subnormal numbers are made normal first.
    let [least, scale, digits] = match A::IS_DOUBLE {
        true => [f64::MIN_POSITIVE, 4_503_599_627_370_496.0, 52.0],
        false => [f64::from(f32::MIN_POSITIVE), 8_388_608.0, 23.0],
    };
    let tiny = x.lt(c(least));
    let (f, e) = split(A::select(tiny, x.mul(c(scale)), x));
    (f, A::select(tiny, e.sub(c(digits)), e))
}

/// Splits a positive normal number into `f` and `e`: it is `2ᵉ (1 + f)` with `1 + f` in `[√½, √2)`.
#[inline(always)]
fn split<A: Primitive>(x: A) -> (A, A) {
    let c = A::splat;
    let (m, e) = x.mantissa_exponent();
    let large = c(SQRT_2).lt(m);
    let m = A::select(large, m.mul(c(0.5)), m);
    let e = A::select(large, e.add(c(1.0)), e);
    (m.sub(c(1.0)), e)
}

/// `e ln 2 + ln(1 + f) + lost`, for a small `lost`.
#[inline(always)]
fn of_parts<A: Primitive>(f: A, e: A, lost: Option<A>) -> A {
    let c = A::splat;
    if A::IS_DOUBLE {
        // With s = f / (2 + f): ln(1 + f) = f - f²/2 + s (f²/2 + R(s²)), where |error of R| ≤ 2⁻⁵⁸·⁴⁵. The product of a
        // whole number and the upper part of ln 2 is exact.
        const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
        const R: [f64; 7] = [
            1.479_819_860_511_658_6e-1,
            1.531_383_769_920_937_3e-1,
            1.818_357_216_161_805e-1,
            2.222_219_843_214_978_4e-1,
            2.857_142_874_366_239e-1,
            3.999_999_999_940_942e-1,
            6.666_666_666_666_735e-1,
        ];
        let s = f.div(f.add(c(2.0)));
        let z = s.mul(s);
        let r = polynomial(z, &R).mul(z);
        let half_square = f.mul(f).mul(c(0.5));
        let low = e.mul(c(LN_2[1]));
        let low = lost.map_or(low, |lost| low.add(lost));
        let rest = half_square.sub(s.mul_add(half_square.add(r), low));
        return e.mul_add(c(LN_2[0]), f.sub(rest));
    }
    const P: [f64; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333_1e-1,
    ];
    let square = f.mul(f);
    let y = polynomial(f, &P).mul(f).mul(square);
    let y = e.mul_add(c(-2.121_944_4e-4), y);
    let y = lost.map_or(y, |lost| y.add(lost));
    let y = square.mul_add(c(-0.5), y);
    e.mul_add(c(0.693_359_375), f.add(y))
}
