//! What a launch did, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Instructions of warps, whatever the number of their lanes.
    pub warp_instructions: u64,
    /// Instructions of threads.
    pub thread_instructions: u64,
    /// Instructions of warps, by opcode with its modifiers.
    pub opcodes: BTreeMap<String, u64>,
    /// Loads, stores and atomics of warps in shared memory.
    pub shared_requests: u64,
    /// The cycles that shared memory needs for them: the most words of a request in one of its 32 banks.
    pub shared_wavefronts: u64,
    /// The cycles beyond those that the same number of words needs when they are spread over all banks.
    pub bank_conflicts: u64,
    /// Loads, stores and atomics of warps in global memory.
    pub global_requests: u64,
    /// Sectors of 32 bytes that they touch, counted for each request.
    pub global_sectors: u64,
    /// Bytes that threads read from global memory.
    pub global_bytes_read: u64,
    /// Bytes that threads write to global memory.
    pub global_bytes_written: u64,
    /// Barriers of blocks that opened.
    pub barriers: u64,
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        let Counts {
            warp_instructions,
            thread_instructions,
            opcodes,
            shared_requests,
            shared_wavefronts,
            bank_conflicts,
            global_requests,
            global_sectors,
            global_bytes_read,
            global_bytes_written,
            barriers,
        } = other;
        self.warp_instructions += warp_instructions;
        self.thread_instructions += thread_instructions;
        for (opcode, count) in opcodes {
            *self.opcodes.entry(opcode.clone()).or_default() += count;
        }
        self.shared_requests += shared_requests;
        self.shared_wavefronts += shared_wavefronts;
        self.bank_conflicts += bank_conflicts;
        self.global_requests += global_requests;
        self.global_sectors += global_sectors;
        self.global_bytes_read += global_bytes_read;
        self.global_bytes_written += global_bytes_written;
        self.barriers += barriers;
    }
}

impl fmt::Display for Counts {
    /// Writes the totals, then the opcodes, the most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} warp instructions, {} thread instructions",
            self.warp_instructions, self.thread_instructions
        )?;
        writeln!(
            f,
            "shared memory: {} requests, {} wavefronts, {} bank conflicts",
            self.shared_requests, self.shared_wavefronts, self.bank_conflicts
        )?;
        writeln!(
            f,
            "global memory: {} requests, {} sectors, {} bytes read, {} bytes written",
            self.global_requests,
            self.global_sectors,
            self.global_bytes_read,
            self.global_bytes_written
        )?;
        writeln!(f, "{} barriers", self.barriers)?;
        let mut opcodes: Vec<_> = self.opcodes.iter().collect();
        opcodes.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
        opcodes.into_iter().try_for_each(|(opcode, count)| writeln!(f, "{count:>12} {opcode}"))
    }
}

impl Counts {
    /// Notes a request in shared memory, by the addresses of its lanes.
    pub(super) fn shared(&mut self, addresses: impl Iterator<Item = u64>, bytes: usize) {
        let (words, count) = distinct(addresses, bytes, 4);
        let mut banks = [0_u64; 32];
        words[..count].iter().for_each(|word| banks[(word % 32) as usize] += 1);
        let wavefronts = banks.into_iter().max().unwrap_or(0);
        self.shared_requests += 1;
        self.shared_wavefronts += wavefronts;
        self.bank_conflicts += wavefronts - (count as u64).div_ceil(32).min(wavefronts);
    }

    /// Notes a request in global memory, by the addresses of its lanes.
    pub(super) fn global(&mut self, addresses: impl Iterator<Item = u64>, bytes: usize) {
        self.global_requests += 1;
        self.global_sectors += distinct(addresses, bytes, 32).1 as u64;
    }
}

/// Returns the distinct units of so many bytes that accesses touch, and their number.
fn distinct(addresses: impl Iterator<Item = u64>, bytes: usize, unit: u64) -> ([u64; 256], usize) {
    let (mut units, mut count, mut is_sorted) = ([0; 256], 0_usize, true);
    for address in addresses {
        for at in address / unit..=(address + bytes as u64 - 1) / unit {
            let last = count.checked_sub(1).map(|last| units[last]);
            is_sorted &= last.is_none_or(|last| last <= at);
            // Most repetitions are neighbors.
            if last != Some(at) && count < units.len() {
                units[count] = at;
                count += 1;
            }
        }
    }
    if !is_sorted {
        units[..count].sort_unstable();
        let mut kept = 0;
        for i in 0..count {
            if i == 0 || units[i] != units[kept - 1] {
                units[kept] = units[i];
                kept += 1;
            }
        }
        count = kept;
    }
    (units, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_cycles_beyond_the_necessary_ones() {
        let counted = |stride: u64, bytes: usize| {
            let mut counts = Counts::default();
            counts.shared((0..32).map(|lane| lane * stride), bytes);
            (counts.shared_wavefronts, counts.bank_conflicts)
        };
        assert_eq!(counted(0, 4), (1, 0), "all lanes read one word");
        assert_eq!(counted(4, 4), (1, 0));
        assert_eq!(counted(8, 4), (2, 1));
        assert_eq!(counted(128, 4), (32, 31));
        assert_eq!(counted(132, 4), (1, 0), "a padded column");
        assert_eq!(counted(16, 16), (4, 0), "four words a lane need four cycles");
    }

    #[test]
    fn sectors_are_counted_once_a_request() {
        let mut counts = Counts::default();
        counts.global((0..32).rev().map(|lane| lane * 4), 4);
        counts.global((0..32).map(|lane| lane * 64), 8);
        assert_eq!((counts.global_requests, counts.global_sectors), (2, 4 + 32));
    }
}
