//! Comparisons and classes of numbers.

use std::cmp::Ordering;

use super::{Lanes, extend_sign, half, truncate};
use crate::program::{Class, Comparison, Float, Relation, Type};

fn order(comparison: &Comparison, a: u64, b: u64) -> Option<Ordering> {
    let bits = comparison.ty.bits();
    match comparison.ty {
        Type::Float(Float::Double) => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Type::Float(Float::Single) => {
            let read = |x: u64| match f32::from_bits(x as u32) {
                x if comparison.flush && x.is_subnormal() => 0.0,
                x => x,
            };
            read(a).partial_cmp(&read(b))
        }
        Type::Float(format) => half::to_single(format, a).partial_cmp(&half::to_single(format, b)),
        Type::Signed(_) => {
            let read = |x: u64| extend_sign(x, bits).cast_signed();
            Some(read(a).cmp(&read(b)))
        }
        _ => Some(truncate(a, bits).cmp(&truncate(b, bits))),
    }
}

/// Compares in all lanes: a bit each.
pub(crate) fn compare(comparison: &Comparison, a: &Lanes, b: &Lanes) -> u32 {
    let holds = |a: u64, b: u64| match order(comparison, a, b) {
        None => comparison.or_unordered,
        Some(order) => match comparison.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Less => order == Ordering::Less,
            Relation::LessOrEqual => order != Ordering::Greater,
            Relation::Greater => order == Ordering::Greater,
            Relation::GreaterOrEqual => order != Ordering::Less,
            Relation::Ordered => true,
            Relation::Unordered => false,
        },
    };
    (0..32).fold(0, |mask, lane| mask | u32::from(holds(a[lane], b[lane])) << lane)
}

/// Says whether a number is of a class.
pub(crate) fn test(class: Class, format: Float, x: u64) -> bool {
    let (number, is_subnormal) = match format {
        Float::Double => (f64::from_bits(x), f64::from_bits(x).is_subnormal()),
        _ => (f64::from(f32::from_bits(x as u32)), f32::from_bits(x as u32).is_subnormal()),
    };
    match class {
        Class::Finite => number.is_finite(),
        Class::Infinite => number.is_infinite(),
        Class::Number => !number.is_nan(),
        Class::NotANumber => number.is_nan(),
        Class::Normal => number.is_finite() && number != 0.0 && !is_subnormal,
        Class::Subnormal => is_subnormal,
    }
}

/// Says whether the third operand of `slct` chooses the second.
pub(super) fn is_negative(ty: Type, x: u64) -> bool {
    match ty {
        // -0 counts as 0, and NaN as negative.
        Type::Float(_) => f32::from_bits(x as u32).partial_cmp(&0.0).is_none_or(Ordering::is_lt),
        ty => extend_sign(x, ty.bits()).cast_signed() < 0,
    }
}
