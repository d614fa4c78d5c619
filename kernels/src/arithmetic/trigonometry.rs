//! `sin x` and `cos x`.

use core::f64::consts::FRAC_2_PI;

use super::primitive::{Function, Primitive, function, odd, polynomial};

function! {
    /// `sin x`, within 1 ulp in both precisions.
    ///
    /// `x = n π/2 + r` with `|r| ≤ π/4`, `r` in two parts, and a polynomial for each quarter. Source: FreeBSD's `k_sin.c` and
    /// `k_cos.c` in double precision, Cephes' `sinf` in single precision. Huge numbers go to crate `libm`.
    Sin, "sin", sin_here
}

#[inline(always)]
fn sin_here<A: Primitive>(x: A) -> A {
    let y = odd(x, quarter_turned(x, 0.0));
    let huge = A::splat(huge::<A>()).lt(x.abs());
    x.huge_sin(huge, y)
}

function! {
    /// `cos x`, within 1 ulp in both precisions: see [`sin`].
    Cos, "cos", cos_here
}

#[inline(always)]
fn cos_here<A: Primitive>(x: A) -> A {
    let y = quarter_turned(x, 1.0);
    let huge = A::splat(huge::<A>()).lt(x.abs());
    x.huge_cos(huge, y)
}

/// Beyond this, more digits of π would be needed, or the number of quarter turns could be off by one.
#[inline(always)]
fn huge<A: Primitive>() -> f64 {
    if A::IS_DOUBLE { 1_073_741_824.0 } else { 65_536.0 }
}

/// `sin(x + turns · π/2)` for `turns` 0 and 1, where `x` is not [`huge`].
#[inline(always)]
fn quarter_turned<A: Primitive>(x: A, turns: f64) -> A {
    // π/2 in three parts.
    let parts = match A::IS_DOUBLE {
        true => {
            [core::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_17e-33]
        }
        false => [1.570_796_370_506_286_6, -4.371_138_828_673_793e-8, -1.715_124_510_005_882e-15],
    };
    let c = A::splat;
    let n = x.mul(c(FRAC_2_PI)).round();
    // Exact: a multiple of a rounding step of what it nearly equals.
    let exact = n.mul_add(c(-parts[0]), x);
    let second = n.mul(c(parts[1]));
    let r = exact.sub(second);
    // What rounding r lost, what rounding the product did, and the third part.
    let lost = exact.sub(r).sub(second);
    let lost = lost.sub(n.mul_add(c(parts[1]), c(0.0).sub(second)));
    let lost = n.mul_add(c(-parts[2]), lost);
    // The quarter, in 0 to 4.
    let quarter = n.sub(n.mul(c(0.25)).round().mul(c(4.0)));
    let quarter = A::select(quarter.lt(c(0.0)), quarter.add(c(4.0)), quarter);
    let quarter = quarter.add(c(turns));
    let is_cosine = quarter.sub(c(2.0)).abs().eq(c(1.0));
    let y = A::select(is_cosine, near_cos(r, lost), near_sin(r, lost));
    let is_negative = quarter.sub(c(2.5)).abs().lt(c(1.0));
    A::select(is_negative, c(0.0).sub(y), y)
}

/// `sin(r + low)` for `|r| ≤ π/4` and a small `low`.
#[inline(always)]
fn near_sin<A: Primitive>(r: A, low: A) -> A {
    const DOUBLE: [f64; 6] = [
        1.589_690_995_211_55e-10,
        -2.505_076_025_340_686_3e-8,
        2.755_731_370_707_006_8e-6,
        -1.984_126_982_985_795e-4,
        8.333_333_333_322_49e-3,
        -1.666_666_666_666_663_2e-1,
    ];
    const SINGLE: [f64; 3] = [-1.951_529_589_1e-4, 8.332_160_873_6e-3, -1.666_665_461_1e-1];
    let c = A::splat;
    let z = r.mul(r);
    let p = match A::IS_DOUBLE {
        true => polynomial(z, &DOUBLE),
        false => polynomial(z, &SINGLE),
    };
    // r + (r³ p + low · (1 - r²/2))
    let low = z.mul_add(c(-0.5), c(1.0)).mul(low);
    r.add(p.mul_add(z.mul(r), low))
}

/// `cos(r + low)` for `|r| ≤ π/4` and a small `low`.
#[inline(always)]
fn near_cos<A: Primitive>(r: A, low: A) -> A {
    const DOUBLE: [f64; 6] = [
        -1.135_964_755_778_819_5e-11,
        2.087_572_321_298_175e-9,
        -2.755_731_435_139_066_3e-7,
        2.480_158_728_947_673e-5,
        -1.388_888_888_887_411e-3,
        4.166_666_666_666_66e-2,
    ];
    const SINGLE: [f64; 3] = [2.443_315_711_8e-5, -1.388_731_625_493_8e-3, 4.166_664_568_298_8e-2];
    let c = A::splat;
    let z = r.mul(r);
    let p = match A::IS_DOUBLE {
        true => polynomial(z, &DOUBLE),
        false => polynomial(z, &SINGLE),
    };
    // 1 - r²/2, and what rounding that lost.
    let half = z.mul(c(0.5));
    let most = c(1.0).sub(half);
    let lost = c(1.0).sub(most).sub(half);
    let rest = z.mul(z).mul(p).sub(r.mul(low));
    most.add(lost.add(rest))
}
