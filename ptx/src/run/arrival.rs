//! Barriers of a block: lanes come, and those who waited go on.

use super::barrier::Released;
use super::block::{Block, Trouble};
use super::warp::{Arrival, Warp};
use crate::error::FaultKind;
use crate::program::{Barrier, BarrierReduction};

impl<'p> Block<'_, 'p, '_> {
    /// Tells barriers that the lanes which wait in a warp have come: all that are left in it wait.
    pub(super) fn arrive_all(&mut self, warp: &mut Warp<'p>) -> Result<(), (u32, Trouble)> {
        let (alive, exited) = (warp.alive(), warp.lanes & !warp.alive());
        for arrival in warp.arrivals.clone() {
            let together = arrival.lanes == alive && exited == 0;
            if arrival.barrier.aligned && !together {
                let barrier = self.read_lane(
                    warp,
                    arrival.barrier.number,
                    arrival.lanes.trailing_zeros() as usize,
                ) as u32;
                return Err((
                    arrival.pc,
                    Trouble::of(arrival.lanes, FaultKind::Divergence { barrier }),
                ));
            }
        }
        warp.is_blocked = true;
        for arrival in warp.arrivals.clone() {
            self.arrive(warp, arrival).map_err(|trouble| (arrival.pc, trouble))?;
        }
        Ok(())
    }

    /// Tells a barrier that lanes have come.
    pub(super) fn arrive(&mut self, warp: &mut Warp<'p>, arrival: Arrival) -> Result<(), Trouble> {
        let Arrival { barrier, lanes, .. } = arrival;
        let Barrier { number, threads, waits, reduction, .. } = barrier;
        let first = (lanes.trailing_zeros() as usize).min(31);
        let number = self.read_lane(warp, number, first) & 0xffff_ffff;
        let all = self.threads.div_ceil(32) * 32;
        let expected = threads
            .map_or(u64::from(all), |threads| self.read_lane(warp, threads, first) & 0xffff_ffff);
        let bits = reduction.map_or(0, |(_, _, predicate)| self.read_bits(warp, predicate) & lanes);
        let wrong = FaultKind::BarrierOperand { barrier: number, threads: expected };
        let Some(state) = self.barriers.get_mut(number as usize) else {
            return Err(Trouble::of(lanes, wrong));
        };
        let differs = state.arrived > 0 && u64::from(state.expected) != expected;
        if expected == 0 || expected % 32 != 0 || expected > 1024 || differs {
            return Err(Trouble::of(lanes, wrong));
        }
        state.expected = expected as u32;
        // Lanes that do not exist come with the first.
        let missing = if lanes & 1 == 1 { 32 - warp.lanes.count_ones() } else { 0 };
        state.arrived += lanes.count_ones() + missing;
        for (seen, own) in state.seen.iter_mut().zip(warp.seen) {
            *seen = own.max(*seen);
        }
        if !waits {
            // What it does from now on is not seen by those who pass.
            state.seen[warp.index as usize] = self.time + warp.ahead;
            warp.ahead += 1;
        }
        state.holding += bits.count_ones();
        state.asked += lanes.count_ones();
        state.reduction = reduction.map(|(op, to, _)| (op, to)).or(state.reduction);
        if waits {
            state.waiting.push((warp.index, lanes));
        }
        if state.arrived >= state.expected {
            self.grid.counts.barriers += 1;
            self.released.push(Released(std::mem::take(state)));
        }
        Ok(())
    }

    /// Lets those go on who waited at a barrier.
    pub(super) fn open(&mut self, warps: &mut [Warp<'p>], Released(mut state): Released) {
        for &(index, _) in &state.waiting {
            // It has waited since it came: all that it did is seen.
            state.seen[index as usize] = self.time + warps[index as usize].ahead;
        }
        for &(index, lanes) in &state.waiting {
            let warp = &mut warps[index as usize];
            for (seen, joined) in warp.seen.iter_mut().zip(state.seen) {
                *seen = joined.max(*seen);
            }
            warp.epoch += 1;
            if let Some((op, target)) = state.reduction {
                match op {
                    BarrierReduction::Count => {
                        warp.frame.write(target, lanes, &[u64::from(state.holding); 32]);
                    }
                    BarrierReduction::And | BarrierReduction::Or => {
                        let holds = match op {
                            BarrierReduction::And => state.holding == state.asked,
                            _ => state.holding > 0,
                        };
                        warp.frame.write_predicate(target, lanes, if holds { u32::MAX } else { 0 });
                    }
                }
            }
            warp.release(lanes);
        }
        self.time += 1 + warps.iter().map(|warp| warp.ahead).max().unwrap_or(0);
        warps.iter_mut().for_each(|warp| warp.ahead = 0);
    }
}
