//! Results that are rounded towards 0, down or up.
//!
//! The result rounded to nearest and the sign of what it lacks decide. Errors of sums are exact by Knuth's two-sum.

use crate::program::{FloatOp, Rounding};

/// Moves `near` to a neighbor where the exact result lies on the other side; `error` is exact minus near.
fn single(near: f32, error: f64, rounding: Rounding) -> f32 {
    let lower = if near.is_infinite() && near > 0.0 { f32::MAX } else { near.next_down() };
    let upper = if near.is_infinite() && near < 0.0 { f32::MIN } else { near.next_up() };
    // An overflow to infinity from a finite result counts as above it.
    match rounding {
        Rounding::Down if error < 0.0 => lower,
        Rounding::Up if error > 0.0 => upper,
        Rounding::Zero if near > 0.0 && error < 0.0 => lower,
        Rounding::Zero if near < 0.0 && error > 0.0 => upper,
        // What is tiny is rounded to 0 by way of nearest, and has a sign.
        _ => near,
    }
}

fn double(near: f64, error: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Down if error < 0.0 => near.next_down(),
        Rounding::Up if error > 0.0 => near.next_up(),
        Rounding::Zero if near > 0.0 && error < 0.0 => near.next_down(),
        Rounding::Zero if near < 0.0 && error > 0.0 => near.next_up(),
        _ => near,
    }
}

/// Returns a sum rounded to nearest, and its exact error.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// Rounds a double, plus a rest that is smaller than its last bit, to single precision.
pub(super) fn narrow(sum: f64, rest: f64, rounding: Rounding) -> f32 {
    let near = sum as f32;
    if near.is_infinite() && sum.is_finite() {
        return single(near, -f64::from(near.signum()), rounding);
    }
    let error = sum - f64::from(near);
    single(near, if error == 0.0 || error.is_nan() { rest } else { error }, rounding)
}

/// Computes in single precision, rounded as told.
pub(super) fn singles(op: FloatOp, rounding: Rounding, [a, b, c]: [f32; 3]) -> f32 {
    let [x, y, z] = [a, b, c].map(f64::from);
    match op {
        FloatOp::Add | FloatOp::Sub => {
            let (sum, rest) = two_sum(x, if op == FloatOp::Sub { -y } else { y });
            zero_sign(
                narrow(sum, rest, rounding),
                x,
                if op == FloatOp::Sub { -y } else { y },
                rounding,
            )
        }
        FloatOp::Mul => narrow(x * y, 0.0, rounding),
        FloatOp::Fma => {
            let (sum, rest) = two_sum(x * y, z);
            zero_sign(narrow(sum, rest, rounding), x * y, z, rounding)
        }
        FloatOp::Div | FloatOp::Reciprocal => {
            let (x, y) = if op == FloatOp::Reciprocal { (1.0, x) } else { (x, y) };
            let near = (x / y) as f32;
            if near.is_infinite() && x.is_finite() && y != 0.0 {
                return single(near, -f64::from(near.signum()), rounding);
            }
            // The product of two singles is exact, and so is what is left.
            let left = x - f64::from(near) * y;
            single(near, if y < 0.0 { -left } else { left }, rounding)
        }
        FloatOp::Sqrt => {
            let near = x.sqrt() as f32;
            single(near, x - f64::from(near) * f64::from(near), rounding)
        }
        _ => f32::NAN,
    }
}

/// A sum of opposite numbers is -0 if it is rounded down.
fn zero_sign(sum: f32, a: f64, b: f64, rounding: Rounding) -> f32 {
    if sum == 0.0 && a == -b && a != 0.0 && rounding == Rounding::Down { -0.0 } else { sum }
}

/// Computes in double precision, rounded as told.
pub(super) fn doubles(op: FloatOp, rounding: Rounding, a: f64, b: f64) -> f64 {
    match op {
        FloatOp::Add | FloatOp::Sub => {
            let (sum, rest) = two_sum(a, if op == FloatOp::Sub { -b } else { b });
            double(sum, rest, rounding)
        }
        FloatOp::Mul => {
            let product = a * b;
            double(product, a.mul_add(b, -product), rounding)
        }
        _ => f64::NAN,
    }
}

/// Rounds an integer to single precision.
pub(super) fn integer_to_single(x: i128, rounding: Rounding) -> f32 {
    let near = x as f32;
    single(near, (x - near as i128) as f64, rounding)
}

/// Rounds an integer to double precision.
pub(super) fn integer_to_double(x: i128, rounding: Rounding) -> f64 {
    let near = x as f64;
    double(near, (x - near as i128) as f64, rounding)
}

/// Rounds to an integer in the same format.
pub(super) fn to_integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sixteen bits: their sums and products are exact in single precision after a shift.
    fn short() -> impl Strategy<Value = f32> {
        any::<f32>().prop_filter("finite", |x| x.is_finite() && x.abs() < 1e18 && x.abs() > 1e-18)
    }

    proptest! {
        #[test]
        fn down_and_up_enclose_the_exact_result(a in short(), b in short(), c in short()) {
            for op in [FloatOp::Add, FloatOp::Sub, FloatOp::Mul, FloatOp::Fma, FloatOp::Div, FloatOp::Sqrt] {
                let a = if op == FloatOp::Sqrt { a.abs() } else { a };
                let near = match op {
                    FloatOp::Add => a + b,
                    FloatOp::Sub => a - b,
                    FloatOp::Mul => a * b,
                    FloatOp::Fma => a.mul_add(b, c),
                    FloatOp::Div => a / b,
                    _ => a.sqrt(),
                };
                let [down, up, zero] = [Rounding::Down, Rounding::Up, Rounding::Zero].map(|r| singles(op, r, [a, b, c]));
                prop_assert!(down <= near && near <= up, "{op:?}: {down} {near} {up}");
                prop_assert!(down == up || down.next_up() == up, "{op:?}: {down} {up}");
                prop_assert_eq!(zero, if near > 0.0 { down } else { up });
            }
        }
    }

    #[test]
    fn directed_results_are_known() {
        assert_eq!(singles(FloatOp::Add, Rounding::Up, [1.0, 1e-30, 0.0]), 1.0_f32.next_up());
        assert_eq!(singles(FloatOp::Add, Rounding::Zero, [1.0, -1e-30, 0.0]), 1.0_f32.next_down());
        assert_eq!(singles(FloatOp::Mul, Rounding::Zero, [f32::MAX, 2.0, 0.0]), f32::MAX);
        assert_eq!(singles(FloatOp::Div, Rounding::Up, [1.0, 3.0, 0.0]), 0.333_333_34);
        assert_eq!(singles(FloatOp::Div, Rounding::Down, [1.0, 3.0, 0.0]), 0.333_333_3);
        assert_eq!(integer_to_single((1 << 24) + 1, Rounding::Up), 16_777_218.0);
        assert_eq!(integer_to_single(-(1 << 24) - 1, Rounding::Zero), -16_777_216.0);
    }
}
