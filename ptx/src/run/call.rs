//! Calls and returns.

use super::block::{Block, Trouble};
use super::frame::{Frame, lanes};
use super::warp::Warp;
use crate::error::FaultKind;
use crate::program::Call;

/// How deeply calls may be nested.
const MOST_FRAMES: usize = 64;

impl<'p> Block<'_, 'p, '_> {
    /// Calls a function for some lanes; the others of the caller wait until it has returned.
    pub(super) fn call(&self, warp: &mut Warp<'p>, call: &'p Call, on: u32) -> Result<(), Trouble> {
        let program = self.grid.program;
        let Some(f) = program.by_name.get(&call.function).map(|&at| &program.functions[at]) else {
            return Err(Trouble::of(on, FaultKind::NoBody));
        };
        if warp.callers.len() >= MOST_FRAMES {
            return Err(Trouble::of(on, FaultKind::StackOverflow));
        }
        let local_base = (warp.frame.local_base + warp.frame.f.local_bytes).next_multiple_of(16);
        let mut frame = Frame::new(f, on, local_base);
        frame.returned = &call.returned;
        for (&from, place) in call.passed.iter().zip(&f.parameters) {
            for lane in lanes(on) {
                let to = frame.parameter(lane, place.offset as u64, place.bytes);
                let from = warp.frame.parameter(lane, from, place.bytes);
                if let (Some(to), Some(from)) = (to, from) {
                    to.copy_from_slice(from);
                }
            }
        }
        warp.callers.push(std::mem::replace(&mut warp.frame, frame));
        warp.grow_local();
        Ok(())
    }

    /// Goes back to the caller of a function that all lanes have left; false if it is the kernel.
    pub(super) fn leave_function(&self, warp: &mut Warp<'p>) -> bool {
        let Some(caller) = warp.callers.pop() else { return false };
        let mut callee = std::mem::replace(&mut warp.frame, caller);
        let (returned, f) = (callee.returned, callee.f);
        for (&to, place) in returned.iter().zip(&f.results) {
            for lane in lanes(callee.entered) {
                let from = callee.parameter(lane, place.offset as u64, place.bytes);
                let to = warp.frame.parameter(lane, to, place.bytes);
                if let (Some(to), Some(from)) = (to, from) {
                    to.copy_from_slice(from);
                }
            }
        }
        true
    }
}
