//! A function that lanes of a warp run: registers, program counters, parameters.

use crate::arithmetic::Lanes;
use crate::program::{Function, Target};

/// Iterates over the lanes of a mask.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            lane
        })
    })
}

/// A function being run by some lanes of a warp. Each lane of it is in one of the masks, or has left.
pub(super) struct Frame<'p> {
    pub(super) f: &'p Function,
    pub(super) registers: Vec<Lanes>,
    /// A bit for each lane.
    pub(super) predicates: Vec<u32>,
    /// Which lanes carry.
    pub(super) carry: u32,
    pub(super) pc: [u32; 32],
    pub(super) running: u32,
    /// Lanes that wait for others of the warp at an instruction that they run together.
    pub(super) parked: u32,
    /// Lanes that wait at a barrier of the block.
    pub(super) waiting: u32,
    /// Room for each lane.
    parameters: Vec<u8>,
    /// Where the function's part of local memory begins.
    pub(super) local_base: usize,
    /// The lanes that came.
    pub(super) entered: u32,
    /// Where the caller wants the results.
    pub(super) returned: &'p [u64],
}

impl<'p> Frame<'p> {
    pub(super) fn new(f: &'p Function, mask: u32, local_base: usize) -> Self {
        Frame {
            f,
            registers: vec![[0; 32]; f.registers],
            predicates: vec![0; f.predicates],
            carry: 0,
            pc: [0; 32],
            running: mask,
            entered: mask,
            parked: 0,
            waiting: 0,
            parameters: vec![0; f.parameter_bytes * 32],
            local_base,
            returned: &[],
        }
    }

    /// Returns the lanes that have not left.
    pub(super) fn alive(&self) -> u32 {
        self.running | self.parked | self.waiting
    }

    /// Lets lanes leave.
    pub(super) fn leave(&mut self, mask: u32) {
        self.running &= !mask;
        self.parked &= !mask;
        self.waiting &= !mask;
    }

    pub(super) fn jump(&mut self, mask: u32, pc: u32) {
        lanes(mask).for_each(|lane| self.pc[lane] = pc);
    }

    /// Returns the lowest program counter of some lanes, and which of them are there.
    pub(super) fn lowest(&self, mask: u32) -> (u32, u32) {
        let lowest = lanes(mask).map(|lane| self.pc[lane]).min().unwrap_or(u32::MAX);
        let there = lanes(mask).filter(|&lane| self.pc[lane] == lowest);
        (lowest, there.fold(0, |mask, lane| mask | 1 << lane))
    }

    /// Returns a piece of a lane's parameters, unless it goes beyond them.
    pub(super) fn parameter(&mut self, lane: usize, at: u64, bytes: usize) -> Option<&mut [u8]> {
        let room = self.f.parameter_bytes;
        let end = at.checked_add(bytes as u64).filter(|end| *end <= room as u64)?;
        let start = lane * room;
        self.parameters.get_mut(start + at as usize..start + end as usize)
    }

    /// Writes a value of each lane of a mask.
    pub(super) fn write(&mut self, target: Target, mask: u32, values: &Lanes) {
        match target {
            Target::Register(register) => {
                let register = &mut self.registers[register as usize];
                if mask == u32::MAX {
                    *register = *values;
                } else {
                    lanes(mask).for_each(|lane| register[lane] = values[lane]);
                }
            }
            Target::Predicate(_) => {
                let bits = (0..32).fold(0, |bits, lane| bits | ((values[lane] & 1) as u32) << lane);
                self.write_predicate(target, mask, bits);
            }
            Target::Nothing => {}
        }
    }

    /// Writes a bit of each lane of a mask; a register becomes 0 or 1.
    pub(super) fn write_predicate(&mut self, target: Target, mask: u32, bits: u32) {
        match target {
            Target::Predicate(predicate) => {
                let predicate = &mut self.predicates[predicate as usize];
                *predicate = *predicate & !mask | bits & mask;
            }
            target => {
                let values = std::array::from_fn(|lane| u64::from(bits >> lane & 1));
                self.write(target, mask, &values);
            }
        }
    }
}
