//! Conversions between formats.

use super::{extend_sign, half, round, truncate};
use crate::program::{Conversion, Float, Rounding, Type};

enum Number {
    Float(f64),
    Integer(i128),
}

/// Converts a value; to a pair of halves, `a` becomes the upper one and `b` the lower one.
pub(super) fn convert(c: &Conversion, a: u64, b: u64) -> u64 {
    match c.to {
        Type::Float(Float::HalfPair | Float::BrainPair) => one(c, a) << 16 | one(c, b),
        _ => one(c, a),
    }
}

fn one(c: &Conversion, x: u64) -> u64 {
    match (c.to, read(c, x)) {
        (Type::Float(Float::Single), number) => u64::from(single(c, number)),
        (Type::Float(Float::Double), Number::Float(x)) => integral(c, x).to_bits(),
        (Type::Float(Float::Double), Number::Integer(x)) => {
            round::integer_to_double(x, c.rounding).to_bits()
        }
        (Type::Float(format), Number::Float(x)) => to_half(c, format, integral(c, x)),
        (Type::Float(format), Number::Integer(x)) => half::from_double(format, x as f64),
        (to, Number::Float(x)) => {
            from_float(to, round::to_integral(x, c.integral.unwrap_or(Rounding::Zero)))
        }
        (to, Number::Integer(x)) => integer(c, to, x),
    }
}

fn read(c: &Conversion, x: u64) -> Number {
    let bits = c.from.bits();
    match c.from {
        Type::Float(Float::Single) => {
            let x = f32::from_bits(x as u32);
            Number::Float(f64::from(if c.flush && x.is_subnormal() {
                0.0_f32.copysign(x)
            } else {
                x
            }))
        }
        Type::Float(Float::Double) => Number::Float(f64::from_bits(x)),
        Type::Float(format) => Number::Float(f64::from(half::to_single(format, x))),
        Type::Signed(_) => Number::Integer(i128::from(extend_sign(x, bits).cast_signed())),
        _ => Number::Integer(i128::from(truncate(x, bits))),
    }
}

fn integral(c: &Conversion, x: f64) -> f64 {
    c.integral.map_or(x, |rounding| round::to_integral(x, rounding))
}

fn single(c: &Conversion, number: Number) -> u32 {
    let y = match number {
        Number::Float(x) => {
            let x = integral(c, x);
            if c.rounding == Rounding::Nearest {
                x as f32
            } else {
                round::narrow(x, 0.0, c.rounding)
            }
        }
        Number::Integer(x) => round::integer_to_single(x, c.rounding),
    };
    let y = if c.flush && y.is_subnormal() { 0.0_f32.copysign(y) } else { y };
    let y = match c.saturate {
        true if y > 0.0 => y.min(1.0),
        true => 0.0,
        false => y,
    };
    if y.is_nan() { 0x7fff_ffff } else { y.to_bits() }
}

fn to_half(c: &Conversion, format: Float, x: f64) -> u64 {
    let x = match c.saturate {
        true if x > 0.0 => x.min(1.0),
        true => 0.0,
        false => x,
    };
    let x = if c.relu && x < 0.0 { 0.0 } else { x };
    let near = half::from_double(format, x);
    if c.rounding == Rounding::Nearest || x.is_nan() {
        return near;
    }
    let back = f64::from(half::to_single(format, near));
    // The neighbor towards 0 is one less, whatever the sign; the other one is one more.
    let (towards_zero, away) = (near.wrapping_sub(1), near + 1);
    let is_beyond = back.abs() > x.abs();
    let goes_away = match c.rounding {
        Rounding::Down => x < 0.0,
        Rounding::Up => x > 0.0,
        _ => false,
    };
    match goes_away {
        false if is_beyond => towards_zero,
        true if back != x && !is_beyond => {
            if near & 0x7fff == 0 && x < 0.0 {
                0x8001
            } else {
                away
            }
        }
        _ => near,
    }
}

/// Clamps to the range of the type; NaN becomes 0.
fn from_float(to: Type, x: f64) -> u64 {
    let bits = to.bits();
    let (least, most) = range(to);
    let x = if x.is_nan() { 0 } else { (x as i128).clamp(least, most) };
    truncate(x as u64, bits)
}

fn range(ty: Type) -> (i128, i128) {
    let bits = ty.bits();
    match ty.is_signed() {
        true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        false => (0, (1 << bits) - 1),
    }
}

fn integer(c: &Conversion, to: Type, x: i128) -> u64 {
    let (least, most) = range(to);
    let x = if c.saturate { x.clamp(least, most) } else { x };
    let y = truncate(x as u64, to.bits());
    // A wider register holds the sign as well.
    match to.is_signed() {
        true => truncate(extend_sign(y, to.bits()), c.register_bits.max(to.bits())),
        false => y,
    }
}
