//! A block: warps that take turns at its barriers.

use super::barrier::{BarrierState, Released};
use super::frame::lanes;
use super::grid::Grid;
use super::warp::Warp;
use crate::arithmetic::Lanes;
use crate::error::{Fault, FaultKind};
use crate::memory::{Region, Stamp};
use crate::program::{Instruction, Special, Value};

/// A mistake of some lane, before it is known where.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) lane: usize,
    pub(super) kind: FaultKind,
}

impl Trouble {
    /// Returns the mistake of a mask's first lane.
    pub(super) fn of(mask: u32, kind: FaultKind) -> Self {
        Trouble { lane: (mask.trailing_zeros() as usize).min(31), kind }
    }
}

pub(super) struct Block<'a, 'p, 'm> {
    pub(super) grid: &'a mut Grid<'p, 'm>,
    pub(super) shared: &'a mut Region,
    /// A number that no other block has.
    pub(super) number: u64,
    pub(super) at: [u32; 3],
    pub(super) threads: u32,
    /// Grows whenever a barrier opens; 0 is before everything.
    pub(super) time: u32,
    pub(super) barriers: [BarrierState; 16],
    pub(super) released: Vec<Released>,
    /// Earlier blocks whose doings this one has seen through atomics.
    pub(super) acquired: Vec<u64>,
}

impl<'a, 'p, 'm> Block<'a, 'p, 'm> {
    pub(super) fn new(grid: &'a mut Grid<'p, 'm>, shared: &'a mut Region, number: u64) -> Self {
        Block {
            at: grid.shape.place(number),
            threads: grid.shape.block.iter().product(),
            grid,
            shared,
            number,
            time: 1,
            barriers: Default::default(),
            released: Vec::new(),
            acquired: Vec::new(),
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Box<Fault>> {
        let count = self.threads.div_ceil(32);
        let mut warps: Vec<Warp<'p>> = (0..count)
            .map(|index| {
                let threads = (self.threads - index * 32).min(32);
                let lanes = u32::MAX >> (32 - threads);
                Warp::new(index, lanes, self.grid.kernel, self.grid.parameters)
            })
            .collect();
        loop {
            let mut has_progress = false;
            for index in 0..warps.len() {
                let warp = &mut warps[index];
                if warp.is_blocked || warp.is_done() {
                    continue;
                }
                has_progress = true;
                self.go(warp)?;
                for released in std::mem::take(&mut self.released) {
                    self.open(&mut warps, released);
                }
            }
            if warps.iter().all(Warp::is_done) {
                return Ok(());
            }
            if !has_progress {
                return Err(self.missing_threads(&warps));
            }
        }
    }

    /// Says which barrier is waited at in vain.
    fn missing_threads(&self, warps: &[Warp<'_>]) -> Box<Fault> {
        let waiting = warps.iter().find_map(|warp| Some((warp, warp.arrivals.first()?)));
        let Some((warp, arrival)) = waiting else {
            // Only barriers block.
            return self.fault(&warps[0], None, Trouble::of(1, FaultKind::Trap));
        };
        let number = (0..16).find(|&n| self.barriers[n as usize].has_warp(warp.index)).unwrap_or(0);
        let state = &self.barriers[number as usize];
        let kind = FaultKind::Barrier {
            barrier: number,
            waiting: state.arrived,
            expected: state.expected,
        };
        self.fault(
            warp,
            warp.frame.f.code.get(arrival.pc as usize),
            Trouble::of(arrival.lanes, kind),
        )
    }

    pub(super) fn fault(
        &self,
        warp: &Warp<'_>,
        at: Option<&Instruction>,
        trouble: Trouble,
    ) -> Box<Fault> {
        let opcode = at.and_then(|i| self.grid.program.opcodes.get(i.opcode as usize));
        Box::new(Fault {
            kernel: self.grid.kernel.name.clone(),
            line: at.map_or(warp.frame.f.last_line, |i| i.line),
            instruction: opcode.cloned().unwrap_or_default(),
            thread: self.grid.shape.thread(self.number, warp.index * 32 + trouble.lane as u32),
            kind: trouble.kind,
        })
    }

    pub(super) fn stamp(&self, warp: &Warp<'_>, lane: usize) -> Stamp {
        let thread = warp.index * 32 + lane as u32;
        Stamp { block: self.number, time: self.time + warp.ahead, epoch: warp.epoch, thread }
    }

    /// Reads a value of all lanes; what is not a register is put into `scratch`.
    pub(super) fn read<'s>(
        &self,
        warp: &'s Warp<'_>,
        value: Value,
        scratch: &'s mut Lanes,
    ) -> &'s Lanes {
        static ZERO: Lanes = [0; 32];
        match value {
            Value::Register(register) => return &warp.frame.registers[register as usize],
            Value::Constant(0) => return &ZERO,
            Value::Predicate(p) => {
                let bits = warp.frame.predicates[p as usize];
                *scratch = std::array::from_fn(|lane| u64::from(bits >> lane & 1));
            }
            Value::NotPredicate(p) => {
                let bits = !warp.frame.predicates[p as usize];
                *scratch = std::array::from_fn(|lane| u64::from(bits >> lane & 1));
            }
            Value::Special(special) => {
                *scratch = std::array::from_fn(|lane| self.special(warp, special, lane as u32));
            }
            Value::Constant(x) => *scratch = [x; 32],
            Value::Shared(area, offset) => {
                *scratch = [self.grid.layout.start(area).wrapping_add(offset); 32]
            }
            Value::Variable(number, offset) => {
                *scratch = [self.grid.variables[number as usize].wrapping_add(offset); 32];
            }
            Value::Local(offset) => {
                *scratch = [(warp.frame.local_base as u64).wrapping_add(offset); 32]
            }
            Value::Parameter(offset) => *scratch = [offset; 32],
        }
        scratch
    }

    /// Reads a value of one lane.
    pub(super) fn read_lane(&self, warp: &Warp<'_>, value: Value, lane: usize) -> u64 {
        match value {
            Value::Register(register) => warp.frame.registers[register as usize][lane],
            Value::Constant(x) => x,
            value => self.read(warp, value, &mut [0; 32])[lane],
        }
    }

    /// Reads a predicate of all lanes, a bit each.
    pub(super) fn read_bits(&self, warp: &Warp<'_>, value: Value) -> u32 {
        match value {
            Value::Predicate(p) => warp.frame.predicates[p as usize],
            Value::NotPredicate(p) => !warp.frame.predicates[p as usize],
            value => {
                let mut scratch = [0; 32];
                let values = self.read(warp, value, &mut scratch);
                (0..32).fold(0, |bits, lane| bits | ((values[lane] & 1) as u32) << lane)
            }
        }
    }

    fn special(&self, warp: &Warp<'_>, special: Special, lane: u32) -> u64 {
        let thread = warp.index * 32 + lane;
        let [x, y, _] = self.grid.shape.block;
        let below = (1_u64 << lane) - 1;
        let masked = |mask: u64| mask & 0xffff_ffff;
        match special {
            Special::Thread(0) => u64::from(thread % x),
            Special::Thread(1) => u64::from(thread / x % y),
            Special::Thread(_) => u64::from(thread / x / y),
            Special::Threads(axis) => u64::from(self.grid.shape.block[axis.min(2)]),
            Special::Block(axis) => u64::from(self.at[axis.min(2)]),
            Special::Blocks(axis) => u64::from(self.grid.shape.grid[axis.min(2)]),
            Special::Lane => u64::from(lane),
            Special::Warp => u64::from(warp.index),
            Special::Warps => u64::from(self.threads.div_ceil(32)),
            Special::LanesBelow => below,
            Special::LanesUpTo => below << 1 | 1,
            Special::LaneBit => below + 1,
            Special::LanesFrom => masked(!below),
            Special::LanesAbove => masked(!(below << 1 | 1)),
            Special::Clock => self.grid.counts.warp_instructions,
            Special::DynamicShared => self.grid.dynamic_shared as u64,
            Special::TotalShared => self.grid.layout.bytes as u64,
            Special::Zero => 0,
        }
    }

    /// Returns the mask that an operand of an instruction of the whole warp names.
    pub(super) fn members(&self, warp: &Warp<'_>, members: Value, on: u32) -> u32 {
        lanes(on).next().map_or(0, |lane| self.read_lane(warp, members, lane) as u32)
    }
}
