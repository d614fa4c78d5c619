//! Counter-based random numbers: Philox4x32-10, keyed by seed and model, counted by step and draw.
//!
//! A number depends on the population's seed, the model's number, the step, the draw and its own index,
//! on nothing else: neither on neighbors nor on how many numbers were drawn before.
//!
//! Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

use core::convert::Infallible;

use rand::TryRng;

use crate::ir::rng_key::RngKey;

/// Words that [`Draw::words`] gives at a time: word `w` of eight consecutive blocks lie side by side.
pub const GROUP: usize = 32;

/// Blocks of a group.
const BLOCKS: usize = 8;

const ROUNDS: usize = 10;
const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Computes one block.
#[inline(always)]
fn philox(counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut c = counter;
    for _ in 0..ROUNDS {
        let a = MULTIPLIERS[0] * u64::from(c[0]);
        let b = MULTIPLIERS[1] * u64::from(c[2]);
        c = [
            (b >> 32) as u32 ^ c[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The first of the draws of noise on parameters; the draws of a program's ops are counted from 0, and
/// those of this kind by parameters. So nothing draws twice with one counter.
pub const NOISE: u32 = 1 << 28;

/// The first of the draws that say which elements of a parameter noise changes.
pub const MUTATION: u32 = 2 << 28;

/// The draw that says which parent a parameter comes from.
pub const CROSSOVER: u32 = 3 << 28;

/// Mixes the bits of `x` one to one: Stafford's variant 13, as in `SplitMix64`.
const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The random words of one draw of one model in one step.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    key: [u32; 2],
    /// The draw, and the step's halves.
    counter: [u32; 3],
}

impl Draw {
    /// Prepares draw number `draw`, below 2³¹, in the step that `key` names.
    #[inline]
    pub fn new(key: RngKey, draw: u32) -> Self {
        // For one seed, another model number is surely another key.
        let mixed = mix(mix(key.seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ key.number);
        Draw {
            key: [mixed as u32, (mixed >> 32) as u32],
            counter: [draw, key.step as u32, (key.step >> 32) as u32],
        }
    }

    /// Gives words `group · 32` to `group · 32 + 31`.
    #[inline(always)]
    pub fn words(&self, group: u32) -> [u32; GROUP] {
        let mut words = [0; GROUP];
        // The compiler makes vectors of this loop, in whatever instruction set it is inlined into.
        for i in 0..BLOCKS {
            let first = group.wrapping_mul(BLOCKS as u32).wrapping_add(i as u32);
            let [draw, low, high] = self.counter;
            let block = philox([first, draw, low, high], self.key);
            words[i] = block[0];
            words[BLOCKS + i] = block[1];
            words[2 * BLOCKS + i] = block[2];
            words[3 * BLOCKS + i] = block[3];
        }
        words
    }
}

/// The words of a draw one after the other: for initializers. A generator of crate `rand`.
///
/// Its draws are others than those of ops, even under the same number.
#[derive(Clone, Debug)]
pub struct Stream {
    draw: Draw,
    words: [u32; GROUP],
    next: usize,
    group: u32,
}

/// Tells the draws of streams from those of ops.
const STREAM: u32 = 1 << 31;

impl Stream {
    /// Starts draw number `draw`, below 2³¹, in the step that `key` names.
    pub fn new(key: RngKey, draw: u32) -> Self {
        let draw = Draw::new(key, draw | STREAM);
        Stream { draw, words: [0; GROUP], next: GROUP, group: 0 }
    }

    #[inline]
    fn word(&mut self) -> u32 {
        if self.next == GROUP {
            self.words = self.draw.words(self.group);
            self.group = self.group.wrapping_add(1);
            self.next = 0;
        }
        self.next += 1;
        self.words[self.next - 1]
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = u64::from(self.word());
        Ok(low | u64::from(self.word()) << 32)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(4) {
            part.copy_from_slice(&self.word().to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// From `tests/kat_vectors` of Random123 1.14.0, lines `philox4x32 10`.
    #[test]
    fn blocks_are_those_of_random123() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn words_depend_on_every_part_of_the_key() {
        let key = RngKey { seed: 1, number: 2, step: 3 };
        let words = |key, draw| Draw::new(key, draw).words(0);
        let mut all = vec![
            words(key, 0),
            words(key, 1),
            words(RngKey { seed: 2, ..key }, 0),
            words(RngKey { number: 3, ..key }, 0),
            words(RngKey { step: 4, ..key }, 0),
            words(RngKey { step: 3 + (1 << 32), ..key }, 0),
            Draw::new(key, 0).words(1),
        ];
        assert_eq!(all[0], words(key, 0));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn streams_give_the_words_of_their_draw_in_order() {
        let key = RngKey { seed: 5, number: 6, step: 0 };
        let mut stream = Stream::new(key, 1);
        let draw = Draw::new(key, 1 | STREAM);
        let words: Vec<u32> = (0..2 * GROUP).map(|_| stream.next_u32()).collect();
        assert_eq!(words[..GROUP], draw.words(0));
        assert_eq!(words[GROUP..], draw.words(1));
        let (mut bytes, mut first) = ([0; 6], Stream::new(key, 1));
        first.fill_bytes(&mut bytes);
        assert_eq!(bytes[..4], words[0].to_le_bytes());
        assert_eq!(bytes[4..], words[1].to_le_bytes()[..2]);
    }

    #[test]
    fn words_are_spread_evenly() {
        let mut stream = Stream::new(RngKey::default(), 0);
        let mut counts = [0_u32; 16];
        (0..16_000).for_each(|_| counts[(stream.next_u32() >> 28) as usize] += 1);
        // 1,000 each, with a standard deviation of 31.
        assert!(counts.iter().all(|&n| (850..1_150).contains(&n)), "{counts:?}");
    }
}
