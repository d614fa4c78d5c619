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
    // The rational function of XLA and Eigen, on (-4, 4), beyond which erf rounds to ±1.
    let bounded = c(4.0).min(c(-4.0).max(x));
    let r2 = bounded.mul(bounded);
    let p = c(-2.726_142_3e-10);
    let p = p.mul_add(r2, c(2.770_681_5e-8));
    let p = p.mul_add(r2, c(-2.101_024e-6));
    let p = p.mul_add(r2, c(-5.692_506_4e-5));
    let p = p.mul_add(r2, c(-7.349_906e-4));
    let p = p.mul_add(r2, c(-2.954_599_8e-3));
    let p = p.mul_add(r2, c(-1.609_603_3e-2));
    let q = c(-1.456_607_2e-5);
    let q = q.mul_add(r2, c(-2.133_740_5e-4));
    let q = q.mul_add(r2, c(-1.682_827_0e-3));
    let q = q.mul_add(r2, c(-7.373_329_2e-3));
    let q = q.mul_add(r2, c(-1.426_473_9e-2));
    // Divided first: the product by a small x is then rounded once.
    let y = p.div(q).mul(bounded);
    // It is not 1 itself at 4, and `1 + erf(x)` times a large x would tell.
    T::Lanes::<S>::select(bounded.abs().eq(c(4.0)), bounded.mul(c(0.25)), y)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::simd::{InstructionSet, Vectorized, dispatch_to};
    use crate::testing::ulps;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Function {
        Exp,
        ExpM1,
        Ln,
        Ln1p,
        Tanh,
        Sigmoid,
        Erf,
    }

    use Function::{Erf, Exp, ExpM1, Ln, Ln1p, Sigmoid, Tanh};

    const ALL: [Function; 7] = [Exp, ExpM1, Ln, Ln1p, Tanh, Sigmoid, Erf];

    impl Function {
        fn exact(self, x: f64) -> f64 {
            match self {
                Exp => x.exp(),
                ExpM1 => x.exp_m1(),
                Ln => x.ln(),
                Ln1p => x.ln_1p(),
                Tanh => x.tanh(),
                Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Erf => libm::erf(x),
            }
        }

        /// How far single precision may be off.
        fn tolerance(self) -> u32 {
            match self {
                Exp | Ln => 2,
                ExpM1 | Tanh => 3,
                // A product and a quotient more.
                Ln1p | Sigmoid => 4,
                // A quotient of polynomials of degree 13 and 8.
                Erf => 8,
            }
        }
    }

    struct Compute<'a, T>(Function, &'a [T]);

    impl<T: Float> Vectorized for Compute<'_, T> {
        type Output = Vec<T>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<T> {
            let mut y = vec![T::default(); self.1.len()];
            let n = T::Lanes::<S>::N;
            for (x, y) in self.1.chunks(n).zip(y.chunks_mut(n)) {
                let mut lanes = vec![T::default(); n];
                lanes[..x.len()].copy_from_slice(x);
                let x = load::<T, S>(&lanes);
                let result = match self.0 {
                    Exp => exp::<T, S>(x),
                    ExpM1 => exp_m1::<T, S>(x),
                    Ln => ln::<T, S>(x),
                    Ln1p => ln_1p::<T, S>(x),
                    Tanh => tanh::<T, S>(x),
                    Sigmoid => sigmoid::<T, S>(x),
                    Erf => erf::<T, S>(x),
                };
                store::<T, S>(result, y);
            }
            y
        }
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "vectors are read from slices")]
    fn load<T: Float, S: Simd>(x: &[T]) -> T::Lanes<S> {
        assert!(x.len() >= T::Lanes::<S>::N);
        // SAFETY: the line above.
        unsafe { T::Lanes::<S>::load(x.as_ptr()) }
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "vectors are written to slices")]
    fn store<T: Float, S: Simd>(x: T::Lanes<S>, y: &mut [T]) {
        // SAFETY: as many numbers are written as there are.
        unsafe { x.store_first(y.as_mut_ptr(), y.len()) };
    }

    fn check(function: Function, x: &[f32]) -> Result<(), TestCaseError> {
        for set in InstructionSet::available() {
            let y = dispatch_to(set, Compute(function, x));
            for (&x, &y) in x.iter().zip(&y) {
                let exact = function.exact(f64::from(x)) as f32;
                let tolerance = function.tolerance();
                // e⁻ˣ overflows where the sigmoid is subnormal; it is 0 there, as in torch.
                let is_zero = function == Sigmoid && x < -88.0 && y == 0.0;
                prop_assert!(
                    ulps(y, exact) <= tolerance || is_zero,
                    "{set:?} {function:?}({x:e}) = {y:e}, not {exact:e}: {} ulp",
                    ulps(y, exact)
                );
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn singles_are_within_a_few_roundings(
            x in proptest::collection::vec(
                prop_oneof![-100.0..100.0_f32, -1.0..1.0_f32, any::<f32>()], 1..70
            )
        ) {
            for function in ALL {
                check(function, &x)?;
            }
        }

        #[test]
        fn doubles_are_the_standard_librarys(x in proptest::collection::vec(-50.0..50.0_f64, 1..20)) {
            for set in InstructionSet::available() {
                for function in ALL {
                    let y = dispatch_to(set, Compute(function, &x));
                    for (&x, &y) in x.iter().zip(&y) {
                        let exact = function.exact(x);
                        prop_assert!(y == exact || (y.is_nan() && exact.is_nan()), "{function:?}({x})");
                    }
                }
            }
        }
    }

    #[test]
    fn special_numbers_are_right() {
        let x = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-45,
            f32::MAX,
            f32::MIN,
            88.722_83,
            88.722_84,
            88.73,
            -87.4,
            -100.0,
            -103.9,
            -103.98,
            -104.1,
            0.624_999_94,
            0.625,
            9.0,
            20.0,
            1e-30,
        ];
        for function in ALL {
            check(function, &x).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn a_sweep_of_singles_stays_within_the_tolerance() {
        // Every 4,099th single: a million of them, of all magnitudes.
        let x: Vec<f32> = (0..u32::MAX / 4_099).map(|i| f32::from_bits(i * 4_099)).collect();
        for function in ALL {
            check(function, &x).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
