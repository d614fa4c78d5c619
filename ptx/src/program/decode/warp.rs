//! What the lanes of a warp do together.

use super::super::declarations::Result;
use super::super::op::{IntegerOp, Op, ShuffleMode, VoteMode};
use super::super::operand::Statement;
use super::super::types::Type;

pub(super) fn shuffle(s: &mut Statement<'_>) -> Result<Op> {
    let modes = [
        ("up", ShuffleMode::Up),
        ("down", ShuffleMode::Down),
        ("bfly", ShuffleMode::Butterfly),
        ("idx", ShuffleMode::Index),
    ];
    match (s.take("sync"), s.choose(&modes)) {
        (true, Some(mode)) => {
            let [value, by, clamp, members] = s.values(1, 4)?;
            Ok(Op::Shuffle { mode, to: s.targets(0)?, value, by, clamp, members })
        }
        _ => s.unsupported(),
    }
}

pub(super) fn vote(s: &mut Statement<'_>) -> Result<Op> {
    let modes = [
        ("all", VoteMode::All),
        ("any", VoteMode::Any),
        ("uni", VoteMode::Uniform),
        ("ballot", VoteMode::Ballot),
    ];
    match (s.take("sync"), s.choose(&modes)) {
        (true, Some(mode)) => {
            let [from, members, ..] = s.values(1, 2)?;
            Ok(Op::Vote { mode, to: s.target(0)?, from, members })
        }
        _ => s.unsupported(),
    }
}

pub(super) fn reduce(s: &mut Statement<'_>) -> Result<Op> {
    let ops = [
        ("add", IntegerOp::Add),
        ("min", IntegerOp::Min),
        ("max", IntegerOp::Max),
        ("and", IntegerOp::And),
        ("or", IntegerOp::Or),
        ("xor", IntegerOp::Xor),
    ];
    match (s.take("sync"), s.choose(&ops), s.ty()?) {
        (true, Some(op), ty @ (Type::Bits(32) | Type::Unsigned(32) | Type::Signed(32))) => {
            let [from, members, ..] = s.values(1, 2)?;
            Ok(Op::Reduce { op, signed: ty.is_signed(), to: s.target(0)?, from, members })
        }
        _ => s.unsupported(),
    }
}

pub(super) fn matching(s: &mut Statement<'_>) -> Result<Op> {
    let bits = s.ty()?.bits();
    match (s.take("sync"), s.choose(&[("any", false), ("all", true)])) {
        (true, Some(all)) => {
            let [from, members, ..] = s.values(1, 2)?;
            Ok(Op::Match { all, bits, to: s.targets(0)?, from, members })
        }
        _ => s.unsupported(),
    }
}

pub(super) fn elect(s: &mut Statement<'_>) -> Result<Op> {
    if !s.take("sync") {
        return s.unsupported();
    }
    let [members, ..] = s.values(1, 1)?;
    Ok(Op::Elect { to: s.targets(0)?, members })
}

pub(super) fn active_mask(s: &mut Statement<'_>) -> Result<Op> {
    Ok(Op::ActiveMask { to: s.target(0)? })
}
