//! Shuffles: in every epoch each model sees the images in an order of its own.

use ndarray::Array2;
use rayon::prelude::*;

/// Writes the order in which each model sees its images in one epoch, `[models, images]`.
///
/// The order follows from `seed`, the model and the epoch alone: not from how many models there are,
/// nor from the thread that happens to make it.
pub fn shuffle(orders: &mut Array2<u32>, seed: u64, epoch: usize) {
    let n_images = orders.ncols();
    let orders = orders.as_slice_mut().expect("an owned array made in row-major order");
    orders.par_chunks_mut(n_images).enumerate().for_each(|(model, order)| {
        let mut random = Random(mix(mix(mix(seed) ^ model as u64) ^ epoch as u64));
        for (image, place) in order.iter_mut().enumerate() {
            *place = image as u32;
        }
        // Fisher and Yates: each of the orders is as likely as any other.
        for last in (1..n_images).rev() {
            order.swap(last, random.below(last + 1));
        }
    });
}

/// `SplitMix64`: the n-th number is a hash of the key plus n steps, so any of them can be had at once.
///
/// Source: Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    /// Draws a number from 0 to `n - 1`.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * n as u128) >> 64) as usize
    }
}

/// Spreads every bit of a number over all of them.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
