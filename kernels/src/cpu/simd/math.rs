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
    let p = exp_polynomial::<T, S>(r);
    let y = p.mul_add(r.mul(r), r).add(c(1.0));
    // In two steps, so that 2ⁿ stays a normal number where eˣ is subnormal.
    let half = n.mul(c(0.5)).round();
    let y = y.scale_by_power_of_two(half).scale_by_power_of_two(n.sub(half));
    let y = T::Lanes::<S>::select(x.lt(c(-103.98)), c(0.0), y);
    let y = T::Lanes::<S>::select(c(88.722_84).lt(x), c(f64::INFINITY), y);
    T::Lanes::<S>::select(x.eq(x), y, x)
}

/// `(eʳ - 1 - r) / r²` in single precision, for `|r| ≤ ln 2 / 2`.
#[inline(always)]
fn exp_polynomial<T: Float, S: Simd>(r: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    let p = c(1.987_569_1e-4);
    let p = p.mul_add(r, c(1.398_199_95e-3));
    let p = p.mul_add(r, c(8.333_452e-3));
    let p = p.mul_add(r, c(4.166_579_6e-2));
    let p = p.mul_add(r, c(1.666_666_6e-1));
    p.mul_add(r, c(5.000_000_1e-1))
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

/// `eˣ - 1`, also where `x` is near 0.
#[inline(always)]
pub fn exp_m1<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    if size_of::<T>() == 8 {
        return x.map(|x| T::from_f64(x.into().exp_m1()));
    }
    // Where |x| ≤ ln 2 / 2, the polynomial of `exp` before 1 is added.
    let small = exp_polynomial::<T, S>(x).mul_add(x.mul(x), x);
    let large = exp::<T, S>(x).sub(c(1.0));
    T::Lanes::<S>::select(x.abs().lt(c(0.346_573_6)), small, large)
}

/// `ln(1 + x)`, also where `x` is near 0.
#[inline(always)]
pub fn ln_1p<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    if size_of::<T>() == 8 {
        return x.map(|x| T::from_f64(x.into().ln_1p()));
    }
    // What is lost by rounding 1 + x to u is put right by x / (u - 1).
    let u = c(1.0).add(x);
    let d = u.sub(c(1.0));
    let y = ln::<T, S>(u).mul(x.div(d));
    let y = T::Lanes::<S>::select(d.eq(c(0.0)), x, y);
    T::Lanes::<S>::select(x.eq(c(f64::INFINITY)), x, y)
}

/// The error function, `2/√π · ∫₀ˣ e^(-t²) dt`.
#[inline(always)]
pub fn erf<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    if size_of::<T>() == 8 {
        return x.map(|x| T::from_f64(libm::erf(x.into())));
    }
    // The rational function of XLA and Eigen, on [-4, 4], beyond which erf rounds to ±1.
    let bounded = c(4.0).min(c(-4.0).max(x));
    let r2 = bounded.mul(bounded);
    let p = c(-2.726_142_3e-10);
    let p = p.mul_add(r2, c(2.770_681_5e-8));
    let p = p.mul_add(r2, c(-2.101_024e-6));
    let p = p.mul_add(r2, c(-5.692_506_4e-5));
    let p = p.mul_add(r2, c(-7.349_906e-4));
    let p = p.mul_add(r2, c(-2.954_599_8e-3));
    let p = p.mul_add(r2, c(-1.609_603_3e-2)).mul(bounded);
    let q = c(-1.456_607_2e-5);
    let q = q.mul_add(r2, c(-2.133_740_5e-4));
    let q = q.mul_add(r2, c(-1.682_827_0e-3));
    let q = q.mul_add(r2, c(-7.373_329_2e-3));
    let q = q.mul_add(r2, c(-1.426_473_9e-2));
    p.div(q)
}
