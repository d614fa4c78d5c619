//! Floating point arithmetic.

use super::{Lanes, fused, half, map, map2, map3, round};
use crate::program::{Float, FloatMode, FloatOp, Rounding};

/// The NaN that single-precision arithmetic returns on a device.
const NAN: u32 = 0x7fff_ffff;

pub(super) fn evaluate(mode: FloatMode, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    match mode.format {
        Float::Single => singles(mode, a, b, c),
        Float::Double => doubles(mode, a, b, c),
        format => map3(a, b, c, |a, b, c| {
            half::each(format, [a, b, c], |[a, b, c]| {
                // A product of halves is exact in double precision.
                let y = match mode.op {
                    FloatOp::Fma => f64::from(a) * f64::from(b) + f64::from(c),
                    op => f64::from(single(FloatMode { nan: mode.nan, ..mode }, op, [a, b, c])),
                };
                if mode.saturate { saturate(y) } else { y }
            })
        }),
    }
}

/// Clamps to 0..1; NaN becomes 0.
fn saturate(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

fn bits(x: f32) -> u64 {
    u64::from(if x.is_nan() { NAN } else { x.to_bits() })
}

fn singles(mode: FloatMode, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let read = |x: &Lanes| x.map(|x| f32::from_bits(x as u32));
    // The most frequent ones, without looking at what is rare.
    if mode.rounding == Rounding::Nearest && !mode.flush && !mode.saturate {
        match mode.op {
            FloatOp::Add => {
                return map2(a, b, |a, b| {
                    bits(f32::from_bits(a as u32) + f32::from_bits(b as u32))
                });
            }
            FloatOp::Sub => {
                return map2(a, b, |a, b| {
                    bits(f32::from_bits(a as u32) - f32::from_bits(b as u32))
                });
            }
            FloatOp::Mul => {
                return map2(a, b, |a, b| {
                    bits(f32::from_bits(a as u32) * f32::from_bits(b as u32))
                });
            }
            FloatOp::Fma => return fused::singles(&read(a), &read(b), &read(c)).map(bits),
            _ => {}
        }
    }
    match mode.op {
        // Only the sign changes: a NaN keeps its bits.
        FloatOp::Abs if !mode.flush => return map(a, |a| a & 0x7fff_ffff),
        FloatOp::Neg if !mode.flush => return map(a, |a| (a ^ 0x8000_0000) & 0xffff_ffff),
        FloatOp::CopySign => return map2(a, b, |a, b| a & 0x8000_0000 | b & 0x7fff_ffff),
        _ => {}
    }
    map3(a, b, c, |a, b, c| {
        let x = [a, b, c].map(|x| f32::from_bits(x as u32));
        let x = if mode.flush { x.map(flush) } else { x };
        let y = match mode.rounding {
            Rounding::Nearest => single(mode, mode.op, x),
            rounding => round::singles(mode.op, rounding, x),
        };
        let y = if mode.flush { flush(y) } else { y };
        bits(if mode.saturate { saturate(f64::from(y)) as f32 } else { y })
    })
}

/// The smaller or larger of two numbers; -0 is less than 0.
fn extreme(a: f32, b: f32, smaller: bool, nan: bool) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f32::NAN,
        (true, false) => {
            if nan {
                a
            } else {
                b
            }
        }
        (false, true) => {
            if nan {
                b
            } else {
                a
            }
        }
        (false, false) => {
            let a_first = a < b || a == b && a.is_sign_negative();
            if a_first == smaller { a } else { b }
        }
    }
}

fn single(mode: FloatMode, op: FloatOp, [a, b, c]: [f32; 3]) -> f32 {
    match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Fma => a.mul_add(b, c),
        FloatOp::Div => a / b,
        FloatOp::Min => extreme(a, b, true, mode.nan),
        FloatOp::Max => extreme(a, b, false, mode.nan),
        FloatOp::Abs => a.abs(),
        FloatOp::Neg => -a,
        FloatOp::Sqrt => a.sqrt(),
        FloatOp::Reciprocal => 1.0 / a,
        FloatOp::ReciprocalSqrt => (1.0 / f64::from(a).sqrt()) as f32,
        FloatOp::Exp2 => f64::from(a).exp2() as f32,
        FloatOp::Log2 => f64::from(a).log2() as f32,
        FloatOp::Sin => f64::from(a).sin() as f32,
        FloatOp::Cos => f64::from(a).cos() as f32,
        FloatOp::Tanh => f64::from(a).tanh() as f32,
        FloatOp::CopySign => b.copysign(a),
    }
}

fn doubles(mode: FloatMode, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let read = |x: &Lanes| x.map(f64::from_bits);
    if mode.op == FloatOp::Fma {
        return fused::doubles(&read(a), &read(b), &read(c)).map(f64::to_bits);
    }
    map2(a, b, |a, b| {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        let y = match mode.rounding {
            Rounding::Nearest => double(mode, a, b),
            rounding => round::doubles(mode.op, rounding, a, b),
        };
        y.to_bits()
    })
}

fn double(mode: FloatMode, a: f64, b: f64) -> f64 {
    // The device's approximations have the upper half of the bits.
    let upper = |x: f64| f64::from_bits(x.to_bits() & !0xffff_ffff);
    let tiny = |x: f64| if mode.flush && x.is_subnormal() { 0.0_f64.copysign(x) } else { x };
    match mode.op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Div => a / b,
        FloatOp::Min => a.min(b),
        FloatOp::Max => a.max(b),
        FloatOp::Abs => a.abs(),
        FloatOp::Neg => -a,
        FloatOp::Sqrt => a.sqrt(),
        FloatOp::CopySign => b.copysign(a),
        FloatOp::Reciprocal if mode.approximate => tiny(upper(1.0 / tiny(a))),
        FloatOp::Reciprocal => 1.0 / a,
        FloatOp::ReciprocalSqrt => upper(1.0 / tiny(a).sqrt()),
        // Decoding lets nothing else through.
        _ => f64::NAN,
    }
}
