//! Makes typed instructions of what is written.
//!
//! A modifier that nobody takes is an error: its meaning is not ignored.

mod calculate;
mod control;
mod memory;
mod warp;

use super::declarations::Result;
use super::op::{Compute, Op, Rounding};
use super::operand::Statement;

/// Decodes one instruction.
pub(super) fn decode(mut s: Statement<'_>) -> Result<Op> {
    let op = match s.name {
        "mov" => calculate::mov(&mut s),
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs" | "neg"
        | "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "lop3" | "prmt"
        | "bfe" | "bfi" | "bfind" | "popc" | "clz" | "brev" | "sad" | "bmsk" | "dp4a" | "ex2"
        | "lg2" | "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "tanh" | "copysign" | "addc"
        | "madc" | "subc" => calculate::arithmetic(&mut s),
        "setp" => calculate::compare(&mut s),
        "selp" | "slct" => calculate::select(&mut s),
        "cvt" => calculate::convert(&mut s),
        "testp" => calculate::test(&mut s),
        "cvta" => memory::to_address(&mut s),
        "isspacep" => memory::is_in_space(&mut s),
        "ld" | "ldu" => memory::load(&mut s),
        "st" => memory::store(&mut s),
        "atom" | "red" => memory::atomic(&mut s),
        "cp" => memory::copy(&mut s),
        "bra" => control::branch(&mut s),
        "brx" => control::branch_indexed(&mut s),
        "call" => control::call(&mut s),
        "ret" => control::plain(&mut s, Op::Return),
        "exit" => control::plain(&mut s, Op::Exit),
        "trap" => control::plain(&mut s, Op::Trap),
        "bar" | "barrier" => control::barrier(&mut s),
        "shfl" => warp::shuffle(&mut s),
        "vote" => warp::vote(&mut s),
        "redux" => warp::reduce(&mut s),
        "match" => warp::matching(&mut s),
        "elect" => warp::elect(&mut s),
        "activemask" => warp::active_mask(&mut s),
        "membar" | "fence" => memory::fence(&mut s),
        "prefetch" | "prefetchu" | "nanosleep" | "discard" | "applypriority" | "pmevent"
        | "griddepcontrol" | "setmaxnreg" => return Ok(Op::Nothing),
        _ => return s.unsupported(),
    }?;
    s.done()?;
    Ok(op)
}

/// Takes how a floating point result is rounded.
fn rounding(s: &mut Statement<'_>) -> Rounding {
    let table = [
        ("rn", Rounding::Nearest),
        ("rz", Rounding::Zero),
        ("rm", Rounding::Down),
        ("rp", Rounding::Up),
    ];
    s.choose(&table).unwrap_or(Rounding::Nearest)
}

/// Puts together an instruction of one result, whose other operands are values.
fn compute(s: &Statement<'_>, compute: Compute, count: usize) -> Result<Op> {
    Ok(Op::Compute { compute, to: s.target(0)?, from: s.values(1, count)? })
}
