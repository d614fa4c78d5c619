//! Arithmetic of halves: computed in single precision and rounded once more.
//!
//! Single precision has more than twice the bits of a half and two, so the second rounding changes nothing.

use ::half::{bf16, f16};

use crate::program::Float;

pub(super) fn to_single(format: Float, bits: u64) -> f32 {
    match format {
        Float::Brain | Float::BrainPair => bf16::from_bits(bits as u16).to_f32(),
        _ => f16::from_bits(bits as u16).to_f32(),
    }
}

/// Rounds to the nearest half; NaN becomes the device's own.
pub(super) fn from_double(format: Float, x: f64) -> u64 {
    u64::from(match format {
        _ if x.is_nan() => 0x7fff,
        Float::Brain | Float::BrainPair => bf16::from_f64(x).to_bits(),
        _ => f16::from_f64(x).to_bits(),
    })
}

/// Applies a function to a half, or to both of a pair.
pub(super) fn each(format: Float, [a, b, c]: [u64; 3], f: impl Fn([f32; 3]) -> f64) -> u64 {
    let one = |shift: u32| {
        let x = [a, b, c].map(|x| to_single(format, x >> shift & 0xffff));
        from_double(format, f(x)) << shift
    };
    match format {
        Float::HalfPair | Float::BrainPair => one(0) | one(16),
        _ => one(0),
    }
}
