//! [`Arithmetic`]: numbers that formulas are written over once, whatever computes them.
//!
//! A formula over it is instantiated for the vectors of each instruction set
//! ([`Vector`](crate::cpu::simd::vector::Vector)) and recorded to be printed ([`Symbol`](crate::text::record::Symbol)). So
//! there are named functions only: no memory, no closures, no branches on a number.
//!
//! The elementary functions are polynomials and quotients of them, of nothing but exactly rounded operations: the same
//! bits wherever they are computed. None calls the standard library's: those are the system's, and differ between
//! machines. The sines of huge numbers, which are rare, are crate `libm`'s.

pub mod activation;
pub mod elementary;
mod error_function;
mod exponential;
mod logarithm;
mod power;
mod primitive;
mod trigonometry;

use error_function::Erf;
use exponential::{Exp, ExpM1, Sigmoid, Tanh};
use logarithm::{Ln, Ln1p};
use power::Pow;
pub use primitive::{Function, Primitive};
use trigonometry::{Cos, Sin};

/// Numbers that elementary functions can be computed of: all that are [`Primitive`].
///
/// Each is a polynomial or a quotient of primitive operations.
pub trait Arithmetic: Primitive {
    /// `eˣ`, within 1 ulp in both precisions.
    #[inline(always)]
    fn exp(self) -> Self {
        self.call(Exp)
    }

    /// `eˣ - 1`, within 2 ulp in both precisions, also where `x` is near 0.
    #[inline(always)]
    fn exp_m1(self) -> Self {
        self.call(ExpM1)
    }

    /// `ln x`, within 1 ulp in both precisions.
    #[inline(always)]
    fn ln(self) -> Self {
        self.call(Ln)
    }

    /// `ln(1 + x)`, within 2 ulp in both precisions, also where `x` is near 0.
    #[inline(always)]
    fn ln_1p(self) -> Self {
        self.call(Ln1p)
    }

    /// `tanh x`, within 2 ulp in both precisions.
    #[inline(always)]
    fn tanh(self) -> Self {
        self.call(Tanh)
    }

    /// `1 / (1 + e⁻ˣ)`, within 3 ulp; 0 where `e⁻ˣ` is infinite, as in torch.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        self.call(Sigmoid)
    }

    /// The error function, `2/√π · ∫₀ˣ e^(-t²) dt`, within 2 ulp in double precision and 8 in single precision.
    #[inline(always)]
    fn erf(self) -> Self {
        self.call(Erf)
    }

    /// `sin x`, within 1 ulp in both precisions.
    #[inline(always)]
    fn sin(self) -> Self {
        self.call(Sin)
    }

    /// `cos x`, within 1 ulp in both precisions.
    #[inline(always)]
    fn cos(self) -> Self {
        self.call(Cos)
    }

    /// `xᵉ`, within 1 ulp in both precisions; squares, cubes, roots and reciprocals as torch computes them.
    #[inline(always)]
    fn pow(self, exponent: f64) -> Self {
        self.call(Pow { exponent })
    }
}

impl<A: Primitive> Arithmetic for A {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Arithmetic;
    use crate::cpu::simd::vector::Vector;
    use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch_to_all};
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
        Sin,
        Cos,
        Pow(f64),
    }

    use self::Function::{Cos, Erf, Exp, ExpM1, Ln, Ln1p, Pow, Sigmoid, Sin, Tanh};

    const ALL: [Function; 15] = [
        Exp,
        ExpM1,
        Ln,
        Ln1p,
        Tanh,
        Sigmoid,
        Erf,
        Sin,
        Cos,
        Pow(1.7),
        Pow(-2.0),
        Pow(-1.5),
        Pow(5.0),
        Pow(-7.0),
        Pow(0.0),
    ];

    impl Function {
        fn exact(self, x: f64) -> f64 {
            match self {
                Exp => libm::exp(x),
                ExpM1 => libm::expm1(x),
                Ln => libm::log(x),
                Ln1p => libm::log1p(x),
                Tanh => libm::tanh(x),
                Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
                Erf => libm::erf(x),
                Sin => libm::sin(x),
                Cos => libm::cos(x),
                Pow(exponent) => libm::pow(x, exponent),
            }
        }

        /// How many roundings single precision may be off.
        fn tolerance(self) -> u32 {
            match self {
                Exp | Ln | Sin | Cos | Pow(_) => 2,
                ExpM1 | Ln1p | Tanh => 3,
                // A quotient more.
                Sigmoid => 4,
                // A quotient of polynomials of degree 13 and 8.
                Erf => 8,
            }
        }

        /// How many roundings double precision may be off from a function that is off by one itself.
        fn double_tolerance(self) -> u64 {
            match self {
                Exp | Ln | Sin | Cos | Pow(_) => 2,
                ExpM1 | Ln1p | Tanh | Erf => 3,
                Sigmoid => 4,
            }
        }
    }

    #[derive(Clone)]
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
                let x = Vector::<T, S>(load::<T, S>(&lanes));
                let result = match self.0 {
                    Exp => x.exp(),
                    ExpM1 => x.exp_m1(),
                    Ln => x.ln(),
                    Ln1p => x.ln_1p(),
                    Tanh => x.tanh(),
                    Sigmoid => x.sigmoid(),
                    Erf => x.erf(),
                    Sin => x.sin(),
                    Cos => x.cos(),
                    Pow(exponent) => x.pow(exponent),
                };
                store::<T, S>(result.0, y);
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

    /// Computes on every instruction set, and makes sure that they agree bit for bit.
    fn compute<T: Float>(function: Function, x: &[T]) -> Result<Vec<T>, TestCaseError> {
        let bits = |y: &T| {
            let y: f64 = (*y).into();
            if y.is_nan() { None } else { Some(y.to_bits()) }
        };
        let mut results = dispatch_to_all(&Compute(function, x));
        let (first, expected) = results.swap_remove(0);
        for (set, y) in &results {
            for ((x, y), expected) in x.iter().zip(y).zip(&expected) {
                let same = bits(y) == bits(expected);
                prop_assert!(same, "{function:?}({x:?}) = {y:?} by {set}, {expected:?} by {first}");
            }
        }
        Ok(expected)
    }

    fn check(function: Function, x: &[f32]) -> Result<(), TestCaseError> {
        for (&x, y) in x.iter().zip(compute(function, x)?) {
            let exact = function.exact(f64::from(x)) as f32;
            let tolerance = function.tolerance();
            // e⁻ˣ overflows where the sigmoid is subnormal; it is 0 there, as in torch. So does a square.
            let is_zero = function == Sigmoid && x < -88.0 && y == 0.0;
            let is_square = function == Pow(-2.0) && !(x * x).is_normal();
            prop_assert!(
                ulps(y, exact) <= tolerance || is_zero || is_square,
                "{function:?}({x:e}) = {y:e}, not {exact:e}: {} ulp",
                ulps(y, exact)
            );
        }
        Ok(())
    }

    /// Counts the doubles between two numbers of one sign.
    fn double_ulps(a: f64, b: f64) -> u64 {
        match a == b || (a.is_nan() && b.is_nan()) {
            true => 0,
            false if a.is_nan() || b.is_nan() || (a < 0.0) != (b < 0.0) => u64::MAX,
            false => a.to_bits().abs_diff(b.to_bits()),
        }
    }

    fn check_doubles(function: Function, x: &[f64]) -> Result<(), TestCaseError> {
        for (&x, y) in x.iter().zip(compute(function, x)?) {
            let exact = function.exact(x);
            let off = double_ulps(y, exact);
            // As in single precision.
            let is_zero = function == Sigmoid && x < -708.0 && y == 0.0;
            let is_square = function == Pow(-2.0) && !(x * x).is_normal();
            prop_assert!(
                off <= function.double_tolerance() || is_zero || is_square,
                "{function:?}({x:e}) = {y:e}, not {exact:e}: {off} ulp"
            );
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
        fn doubles_are_within_a_few_roundings(
            x in proptest::collection::vec(
                prop_oneof![-800.0..800.0_f64, -8.0..8.0_f64, -1.0..1.0_f64, any::<f64>()], 1..70
            )
        ) {
            for function in ALL {
                check_doubles(function, &x)?;
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
            65_536.0,
            65_536.01,
        ];
        let mut doubles: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        doubles.extend([
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
            709.782_712_893_384,
            709.782_712_893_384_1,
            -708.4,
            -745.13,
            -745.133_219_101_941_2,
            -745.2,
            0.843_75,
            1.25,
            1.0 / 0.35,
            5.99,
            6.0,
            -39.9,
            -40.1,
            1e9,
            1e10,
            // The double that is nearest to a multiple of π/2.
            6_381_956_970_095_103.0 * 2.0_f64.powi(797),
            core::f64::consts::PI,
            1_048_576.0 * core::f64::consts::FRAC_PI_2,
        ]);
        for function in ALL {
            check(function, &x).unwrap_or_else(|error| panic!("{error}"));
            check_doubles(function, &doubles).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn odd_functions_keep_the_sign_of_zero() {
        for function in [ExpM1, Ln1p, Tanh, Sin, Erf] {
            for zero in [0.0, -0.0_f64] {
                let y = compute(function, &[zero]).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(y[0].to_bits(), zero.to_bits(), "{function:?}");
            }
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

    #[test]
    fn a_sweep_of_doubles_stays_within_the_tolerance() {
        // Of all magnitudes, then evenly spread.
        let step = u64::MAX / 100_003;
        let magnitudes = (0..100_000).map(|i| f64::from_bits(i * step));
        let even = (-50_000..50_000).map(|i| f64::from(i) / 3_571.0);
        let x: Vec<f64> = magnitudes.chain(even).collect();
        for function in ALL {
            check_doubles(function, &x).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
