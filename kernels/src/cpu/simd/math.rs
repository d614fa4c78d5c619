//! Elementary functions on vectors. In single precision, polynomials within 2 ulp; in double
//! precision, the standard library's functions, lane by lane.

use super::{Float, Lanes, Simd};

/// `eˣ`.
#[inline(always)]
pub fn exp<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    if size_of::<T>() == 8 {
        return x.map(|x| T::from_f64(x.into().exp()));
    }
    // Cephes' expf: x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r by a polynomial of degree 5 after 1 + r.
    let n = x.mul(c(std::f64::consts::LOG2_E)).max(c(-150.0)).min(c(150.0)).round();
    let r = n.mul_add(c(-0.693_359_375), x);
    let r = n.mul_add(c(2.121_944_4e-4), r);
    let p = c(1.987_569_1e-4);
    let p = p.mul_add(r, c(1.398_199_95e-3));
    let p = p.mul_add(r, c(8.333_452e-3));
    let p = p.mul_add(r, c(4.166_579_6e-2));
    let p = p.mul_add(r, c(1.666_666_6e-1));
    let p = p.mul_add(r, c(5.000_000_1e-1));
    let y = p.mul_add(r.mul(r), r).add(c(1.0));
    // In two steps, so that 2ⁿ stays a normal number where eˣ is subnormal.
    let half = n.mul(c(0.5)).round();
    let y = y.scale_by_power_of_two(half).scale_by_power_of_two(n.sub(half));
    let y = T::Lanes::<S>::select(x.lt(c(-103.98)), c(0.0), y);
    let y = T::Lanes::<S>::select(c(88.722_84).lt(x), c(f64::INFINITY), y);
    T::Lanes::<S>::select(x.eq(x), y, x)
}

/// `ln x`.
#[inline(always)]
pub fn ln<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    if size_of::<T>() == 8 {
        return x.map(|x| T::from_f64(x.into().ln()));
    }
    // Subnormal numbers are made normal first.
    let tiny = x.lt(c(f64::from(f32::MIN_POSITIVE)));
    let normal = T::Lanes::<S>::select(tiny, x.mul(c(8_388_608.0)), x);
    let (m, e) = normal.mantissa_exponent();
    let e = T::Lanes::<S>::select(tiny, e.sub(c(23.0)), e);
    // Cephes' logf, on [√½, √2).
    let large = c(std::f64::consts::SQRT_2).lt(m);
    let m = T::Lanes::<S>::select(large, m.mul(c(0.5)), m);
    let e = T::Lanes::<S>::select(large, e.add(c(1.0)), e);
    let r = m.sub(c(1.0));
    let p = c(7.037_683_6e-2);
    let p = p.mul_add(r, c(-1.151_461e-1));
    let p = p.mul_add(r, c(1.167_699_84e-1));
    let p = p.mul_add(r, c(-1.242_014_1e-1));
    let p = p.mul_add(r, c(1.424_932_3e-1));
    let p = p.mul_add(r, c(-1.666_805_8e-1));
    let p = p.mul_add(r, c(2.000_071_5e-1));
    let p = p.mul_add(r, c(-2.499_999_4e-1));
    let p = p.mul_add(r, c(3.333_333_1e-1));
    let r2 = r.mul(r);
    let y = p.mul(r).mul(r2);
    let y = e.mul_add(c(-2.121_944_4e-4), y);
    let y = r2.mul_add(c(-0.5), y);
    let y = e.mul_add(c(0.693_359_375), r.add(y));
    let y = T::Lanes::<S>::select(x.eq(c(0.0)), c(f64::NEG_INFINITY), y);
    let y = T::Lanes::<S>::select(x.eq(c(f64::INFINITY)), x, y);
    let y = T::Lanes::<S>::select(x.lt(c(0.0)), c(f64::NAN), y);
    T::Lanes::<S>::select(x.eq(x), y, x)
}

/// `tanh x`.
#[inline(always)]
pub fn tanh<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    if size_of::<T>() == 8 {
        return x.map(|x| T::from_f64(x.into().tanh()));
    }
    // Cephes' tanhf: a polynomial below 0.625, 1 - 2 / (e^2|x| + 1) above.
    let a = x.abs();
    let r2 = x.mul(x);
    let p = c(-5.704_988_7e-3);
    let p = p.mul_add(r2, c(2.063_908_9e-2));
    let p = p.mul_add(r2, c(-5.373_971_5e-2));
    let p = p.mul_add(r2, c(1.333_144_2e-1));
    let p = p.mul_add(r2, c(-3.333_328e-1));
    let small = p.mul(r2).mul_add(x, x);
    let e = exp::<T, S>(a.add(a));
    let large = c(1.0).sub(c(2.0).div(e.add(c(1.0))));
    let large = T::Lanes::<S>::select(x.lt(c(0.0)), c(0.0).sub(large), large);
    let y = T::Lanes::<S>::select(a.lt(c(0.625)), small, large);
    T::Lanes::<S>::select(x.eq(x), y, x)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub fn sigmoid<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    c(1.0).div(c(1.0).add(exp::<T, S>(c(0.0).sub(x))))
}
