//! `eˣ`, `eˣ - 1`, `tanh x` and `1 / (1 + e⁻ˣ)`.

use core::f64::consts::LOG2_E;

use super::primitive::{Function, Primitive, function, odd, polynomial};

/// `ln 2` in two parts. The product of the first and a whole number that exponents reach is exact, or the difference
/// from what it nearly equals is.
#[inline(always)]
fn ln_2<A: Primitive>() -> [f64; 2] {
    if A::IS_DOUBLE {
        [core::f64::consts::LN_2, 2.319_046_813_846_299_6e-17]
    } else {
        [0.693_359_375, -2.121_944_4e-4]
    }
}

function! {
    /// `eˣ`, within 1 ulp in both precisions.
    ///
    /// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and `eʳ` by a polynomial after `1 + r`. Source: Moshier's Cephes library,
    /// `expf`, in single precision; in double precision the polynomial is the Taylor series.
    Exp, "exp", exp_here
}

#[inline(always)]
fn exp_here<A: Primitive>(x: A) -> A {
    exp_of_sum(x, None)
}

/// [`exp`] of `x` and of what is too small to be added to it.
#[inline(always)]
pub(super) fn exp_of_sum<A: Primitive>(x: A, small: Option<A>) -> A {
    let c = A::splat;
    // Beyond these eˣ is 0 and infinite.
    let [least, most] = match A::IS_DOUBLE {
        true => [-745.133_219_101_941_2, 709.782_712_893_384],
        false => [-103.98, 88.722_84],
    };
    let bound = if A::IS_DOUBLE { 1_100.0 } else { 150.0 };
    let n = x.mul(c(LOG2_E)).max(c(-bound)).min(c(bound)).round();
    let [high, low] = ln_2::<A>();
    let r = n.mul_add(c(-high), x);
    let r = n.mul_add(c(-low), r);
    let r = small.map_or(r, |small| r.add(small));
    let p = after_linear(r);
    let y = p.mul_add(r.mul(r), r).add(c(1.0));
    // In two steps, so that 2ⁿ stays a normal number where eˣ is subnormal.
    let half = n.mul(c(0.5)).round();
    let y = y.scale_by_power_of_two(half).scale_by_power_of_two(n.sub(half));
    let y = A::select(x.lt(c(least)), c(0.0), y);
    let y = A::select(c(most).lt(x), c(f64::INFINITY), y);
    A::select(x.eq(x), y, x)
}

/// `(eʳ - 1 - r) / r²` for `|r| ≤ ln 2 / 2`.
#[inline(always)]
fn after_linear<A: Primitive>(r: A) -> A {
    // 1/13! to 1/2!: the next term is below 2⁻⁵⁷.
    const DOUBLE: [f64; 12] = [
        1.605_904_383_682_161_3e-10,
        2.087_675_698_786_81e-9,
        2.505_210_838_544_172e-8,
        2.755_731_922_398_589e-7,
        2.755_731_922_398_589_3e-6,
        2.480_158_730_158_73e-5,
        1.984_126_984_126_984e-4,
        1.388_888_888_888_889e-3,
        8.333_333_333_333_333e-3,
        4.166_666_666_666_666_4e-2,
        1.666_666_666_666_666_6e-1,
        0.5,
    ];
    const SINGLE: [f64; 6] = [
        1.987_569_1e-4,
        1.398_199_95e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_6e-1,
        5.000_000_1e-1,
    ];
    if A::IS_DOUBLE { polynomial(r, &DOUBLE) } else { polynomial(r, &SINGLE) }
}

function! {
    /// `eˣ - 1`, within 2 ulp in both precisions, also where `x` is near 0.
    ///
    /// With `n` and `r` as in [`exp`], `2ⁿ (eʳ - 1) + (2ⁿ - 1)`.
    ExpM1, "exp_m1", exp_m1_here
}

#[inline(always)]
fn exp_m1_here<A: Primitive>(x: A) -> A {
    let c = A::splat;
    // Beyond these the result is -1 and infinite.
    let [least, most] = match A::IS_DOUBLE {
        true => [-40.0, 709.782_712_893_384],
        false => [-20.0, 88.722_84],
    };
    let bounded = x.max(c(least)).min(c(most));
    let n = bounded.mul(c(LOG2_E)).round();
    let [high, low] = ln_2::<A>();
    let exact = n.mul_add(c(-high), bounded);
    let r = n.mul_add(c(-low), exact);
    // What rounding r lost.
    let lost = n.mul_add(c(-low), exact.sub(r));
    let small = after_linear(r).mul_add(r.mul(r), lost).add(r);
    // Half of 2ⁿ, which is finite for all n.
    let half = c(1.0).scale_by_power_of_two(n.sub(c(1.0)));
    let y = small.mul_add(half, half.sub(c(0.5)));
    let y = A::select(c(most).lt(x), c(f64::INFINITY), y.add(y));
    odd(x, y)
}

function! {
    /// `tanh x`, within 2 ulp in both precisions.
    ///
    /// Source: in single precision Cephes' `tanhf`, a polynomial below 0.625 and `1 - 2 / (e²ˣ + 1)` above; in double
    /// precision FreeBSD's `s_tanh.c`, `u / (u + 2)` and `1 - 2 / (u + 2)` with `u = e²ˣ - 1`.
    Tanh, "tanh", tanh_here
}

#[inline(always)]
fn tanh_here<A: Primitive>(x: A) -> A {
    let c = A::splat;
    let a = x.abs();
    if A::IS_DOUBLE {
        let u = a.add(a).call(ExpM1);
        let above = u.add(c(2.0));
        let is_small = a.lt(c(0.5));
        let quotient = A::select(is_small, u, c(2.0)).div(above);
        let y = A::select(is_small, quotient, c(1.0).sub(quotient));
        return odd(x, A::select(x.lt(c(0.0)), c(0.0).sub(y), y));
    }
    const SMALL: [f64; 5] =
        [-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1];
    let r2 = x.mul(x);
    let small = polynomial(r2, &SMALL).mul(r2).mul_add(x, x);
    let e = a.add(a).call(Exp);
    let large = c(1.0).sub(c(2.0).div(e.add(c(1.0))));
    let large = A::select(x.lt(c(0.0)), c(0.0).sub(large), large);
    let y = A::select(a.lt(c(0.625)), small, large);
    A::select(x.eq(x), y, x)
}

function! {
    /// `1 / (1 + e⁻ˣ)`, within 3 ulp; 0 where `e⁻ˣ` is infinite, as in torch.
    Sigmoid, "sigmoid", sigmoid_here
}

#[inline(always)]
fn sigmoid_here<A: Primitive>(x: A) -> A {
    let c = A::splat;
    c(1.0).div(c(1.0).add(c(0.0).sub(x).call(Exp)))
}
