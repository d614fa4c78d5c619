//! One model's work, shared out over the threads of the pool.

/// Work that can be cut into two parts which write to different memory.
///
/// Where it is cut follows from its size alone, so the same parts are computed on one thread or many.
pub(crate) trait Divisible: Sized + Send {
    /// Cuts it in two; gives it back as it is where that is not worth it.
    fn halves(self) -> Result<[Self; 2], Self>;

    /// Computes it on this thread.
    fn compute(self);
}

/// Computes work on the threads of the pool, halves of it at a time until they are too small to be cut.
pub(crate) fn share_out<W: Divisible>(work: W) {
    match work.halves() {
        Ok([first, second]) => {
            rayon::join(|| share_out(first), || share_out(second));
        }
        Err(whole) => whole.compute(),
    }
}
