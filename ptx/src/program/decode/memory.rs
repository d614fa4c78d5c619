//! Loads, stores, atomics, copies, addresses.

use super::super::declarations::Result;
use super::super::op::{AtomicOp, Compute, Op, StateSpace, Target, Value};
use super::super::operand::Statement;
use super::super::types::Type;
use super::compute;

/// Takes how many elements an access has.
fn width(s: &mut Statement<'_>) -> usize {
    s.choose(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
}

/// Removes hints about caches and scopes; says whether threads may race over the access.
fn strong(s: &mut Statement<'_>) -> bool {
    s.ignore(&[
        "gpu", "cta", "sys", "cluster", "weak", "nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt",
        "unified",
    ]);
    s.ignore_beginning("L1::");
    s.ignore_beginning("L2::");
    s.take("relaxed") | s.take("acquire") | s.take("release") | s.take("acq_rel")
}

pub(super) fn load(s: &mut Statement<'_>) -> Result<Op> {
    s.take("volatile");
    let (strong, space, width) = (strong(s), s.space(), width(s));
    let (ty, to) = (s.ty()?, s.vector_targets(0)?);
    if to.len() != width || width * ty.bytes() > 32 || ty == Type::Predicate {
        return s.wrong();
    }
    Ok(Op::Load { address: s.address(1, space)?, ty, to, strong })
}

pub(super) fn store(s: &mut Statement<'_>) -> Result<Op> {
    s.take("volatile");
    let (strong, space, width) = (strong(s), s.space(), width(s));
    let (ty, from) = (s.ty()?, s.vector_values(1)?);
    if from.len() != width || width * ty.bytes() > 32 || ty == Type::Predicate {
        return s.wrong();
    }
    Ok(Op::Store { address: s.address(0, space)?, ty, from, strong })
}

pub(super) fn atomic(s: &mut Statement<'_>) -> Result<Op> {
    strong(s);
    s.ignore(&["noftz"]);
    let space = s.space();
    let table = [
        ("add", AtomicOp::Add),
        ("min", AtomicOp::Min),
        ("max", AtomicOp::Max),
        ("and", AtomicOp::And),
        ("or", AtomicOp::Or),
        ("xor", AtomicOp::Xor),
        ("exch", AtomicOp::Exchange),
        ("cas", AtomicOp::CompareAndSwap),
        ("inc", AtomicOp::Increment),
        ("dec", AtomicOp::Decrement),
    ];
    let (Some(op), ty) = (s.choose(&table), s.ty()?) else { return s.unsupported() };
    let is_float = matches!(ty, Type::Float(_));
    let is_right = match op {
        AtomicOp::Add => ty.bits() >= 16,
        AtomicOp::Min | AtomicOp::Max => !is_float && ty.bits() >= 32,
        AtomicOp::Exchange | AtomicOp::CompareAndSwap => !is_float && ty.bits() >= 16,
        _ => !is_float && ty.bits() >= 32,
    };
    if !is_right || ty == Type::Predicate {
        return s.unsupported();
    }
    let first = usize::from(s.name == "atom");
    let to = if first == 1 { s.target(0)? } else { Target::Nothing };
    let swap = op == AtomicOp::CompareAndSwap;
    let [b, c, ..] = s.values(first + 1, if swap { 2 } else { 1 })?;
    Ok(Op::Atomic { address: s.address(first, space)?, ty, op, to, from: [b, c] })
}

/// `cp.async`: copies from global to shared memory that are done after a wait.
pub(super) fn copy(s: &mut Statement<'_>) -> Result<Op> {
    if !s.take("async") {
        return s.unsupported();
    }
    if s.take("commit_group") {
        return Ok(Op::CommitCopies);
    }
    if s.take("wait_all") {
        return Ok(Op::WaitCopies(None));
    }
    if s.take("wait_group") {
        return match s.value(0)? {
            Value::Constant(pending) => Ok(Op::WaitCopies(Some(pending as usize))),
            _ => s.wrong(),
        };
    }
    strong(s);
    let to_shared = s.take("shared") || s.take("shared::cta");
    if !to_shared || !s.take("global") {
        return s.unsupported();
    }
    let bytes = match s.value(2)? {
        Value::Constant(bytes @ (4 | 8 | 16)) => bytes as usize,
        _ => return s.wrong(),
    };
    let read = if s.operands.len() > 3 { Some(s.value(3)?) } else { None };
    let to = s.address(0, StateSpace::Shared)?;
    Ok(Op::Copy { to, from: s.address(1, StateSpace::Global)?, bytes, read })
}

pub(super) fn to_address(s: &mut Statement<'_>) -> Result<Op> {
    let (from_generic, space) = (s.take("to"), s.space());
    let by = if from_generic { Compute::FromGeneric(space) } else { Compute::ToGeneric(space) };
    compute(s, by, 1)
}

pub(super) fn is_in_space(s: &mut Statement<'_>) -> Result<Op> {
    let space = s.space();
    compute(s, Compute::IsInSpace(space), 1)
}

/// Fences order nothing that is not in order here; those beyond a block let an atomic publish what was written.
pub(super) fn fence(s: &mut Statement<'_>) -> Result<Op> {
    let is_wide = s.take("gl") | s.take("sys") | s.take("gpu") | s.take("cluster");
    s.ignore(&["cta", "sc", "acq_rel", "acquire", "release"]);
    Ok(if is_wide { Op::Fence } else { Op::Nothing })
}
