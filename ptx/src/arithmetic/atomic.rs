//! What atomics write.

use super::{half, truncate};
use crate::program::{AtomicOp, Float, Type};

/// Returns the new value of an atomic from the old one and its operands.
pub(crate) fn update(op: AtomicOp, ty: Type, old: u64, b: u64, c: u64) -> u64 {
    let bits = ty.bits();
    let (old, b, c) = (truncate(old, bits), truncate(b, bits), truncate(c, bits));
    let signed = |x: u64| super::extend_sign(x, bits).cast_signed();
    let y = match (op, ty) {
        (AtomicOp::Add, Type::Float(Float::Single)) => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits())
        }
        (AtomicOp::Add, Type::Float(Float::Double)) => {
            (f64::from_bits(old) + f64::from_bits(b)).to_bits()
        }
        (AtomicOp::Add, Type::Float(format)) => {
            half::each(format, [old, b, 0], |[a, b, _]| f64::from(a) + f64::from(b))
        }
        (AtomicOp::Add, _) => old.wrapping_add(b),
        (AtomicOp::Min, Type::Signed(_)) => {
            if signed(b) < signed(old) {
                b
            } else {
                old
            }
        }
        (AtomicOp::Max, Type::Signed(_)) => {
            if signed(b) > signed(old) {
                b
            } else {
                old
            }
        }
        (AtomicOp::Min, _) => old.min(b),
        (AtomicOp::Max, _) => old.max(b),
        (AtomicOp::And, _) => old & b,
        (AtomicOp::Or, _) => old | b,
        (AtomicOp::Xor, _) => old ^ b,
        (AtomicOp::Exchange, _) => b,
        (AtomicOp::CompareAndSwap, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomicOp::Increment, _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        (AtomicOp::Decrement, _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    };
    truncate(y, bits)
}
