//! [`split`]: which device has which rows.

use std::ops::Range;

/// Models of a block: a device's first row is a multiple of it.
pub const BLOCK: usize = 16;

/// Splits the rows of a population over devices, in blocks of 16: ranges in the order of the rows, as equal as blocks allow.
///
/// ```
/// # use neurarch_cuda::split::split;
/// assert_eq!(split(100, 3), [0..48, 48..80, 80..100]);
/// assert_eq!(split(10, 2), [0..10, 10..10]);
/// ```
pub fn split(models: usize, devices: usize) -> Vec<Range<usize>> {
    let blocks = models.div_ceil(BLOCK);
    let start = |device: usize| {
        let blocks_before = blocks / devices * device + device.min(blocks % devices);
        (blocks_before * BLOCK).min(models)
    };
    (0..devices).map(|device| start(device)..start(device + 1)).collect()
}
