//! One instruction after the other.

use super::block::{Block, Trouble};
use super::frame::lanes;
use super::warp::{Arrival, Warp};
use crate::arithmetic::{Lanes, add_with_carry, compare, evaluate, truncate};
use crate::error::{Fault, FaultKind};
use crate::program::{Instruction, Logic, Op, Target, Value};

/// What follows an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// All lanes go on behind it.
    Behind,
    /// Program counters and masks are set.
    Set,
}

fn combine(logic: Logic, a: u32, b: u32) -> u32 {
    match logic {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

impl<'p> Block<'_, 'p, '_> {
    /// Runs a warp until it is done or waits at a barrier.
    pub(super) fn go(&mut self, warp: &mut Warp<'p>) -> Result<(), Box<Fault>> {
        loop {
            if warp.frame.running == 0 {
                if warp.frame.parked != 0 {
                    self.unpark(warp)?;
                } else if warp.frame.waiting != 0 {
                    let told = self.arrive_all(warp);
                    return told.map_err(|(pc, trouble)| {
                        self.fault(warp, warp.frame.f.code.get(pc as usize), trouble)
                    });
                } else if !self.leave_function(warp) {
                    return Ok(());
                }
                continue;
            }
            // The lanes at the lowest program counter go first, so that branches come together again.
            let (mut pc, mask) = warp.frame.lowest(warp.frame.running);
            let (next, _) = warp.frame.lowest(warp.frame.running & !mask);
            // As long as nothing branches and no other lanes are met, the mask stays.
            let code = &warp.frame.f.code;
            loop {
                let Some(instruction) = code.get(pc as usize) else {
                    warp.frame.leave(mask);
                    break;
                };
                match self.step(warp, instruction, pc, mask, false) {
                    Ok(Next::Behind) => pc += 1,
                    Ok(Next::Set) => break,
                    Err(trouble) => return Err(self.fault(warp, Some(instruction), trouble)),
                }
                if pc >= next {
                    warp.frame.jump(mask, pc);
                    break;
                }
            }
        }
    }

    /// Runs an instruction whose lanes are all there: no other lane of the warp can run.
    fn unpark(&mut self, warp: &mut Warp<'p>) -> Result<(), Box<Fault>> {
        let mut rest = warp.frame.parked;
        while rest != 0 {
            let (pc, together) = warp.frame.lowest(rest);
            rest &= !together;
            let Some(instruction) = warp.frame.f.code.get(pc as usize) else { break };
            let members = self.awaited(warp, &instruction.op, together);
            if members & !together == 0 {
                warp.frame.parked &= !together;
                warp.frame.running |= together;
                return match self.step(warp, instruction, pc, together, true) {
                    Ok(Next::Behind) => {
                        warp.frame.jump(together, pc + 1);
                        Ok(())
                    }
                    Ok(Next::Set) => Ok(()),
                    Err(trouble) => Err(self.fault(warp, Some(instruction), trouble)),
                };
            }
        }
        let (pc, reached) = warp.frame.lowest(warp.frame.parked);
        let instruction = warp.frame.f.code.get(pc as usize);
        let expected = instruction.map_or(0, |i| self.awaited(warp, &i.op, reached));
        let kind = FaultKind::Convergence { expected, reached };
        Err(self.fault(warp, instruction, Trouble::of(reached, kind)))
    }

    /// Returns the lanes with which an instruction runs together, of those that are left.
    fn awaited(&self, warp: &Warp<'p>, op: &Op, on: u32) -> u32 {
        let members = match op {
            Op::WarpBarrier { members }
            | Op::Shuffle { members, .. }
            | Op::Vote { members, .. }
            | Op::Reduce { members, .. }
            | Op::Match { members, .. }
            | Op::Elect { members, .. } => *members,
            _ => return on,
        };
        self.members(warp, members, on) & warp.alive()
    }

    /// Runs one instruction for some lanes; `together` where all that it waits for are there.
    fn step(
        &mut self,
        warp: &mut Warp<'p>,
        instruction: &'p Instruction,
        pc: u32,
        mask: u32,
        together: bool,
    ) -> Result<Next, Trouble> {
        let on = match instruction.guard {
            Some((predicate, negated)) => {
                let bits = warp.frame.predicates[predicate as usize];
                mask & if negated { !bits } else { bits }
            }
            None => mask,
        };
        if let Op::WarpBarrier { .. }
        | Op::Shuffle { .. }
        | Op::Vote { .. }
        | Op::Reduce { .. }
        | Op::Match { .. }
        | Op::Elect { .. } = &instruction.op
            && !together
            && on != 0
            && self.awaited(warp, &instruction.op, on) & !on != 0
        {
            warp.frame.jump(mask & !on, pc + 1);
            warp.frame.jump(on, pc);
            warp.frame.running &= !on;
            warp.frame.parked |= on;
            return Ok(Next::Set);
        }
        let counts = &mut self.grid.counts;
        if counts.warp_instructions >= self.grid.options.limit {
            return Err(Trouble::of(mask, FaultKind::InstructionLimit));
        }
        counts.warp_instructions += 1;
        counts.thread_instructions += u64::from(on.count_ones());
        self.grid.opcodes[instruction.opcode as usize] += 1;
        if on == 0 {
            return Ok(Next::Behind);
        }
        match &instruction.op {
            Op::Nothing => {}
            Op::Fence => warp.has_fenced = true,
            Op::Compute { compute, to, from } => {
                let mut scratch = [[0; 32]; 4];
                let [s0, s1, s2, s3] = &mut scratch;
                let values = [
                    self.read(warp, from[0], s0),
                    self.read(warp, from[1], s1),
                    self.read(warp, from[2], s2),
                    self.read(warp, from[3], s3),
                ];
                let result = evaluate(compute, values);
                warp.frame.write(*to, on, &result);
            }
            Op::Compare { comparison, to, from, combine: with } => {
                let (mut s0, mut s1) = ([0; 32], [0; 32]);
                let holds = compare(
                    comparison,
                    self.read(warp, from[0], &mut s0),
                    self.read(warp, from[1], &mut s1),
                );
                let (first, second) = match *with {
                    Some((logic, value)) => {
                        let value = self.read_bits(warp, value);
                        (combine(logic, holds, value), combine(logic, !holds, value))
                    }
                    None => (holds, !holds),
                };
                warp.frame.write_predicate(to[0], on, first);
                warp.frame.write_predicate(to[1], on, second);
            }
            Op::Predicate { logic, to, from } => {
                let a = self.read_bits(warp, from[0]);
                let b = match from[1] {
                    Value::Constant(x) => {
                        if x & 1 == 1 {
                            u32::MAX
                        } else {
                            0
                        }
                    }
                    value => self.read_bits(warp, value),
                };
                warp.frame.write_predicate(*to, on, combine(*logic, a, b));
            }
            Op::Carry { .. } | Op::Pack { .. } | Op::Unpack { .. } => {
                self.rare(warp, &instruction.op, on)
            }
            Op::Load { .. }
            | Op::Store { .. }
            | Op::Atomic { .. }
            | Op::Copy { .. }
            | Op::CommitCopies
            | Op::WaitCopies(_) => {
                self.access(warp, &instruction.op, on)?;
            }
            Op::Branch(label) => {
                let target = warp.frame.f.labels[*label as usize];
                warp.frame.jump(mask & !on, pc + 1);
                warp.frame.jump(on, target);
                return Ok(Next::Set);
            }
            Op::BranchIndexed { index, labels } => {
                warp.frame.jump(mask & !on, pc + 1);
                for lane in lanes(on) {
                    let at = self.read_lane(warp, *index, lane) & 0xffff_ffff;
                    let label =
                        labels.get(at as usize).map(|&label| warp.frame.f.labels[label as usize]);
                    // Beyond the list is undefined: the function is left.
                    warp.frame.pc[lane] = label.unwrap_or(u32::MAX);
                }
                return Ok(Next::Set);
            }
            Op::Call(call) => {
                warp.frame.jump(mask, pc + 1);
                self.call(warp, call, on)?;
                return Ok(Next::Set);
            }
            Op::Return | Op::Exit => {
                warp.frame.jump(mask, pc + 1);
                match instruction.op {
                    Op::Exit => warp.exit(on),
                    _ => warp.frame.leave(on),
                }
                return Ok(Next::Set);
            }
            Op::Trap => return Err(Trouble::of(on, FaultKind::Trap)),
            Op::Barrier(barrier) => {
                warp.frame.jump(mask, pc + 1);
                let arrival = Arrival { barrier: *barrier, lanes: on, pc };
                if barrier.waits {
                    warp.frame.running &= !on;
                    warp.frame.waiting |= on;
                    warp.arrivals.push(arrival);
                } else {
                    self.arrive(warp, arrival)?;
                }
                return Ok(Next::Set);
            }
            Op::WarpBarrier { .. } => warp.epoch += 1,
            op => self.together(warp, op, on)?,
        }
        Ok(Next::Behind)
    }

    fn rare(&self, warp: &mut Warp<'p>, op: &Op, on: u32) {
        match op {
            Op::Carry { sum, reads, writes, bits, to, from } => {
                let (mut result, mut carries) = ([0; 32], 0);
                for lane in lanes(on) {
                    let values = from.map(|value| self.read_lane(warp, value, lane));
                    let carry = *reads && warp.frame.carry >> lane & 1 == 1;
                    let (y, carries_on) = add_with_carry(*sum, *bits, values, carry);
                    result[lane] = y;
                    carries |= u32::from(carries_on) << lane;
                }
                if *writes {
                    warp.frame.carry = warp.frame.carry & !on | carries;
                }
                warp.frame.write(*to, on, &result);
            }
            Op::Pack { to, from, bits } => {
                let part = *bits / (from.len().max(1) as u32);
                let mut result: Lanes = [0; 32];
                for (i, &value) in from.iter().enumerate() {
                    let mut scratch = [0; 32];
                    let values = self.read(warp, value, &mut scratch);
                    let shift = part * i as u32;
                    lanes(on).for_each(|lane| {
                        result[lane] |= truncate(values[lane], part).checked_shl(shift).unwrap_or(0)
                    });
                }
                warp.frame.write(*to, on, &result);
            }
            Op::Unpack { to, from, bits } => {
                let part = *bits / (to.len().max(1) as u32);
                let mut scratch = [0; 32];
                let values = *self.read(warp, *from, &mut scratch);
                for (i, &target) in
                    to.iter().enumerate().filter(|(_, target)| **target != Target::Nothing)
                {
                    let shift = part * i as u32;
                    let result = values.map(|x| truncate(x.checked_shr(shift).unwrap_or(0), part));
                    warp.frame.write(target, on, &result);
                }
            }
            _ => {}
        }
    }
}
