//! Integer arithmetic.

use super::{Lanes, extend_sign, map, map2, map3, truncate};
use crate::program::{IntegerOp, Permute, Sum};

pub(super) fn evaluate(op: IntegerOp, bits: u32, signed: bool, [a, b, c, d]: [&Lanes; 4]) -> Lanes {
    let read = |x: u64| if signed { extend_sign(x, bits) } else { truncate(x, bits) };
    // The most frequent ones first.
    match op {
        IntegerOp::Add => return map2(a, b, |a, b| truncate(a.wrapping_add(b), bits)),
        IntegerOp::Sub => return map2(a, b, |a, b| truncate(a.wrapping_sub(b), bits)),
        IntegerOp::And => return map2(a, b, |a, b| truncate(a & b, bits)),
        IntegerOp::Or => return map2(a, b, |a, b| truncate(a | b, bits)),
        IntegerOp::Xor => return map2(a, b, |a, b| truncate(a ^ b, bits)),
        IntegerOp::MulLow => return map2(a, b, |a, b| truncate(a.wrapping_mul(b), bits)),
        IntegerOp::MadLow => {
            return map3(a, b, c, |a, b, c| truncate(a.wrapping_mul(b).wrapping_add(c), bits));
        }
        IntegerOp::MulWide if bits <= 32 => {
            return map2(a, b, |a, b| truncate(read(a).wrapping_mul(read(b)), bits * 2));
        }
        IntegerOp::MadWide if bits <= 32 => {
            return map3(a, b, c, |a, b, c| {
                truncate(read(a).wrapping_mul(read(b)).wrapping_add(c), bits * 2)
            });
        }
        IntegerOp::ShiftLeft => {
            return map2(
                a,
                b,
                |a, b| if b as u32 >= bits { 0 } else { truncate(a << (b as u32), bits) },
            );
        }
        IntegerOp::Neg => return map(a, |a| truncate(a.wrapping_neg(), bits)),
        _ => {}
    }
    std::array::from_fn(|lane| {
        truncate(one(op, bits, signed, [a[lane], b[lane], c[lane], d[lane]]), bits)
    })
}

/// Returns the upper half of a product.
fn high(a: u64, b: u64, bits: u32, signed: bool) -> u64 {
    match signed {
        true => ((i128::from(a.cast_signed()) * i128::from(b.cast_signed())) >> bits) as u64,
        false => ((u128::from(a) * u128::from(b)) >> bits) as u64,
    }
}

fn one(op: IntegerOp, bits: u32, signed: bool, x: [u64; 4]) -> u64 {
    let [a, b, c, _] = x.map(|x| if signed { extend_sign(x, bits) } else { truncate(x, bits) });
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    match op {
        IntegerOp::MulHigh => high(a, b, bits, signed),
        IntegerOp::MadHigh => high(a, b, bits, signed).wrapping_add(c),
        // As the hardware has it.
        IntegerOp::Div | IntegerOp::Rem if b == 0 => {
            if op == IntegerOp::Div {
                u64::MAX
            } else {
                a
            }
        }
        IntegerOp::Div if signed => sa.wrapping_div(sb).cast_unsigned(),
        IntegerOp::Div => a / b,
        IntegerOp::Rem if signed => sa.wrapping_rem(sb).cast_unsigned(),
        IntegerOp::Rem => a % b,
        IntegerOp::Min if signed => sa.min(sb).cast_unsigned(),
        IntegerOp::Min => a.min(b),
        IntegerOp::Max if signed => sa.max(sb).cast_unsigned(),
        IntegerOp::Max => a.max(b),
        IntegerOp::Abs => sa.unsigned_abs(),
        IntegerOp::Not => !a,
        IntegerOp::LogicalNot => u64::from(a == 0),
        IntegerOp::ShiftRight => {
            let by = x[1] as u32;
            match signed {
                true => (sa >> by.min(63)).cast_unsigned(),
                false => a.checked_shr(by).unwrap_or(0),
            }
        }
        IntegerOp::FunnelLeft { wrap } => funnel(x, wrap, true),
        IntegerOp::FunnelRight { wrap } => funnel(x, wrap, false),
        IntegerOp::Table => (0..8).filter(|row| x[3] >> row & 1 == 1).fold(0, |y, row| {
            let side = |x: u64, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
            y | side(x[0], 2) & side(x[1], 1) & side(x[2], 0)
        }),
        IntegerOp::Permute(permute) => permuted(permute, x),
        IntegerOp::ExtractField => {
            let (at, len) = (x[1] as u32 & 255, x[2] as u32 & 255);
            match () {
                () if len == 0 => 0,
                () if signed => {
                    // What lies beyond the value is its sign.
                    let y = (sa >> at.min(bits - 1)).cast_unsigned();
                    if len >= bits { y } else { extend_sign(y, len) }
                }
                () => truncate(a.checked_shr(at).unwrap_or(0), len),
            }
        }
        IntegerOp::InsertField => {
            let (at, len) = (x[2] as u32 & 255, x[3] as u32 & 255);
            if at >= bits {
                return x[1];
            }
            let mask = truncate(u64::MAX, len) << at;
            x[1] & !mask | x[0] << at & mask
        }
        IntegerOp::CountOnes => u64::from(truncate(a, bits).count_ones()),
        IntegerOp::LeadingZeros => u64::from(truncate(a, bits).leading_zeros() - (64 - bits)),
        IntegerOp::ReverseBits => truncate(a, bits).reverse_bits() >> (64 - bits),
        IntegerOp::FindHighest { shift } => {
            let value = truncate(if signed && sa < 0 { !a } else { a }, bits);
            match 63_u64.checked_sub(u64::from(value.leading_zeros())) {
                None => 0xffff_ffff,
                Some(at) if shift => u64::from(bits) - 1 - at,
                Some(at) => at,
            }
        }
        IntegerOp::AbsoluteDifference => {
            let difference = if signed { sa.abs_diff(sb) } else { a.abs_diff(b) };
            difference.wrapping_add(c)
        }
        IntegerOp::Mask => {
            let (at, len) = (x[0] as u32, x[1] as u32);
            if at >= 32 { 0 } else { truncate(u64::MAX, len.min(32)) << at }
        }
        IntegerOp::Dot => (0..4).fold(c, |sum, i| {
            let byte = |x: u64| {
                let byte = x >> (8 * i) & 255;
                if signed { extend_sign(byte, 8) } else { byte }
            };
            sum.wrapping_add(byte(x[0]).wrapping_mul(byte(x[1])))
        }),
        // `mul.wide` of 64 bits does not exist; the others are done above.
        _ => 0,
    }
}

fn funnel([low, high, by, _]: [u64; 4], wrap: bool, left: bool) -> u64 {
    let by = if wrap { by as u32 & 31 } else { (by as u32).min(32) };
    let both = truncate(high, 32) << 32 | truncate(low, 32);
    if left { (u128::from(both) << by >> 32) as u64 } else { both >> by }
}

fn permuted(permute: Permute, [a, b, selector, _]: [u64; 4]) -> u64 {
    let all = truncate(b, 32) << 32 | truncate(a, 32);
    let byte = |at: u64| all >> (8 * (at & 7)) & 255;
    let s = selector & 3;
    let at = |i: u64| match permute {
        Permute::Selector => selector >> (4 * i) & 15,
        Permute::Forward4 => s + i,
        Permute::Backward4 => s.wrapping_sub(i) & 7,
        Permute::Replicate8 => s,
        Permute::EdgeClampLeft => i.max(s),
        Permute::EdgeClampRight => i.min(s),
        Permute::Replicate16 => (selector & 1) * 2 + (i & 1),
    };
    (0..4).fold(0, |y, i| {
        let at = at(i);
        let byte = byte(at);
        // The selector's highest bit asks for the byte's sign.
        let byte = if at & 8 == 0 { byte } else { (byte >> 7) * 255 };
        y | byte << (8 * i)
    })
}

/// Returns a sum of so many bits, and whether it carries or borrows.
pub(crate) fn add_with_carry(sum: Sum, bits: u32, [a, b, c]: [u64; 3], carry: bool) -> (u64, bool) {
    let first = match sum {
        Sum::Add | Sum::Subtract => a,
        Sum::ProductLow => a.wrapping_mul(b),
        Sum::ProductHigh { signed: true } => {
            high(extend_sign(a, bits), extend_sign(b, bits), bits, true)
        }
        Sum::ProductHigh { signed: false } => {
            high(truncate(a, bits), truncate(b, bits), bits, false)
        }
    };
    let (first, last) = (u128::from(truncate(first, bits)), u128::from(truncate(c, bits)));
    let carry = u128::from(carry);
    let y = match sum {
        Sum::Subtract => first.wrapping_sub(last).wrapping_sub(carry),
        _ => first + last + carry,
    };
    (truncate(y as u64, bits), y >> bits & 1 == 1)
}

/// Combines the values of some lanes, of 32 bits each.
pub(crate) fn reduce(op: IntegerOp, signed: bool, values: impl Iterator<Item = u64>) -> u64 {
    let combine = |a: u64, b: u64| {
        let lanes = evaluate(op, 32, signed, [&[a; 32], &[b; 32], &[0; 32], &[0; 32]]);
        lanes[0]
    };
    values.reduce(combine).unwrap_or(0)
}
