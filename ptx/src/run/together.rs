//! What the lanes of a warp do together: shuffles, votes, reductions.

use super::block::{Block, Trouble};
use super::frame::lanes;
use super::warp::Warp;
use crate::arithmetic::{Lanes, reduce, truncate};
use crate::error::FaultKind;
use crate::program::{Op, ShuffleMode, Target, Value, VoteMode};

impl<'p> Block<'_, 'p, '_> {
    pub(super) fn together(&self, warp: &mut Warp<'p>, op: &Op, on: u32) -> Result<(), Trouble> {
        match *op {
            Op::Shuffle { mode, to, value, by, clamp, .. } => {
                return self.shuffle(warp, mode, to, [value, by, clamp], on);
            }
            Op::Vote { mode, to, from, .. } => {
                let bits = self.read_bits(warp, from) & on;
                let holds = |holds: bool| if holds { u32::MAX } else { 0 };
                match mode {
                    VoteMode::Ballot => warp.frame.write(to, on, &[u64::from(bits); 32]),
                    VoteMode::All => warp.frame.write_predicate(to, on, holds(bits == on)),
                    VoteMode::Any => warp.frame.write_predicate(to, on, holds(bits != 0)),
                    VoteMode::Uniform => {
                        warp.frame.write_predicate(to, on, holds(bits == on || bits == 0))
                    }
                }
            }
            Op::Reduce { op, signed, to, from, .. } => {
                let mut scratch = [0; 32];
                let values = self.read(warp, from, &mut scratch);
                let result = reduce(op, signed, lanes(on).map(|lane| truncate(values[lane], 32)));
                warp.frame.write(to, on, &[result; 32]);
            }
            Op::Match { all, bits, to, from, .. } => {
                let mut scratch = [0; 32];
                let values = self.read(warp, from, &mut scratch).map(|x| truncate(x, bits));
                let equal = |lane: usize| {
                    lanes(on).filter(|&l| values[l] == values[lane]).fold(0_u32, |m, l| m | 1 << l)
                };
                let mut same: Lanes = [0; 32];
                lanes(on).for_each(|lane| same[lane] = u64::from(equal(lane)));
                let is_same = lanes(on).all(|lane| same[lane] == u64::from(on));
                let result = if all && !is_same { [0; 32] } else { same };
                warp.frame.write(to[0], on, &result);
                warp.frame.write_predicate(to[1], on, if is_same { u32::MAX } else { 0 });
            }
            Op::Elect { to, .. } => {
                let leader = on.trailing_zeros();
                warp.frame.write(to[0], on, &[u64::from(leader); 32]);
                warp.frame.write_predicate(to[1], on, 1_u32.checked_shl(leader).unwrap_or(0));
            }
            Op::ActiveMask { to } => warp.frame.write(to, on, &[u64::from(on); 32]),
            // The caller has done all others.
            _ => {}
        }
        Ok(())
    }

    /// `shfl.sync`: each lane takes the value of another one, by the rules of the PTX manual.
    fn shuffle(
        &self,
        warp: &mut Warp<'p>,
        mode: ShuffleMode,
        to: [Target; 2],
        [value, by, clamp]: [Value; 3],
        on: u32,
    ) -> Result<(), Trouble> {
        let (mut s0, mut s1, mut s2) = ([0; 32], [0; 32], [0; 32]);
        let values = self.read(warp, value, &mut s0);
        let (by, clamp) = (self.read(warp, by, &mut s1), self.read(warp, clamp, &mut s2));
        let (mut result, mut inside) = ([0; 32], 0);
        for lane in lanes(on) {
            let (own, by, c) = (lane as u32, by[lane] as u32 & 31, clamp[lane] as u32);
            let (clamp, segment) = (c & 31, c >> 8 & 31);
            let most = own & segment | clamp & !segment;
            let (from, is_inside) = match mode {
                ShuffleMode::Up => {
                    let from = own.wrapping_sub(by);
                    (from, from.cast_signed() >= most.cast_signed())
                }
                ShuffleMode::Down => (own + by, own + by <= most),
                ShuffleMode::Butterfly => (own ^ by, own ^ by <= most),
                ShuffleMode::Index => {
                    let from = own & segment | by & !segment;
                    (from, from <= most)
                }
            };
            let from = if is_inside { from & 31 } else { own };
            if on >> from & 1 == 0 {
                return Err(Trouble { lane, kind: FaultKind::InactiveLane { lane: from } });
            }
            result[lane] = truncate(values[from as usize], 32);
            inside |= u32::from(is_inside) << lane;
        }
        warp.frame.write(to[0], on, &result);
        warp.frame.write_predicate(to[1], on, inside);
        Ok(())
    }
}
