//! What instructions compute, for all lanes of a warp at once.

mod atomic;
mod compare;
mod convert;
mod float;
mod fused;
mod half;
mod integer;
mod round;

pub(crate) use atomic::update;
pub(crate) use compare::{compare, test};
pub(crate) use integer::{add_with_carry, reduce};

use crate::program::{Compute, StateSpace};

/// A value of each lane; narrow ones with zeros above.
pub(crate) type Lanes = [u64; 32];

/// Where shared memory begins among generic addresses.
pub(crate) const SHARED_WINDOW: u64 = 0x1_0000_0000;
/// Where local memory begins among generic addresses.
pub(crate) const LOCAL_WINDOW: u64 = 0x2_0000_0000;
/// How long each of the two is.
pub(crate) const WINDOW_BYTES: u64 = 0x1_0000_0000;

/// Keeps the lower bits.
pub(crate) fn truncate(x: u64, bits: u32) -> u64 {
    if bits >= 64 { x } else { x & ((1 << bits) - 1) }
}

/// Extends the sign of a value of so many bits.
pub(crate) fn extend_sign(x: u64, bits: u32) -> u64 {
    let unused = 64 - bits.clamp(1, 64);
    ((x << unused).cast_signed() >> unused).cast_unsigned()
}

fn map(a: &Lanes, f: impl Fn(u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane]))
}

fn map2(a: &Lanes, b: &Lanes, f: impl Fn(u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

fn map3(a: &Lanes, b: &Lanes, c: &Lanes, f: impl Fn(u64, u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane], b[lane], c[lane]))
}

fn window(space: StateSpace) -> u64 {
    match space {
        StateSpace::Shared => SHARED_WINDOW,
        StateSpace::Local => LOCAL_WINDOW,
        _ => 0,
    }
}

/// Computes an instruction's results from its operands, in all lanes.
pub(crate) fn evaluate(compute: &Compute, [a, b, c, d]: [&Lanes; 4]) -> Lanes {
    match *compute {
        Compute::Copy { bits } => map(a, |a| truncate(a, bits)),
        Compute::Float(mode) => float::evaluate(mode, a, b, c),
        Compute::Integer { op, bits, signed } => integer::evaluate(op, bits, signed, [a, b, c, d]),
        Compute::Convert(conversion) => map2(a, b, |a, b| convert::convert(&conversion, a, b)),
        Compute::Select { bits } => {
            map3(a, b, c, |a, b, c| truncate(if c & 1 == 1 { a } else { b }, bits))
        }
        Compute::SelectBySign { bits, by } => {
            map3(a, b, c, |a, b, c| truncate(if compare::is_negative(by, c) { b } else { a }, bits))
        }
        Compute::ToGeneric(space) => map(a, |a| a.wrapping_add(window(space))),
        Compute::FromGeneric(space) => map(a, |a| a.wrapping_sub(window(space))),
        Compute::IsInSpace(space) => map(a, |a| {
            let shared = a.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES;
            let local = a.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES;
            u64::from(match space {
                StateSpace::Shared => shared,
                StateSpace::Local => local,
                _ => !shared && !local,
            })
        }),
        Compute::Test { class, format } => map(a, |a| u64::from(test(class, format, a))),
    }
}
