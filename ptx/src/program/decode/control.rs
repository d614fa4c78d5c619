//! Branches, calls, barriers of a block.

use super::super::declarations::Result;
use super::super::op::{Barrier, BarrierReduction, Call, Op, Value};
use super::super::operand::{Operand, Statement};

pub(super) fn plain(s: &mut Statement<'_>, op: Op) -> Result<Op> {
    s.take("uni");
    if s.operands.is_empty() { Ok(op) } else { s.wrong() }
}

pub(super) fn branch(s: &mut Statement<'_>) -> Result<Op> {
    s.take("uni");
    match s.operands[..] {
        [Operand::Label(label)] => Ok(Op::Branch(label)),
        _ => s.wrong(),
    }
}

pub(super) fn branch_indexed(s: &mut Statement<'_>) -> Result<Op> {
    s.take("uni");
    if !s.take("idx") {
        return s.unsupported();
    }
    match &s.operands[..] {
        [Operand::Value(index), Operand::Labels(labels)] => {
            Ok(Op::BranchIndexed { index: *index, labels: labels.clone() })
        }
        _ => s.wrong(),
    }
}

pub(super) fn call(s: &mut Statement<'_>) -> Result<Op> {
    s.take("uni");
    let places = |list: &[Operand]| -> Option<Vec<u64>> {
        let place = |operand: &Operand| match operand {
            Operand::Value(Value::Parameter(offset)) => Some(*offset),
            _ => None,
        };
        list.iter().map(place).collect()
    };
    let (returned, function, passed): (&[Operand], _, &[Operand]) = match &s.operands[..] {
        [Operand::List(returned), Operand::Name(function), Operand::List(passed)] => {
            (returned, function, passed)
        }
        [Operand::List(returned), Operand::Name(function)] => (returned, function, &[]),
        [Operand::Name(function), Operand::List(passed)] => (&[], function, passed),
        [Operand::Name(function)] => (&[], function, &[]),
        // Calls through pointers.
        _ => return s.unsupported(),
    };
    match (places(returned), places(passed)) {
        (Some(returned), Some(passed)) => {
            Ok(Op::Call(Call { function: function.clone(), passed, returned }))
        }
        _ => s.wrong(),
    }
}

pub(super) fn barrier(s: &mut Statement<'_>) -> Result<Op> {
    s.ignore(&["cta"]);
    if s.take("warp") {
        s.take("sync");
        return Ok(Op::WarpBarrier { members: s.value(0)? });
    }
    let aligned = s.take("aligned") | (s.name == "bar");
    let reductions = [
        ("popc", BarrierReduction::Count),
        ("and", BarrierReduction::And),
        ("or", BarrierReduction::Or),
    ];
    let count = s.operands.len();
    if s.take("red") {
        // `red.popc.u32 to, number, threads, predicate`
        let Some(op) = s.choose(&reductions) else { return s.unsupported() };
        let threads = if count == 4 { Some(s.value(2)?) } else { None };
        let reduction = Some((op, s.target(0)?, s.value(count.saturating_sub(1))?));
        return Ok(Op::Barrier(Barrier {
            number: s.value(1)?,
            threads,
            aligned,
            waits: true,
            reduction,
        }));
    }
    let waits = !s.take("arrive");
    if waits && !s.take("sync") {
        return s.unsupported();
    }
    let threads = if count == 2 { Some(s.value(1)?) } else { None };
    if !waits && threads.is_none() {
        return s.wrong();
    }
    Ok(Op::Barrier(Barrier { number: s.value(0)?, threads, aligned, waits, reduction: None }))
}
