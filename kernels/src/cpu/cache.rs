//! Sizes of the caches, read from the machine once.

use std::sync::OnceLock;

/// Bytes of data that the caches of one core hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSizes {
    /// Level 1, data.
    pub l1_bytes: usize,
    /// Level 2.
    pub l2_bytes: usize,
}

impl CacheSizes {
    /// What is assumed where the machine does not tell: common to the cores of the last ten years.
    const ASSUMED: CacheSizes = CacheSizes { l1_bytes: 32 << 10, l2_bytes: 512 << 10 };

    /// Gives the sizes of this machine's caches (from `/sys` on Linux).
    pub fn current() -> CacheSizes {
        static CURRENT: OnceLock<CacheSizes> = OnceLock::new();
        *CURRENT.get_or_init(|| CacheSizes::read().unwrap_or(CacheSizes::ASSUMED))
    }

    fn read() -> Option<CacheSizes> {
        let read = |index: usize, file: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
            std::fs::read_to_string(path).ok()
        };
        let size = |level: &str| {
            (0..8).find_map(|index| {
                let holds_data = matches!(read(index, "type")?.trim(), "Data" | "Unified");
                if !holds_data || read(index, "level")?.trim() != level {
                    return None;
                }
                parse_size(read(index, "size")?.trim())
            })
        };
        Some(CacheSizes { l1_bytes: size("1")?, l2_bytes: size("2")? })
    }
}

/// Reads `48K` or `2M`.
fn parse_size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(['K', 'M']);
    let shift = if text.ends_with('M') {
        20
    } else if text.ends_with('K') {
        10
    } else {
        0
    };
    digits.parse::<usize>().ok().map(|n| n << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_size("48K"), Some(48 << 10));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        assert_eq!(parse_size("full"), None);
    }

    #[test]
    fn the_second_level_is_larger_than_the_first() {
        let sizes = CacheSizes::current();
        assert!(sizes.l1_bytes >= 8 << 10 && sizes.l2_bytes > sizes.l1_bytes, "{sizes:?}");
    }
}
