//! Powers.

use super::exponential::exp_of_sum;
use super::logarithm::parts;
use super::{Function, call, is_double, polynomial, splat};
use crate::cpu::simd::{Float, Lanes, Simd};

/// `xᵉ`, within 1 ulp in both precisions.
///
/// Squares, cubes, roots and reciprocals are computed as such, as torch does. Else it is `exp(e ln |x|)`, with the
/// logarithm and the product in two parts, and the sign that a whole `e` gives.
#[inline(always)]
pub fn pow<T: Float, S: Simd>(x: T::Lanes<S>, exponent: f64) -> T::Lanes<S> {
    call::<T, S, _>(Pow { exponent }, x)
}

#[derive(Clone, Copy)]
struct Pow {
    exponent: f64,
}

impl<T: Float> Function<T> for Pow {
    #[inline(always)]
    fn of<S: Simd>(self, x: T::Lanes<S>) -> T::Lanes<S> {
        pow_here::<T, S>(x, self.exponent)
    }
}

#[inline(always)]
fn pow_here<T: Float, S: Simd>(x: T::Lanes<S>, exponent: f64) -> T::Lanes<S> {
    let c = splat::<T, S>;
    if exponent == 2.0 {
        return x.mul(x);
    } else if exponent == 3.0 {
        return x.mul(x).mul(x);
    } else if exponent == 0.5 {
        return x.sqrt();
    } else if exponent == -1.0 {
        return c(1.0).div(x);
    } else if exponent == -2.0 {
        return c(1.0).div(x.mul(x));
    } else if exponent == 0.0 || exponent.is_nan() || exponent.abs() > 1e30 {
        // Rules of their own.
        return x.map(|x| T::from_f64(libm::pow(x.into(), exponent)));
    }
    let [high, low] = ln_in_two::<T, S>(x.abs());
    let e: T = T::from_f64(exponent);
    let (e, e_low) = (T::Lanes::<S>::splat(e), c(exponent - e.into()));
    let product = e.mul(high);
    let lost = e.mul_add(high, c(0.0).sub(product));
    let y = exp_of_sum::<T, S>(product, Some(e.mul_add(low, e_low.mul_add(high, lost))));
    // Zeros and infinities, whose sign stays where the exponent is odd.
    let is_whole = exponent.trunc() == exponent;
    let is_odd = is_whole && (exponent * 0.5).trunc() != exponent * 0.5;
    let base = if is_odd { x } else { x.abs() };
    let limit = if exponent < 0.0 { c(1.0).div(base) } else { base };
    let is_finite = x.abs().lt(c(f64::INFINITY));
    let y = T::Lanes::<S>::select(x.eq(c(0.0)), limit, T::Lanes::<S>::select(is_finite, y, limit));
    let of_negative = match (is_whole, is_odd) {
        (true, true) => c(0.0).sub(y.abs()),
        (true, false) => y,
        (false, _) => T::Lanes::<S>::select(is_finite, c(f64::NAN), y),
    };
    let y = T::Lanes::<S>::select(x.lt(c(0.0)), of_negative, y);
    T::Lanes::<S>::select(x.eq(x), y, x)
}

/// `ln x` of positive numbers in two parts, with some ten digits more than one has.
///
/// With `x = 2ᵉ (1 + f)` and `s = f / (2 + f)`, `ln(1 + f) = 2 s + 2/3 s³ + 2/5 s⁵ + …`; all but what follows the second
/// term is computed in two parts.
#[inline(always)]
fn ln_in_two<T: Float, S: Simd>(x: T::Lanes<S>) -> [T::Lanes<S>; 2] {
    // 2/23 to 2/5, and 2/13 to 2/5: what follows is below 2⁻⁶⁵ and 2⁻³⁹.
    const DOUBLE: [f64; 10] = [
        2.0 / 23.0,
        2.0 / 21.0,
        2.0 / 19.0,
        2.0 / 17.0,
        2.0 / 15.0,
        2.0 / 13.0,
        2.0 / 11.0,
        2.0 / 9.0,
        2.0 / 7.0,
        2.0 / 5.0,
    ];
    const SINGLE: [f64; 5] = [2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0];
    let [third, third_low, ln_2, ln_2_low] = match is_double::<T>() {
        true => {
            let ln_2 = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
            [2.0 / 3.0, 3.700_743_415_417_188e-17, ln_2[0], ln_2[1]]
        }
        false => [0.666_666_686_534_881_6, -1.986_821_492_513e-8, 0.693_359_375, -2.121_944_4e-4],
    };
    let c = splat::<T, S>;
    let negative = |x: T::Lanes<S>| c(0.0).sub(x);
    let (f, e) = parts::<T, S>(x);
    let below = f.add(c(2.0));
    let below_low = f.sub(below.sub(c(2.0)));
    let inverse = c(1.0).div(below);
    let s = f.mul(inverse);
    let rest = negative(s).mul_add(below, f);
    let s_low = negative(s).mul_add(below_low, rest).mul(inverse);
    let z = s.mul(s);
    let z_low = s.mul_add(s, negative(z));
    let z_low = s.add(s).mul_add(s_low, z_low);
    // q = 2/3 z + 2/5 z² + …
    let others = match is_double::<T>() {
        true => polynomial::<T, S>(z, &DOUBLE),
        false => polynomial::<T, S>(z, &SINGLE),
    };
    let first = z.mul(c(third));
    let first_low = z.mul_add(c(third), negative(first));
    let first_low = z.mul_add(c(third_low), z_low.mul_add(c(third), first_low));
    let first_low = z.mul(z).mul_add(others, first_low);
    let q = first.add(first_low);
    let q_low = first_low.sub(q.sub(first));
    // 2 s + s q
    let cubic = s.mul(q);
    let cubic_low = s.mul_add(q, negative(cubic));
    let cubic_low = s_low.mul_add(q, s.mul_add(q_low, cubic_low));
    let twice = s.add(s);
    let near = twice.add(cubic);
    let near_low = cubic.sub(near.sub(twice)).add(s_low.add(s_low).add(cubic_low));
    // The product of the upper part is exact.
    let far = e.mul(c(ln_2));
    let high = far.add(near);
    let low = near.sub(high.sub(far)).add(e.mul_add(c(ln_2_low), near_low));
    let sum = high.add(low);
    [sum, low.sub(sum.sub(high))]
}
