//! Powers.

use super::exponential::exp_of_sum;
use super::logarithm::parts;
use super::primitive::{Function, Primitive, polynomial};

/// `xᵉ`, within 1 ulp in both precisions.
///
/// Squares, cubes, roots and reciprocals are computed as such, as torch does. Else it is `exp(e ln |x|)`, with the
/// logarithm and the product in two parts, and the sign that a whole `e` gives.
#[derive(Clone, Copy)]
pub(super) struct Pow {
    pub(super) exponent: f64,
}

impl Function for Pow {
    fn name(self) -> String {
        format!("pow_{:016x}", self.exponent.to_bits())
    }

    #[inline(always)]
    fn of<A: Primitive>(self, x: A) -> A {
        pow_here(x, self.exponent)
    }
}

#[inline(always)]
fn pow_here<A: Primitive>(x: A, exponent: f64) -> A {
    let c = A::splat;
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
    } else if exponent == 0.0 {
        return c(1.0);
    } else if exponent.is_nan() {
        return A::select(x.eq(c(1.0)), x, c(f64::NAN));
    } else if exponent.abs() > 1e30 {
        // It is even, and the power of whatever is not 1 is out of range.
        let (below, above) =
            if exponent > 0.0 { (0.0, f64::INFINITY) } else { (f64::INFINITY, 0.0) };
        let a = x.abs();
        let y = A::select(a.lt(c(1.0)), c(below), c(above));
        let y = A::select(a.eq(c(1.0)), a, y);
        return A::select(x.eq(x), y, x);
    }
    let [high, low] = ln_in_two(x.abs());
    let rounded = if A::IS_DOUBLE { exponent } else { f64::from(exponent as f32) };
    let (e, e_low) = (c(rounded), c(exponent - rounded));
    let product = e.mul(high);
    let lost = e.mul_add(high, c(0.0).sub(product));
    let y = exp_of_sum(product, Some(e.mul_add(low, e_low.mul_add(high, lost))));
    // Zeros and infinities, whose sign stays where the exponent is odd.
    let is_whole = exponent.trunc() == exponent;
    let is_odd = is_whole && (exponent * 0.5).trunc() != exponent * 0.5;
    let base = if is_odd { x } else { x.abs() };
    let limit = if exponent < 0.0 { c(1.0).div(base) } else { base };
    let is_finite = x.abs().lt(c(f64::INFINITY));
    let y = A::select(x.eq(c(0.0)), limit, A::select(is_finite, y, limit));
    let of_negative = match (is_whole, is_odd) {
        (true, true) => c(0.0).sub(y.abs()),
        (true, false) => y,
        (false, _) => A::select(is_finite, c(f64::NAN), y),
    };
    let y = A::select(x.lt(c(0.0)), of_negative, y);
    A::select(x.eq(x), y, x)
}

/// `ln x` of positive numbers in two parts, with some ten digits more than one has.
///
/// With `x = 2ᵉ (1 + f)` and `s = f / (2 + f)`, `ln(1 + f) = 2 s + 2/3 s³ + 2/5 s⁵ + …`; all but what follows the second
/// term is computed in two parts.
#[inline(always)]
fn ln_in_two<A: Primitive>(x: A) -> [A; 2] {
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
    let [third, third_low, ln_2, ln_2_low] = match A::IS_DOUBLE {
        true => {
            let ln_2 = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
            [2.0 / 3.0, 3.700_743_415_417_188e-17, ln_2[0], ln_2[1]]
        }
        false => [0.666_666_686_534_881_6, -1.986_821_492_513e-8, 0.693_359_375, -2.121_944_4e-4],
    };
    let c = A::splat;
    let negative = |x: A| c(0.0).sub(x);
    let (f, e) = parts(x);
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
    let others = match A::IS_DOUBLE {
        true => polynomial(z, &DOUBLE),
        false => polynomial(z, &SINGLE),
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
