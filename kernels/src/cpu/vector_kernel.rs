//! Kernels whose bodies are compiled for each instruction set.

use super::kernel::Kernel;
use super::simd::{Simd, Vectorized, dispatch};
use super::tile::Tile;

/// A kernel whose body is compiled for each instruction set.
pub trait VectorKernel: Send + Sync {
    /// Computes the outputs of every model in `tile`. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(&self, tile: &mut Tile<'_>);

    /// See [`Kernel::scratch_bytes`].
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// See [`Kernel::table_bytes`].
    fn table_bytes(&self) -> usize {
        0
    }
}

/// Makes the kernel that runs `kernel` with the best instructions that the machine has.
pub fn vector_kernel(kernel: impl VectorKernel + 'static) -> Box<dyn Kernel> {
    Box::new(ForEachSet(kernel))
}

/// Runs `kernel` with the best instructions that the machine has.
pub(crate) fn run_vectors(kernel: &impl VectorKernel, tile: &mut Tile<'_>) {
    // The kernel first: the compiler puts a tuple's code beside its first type.
    dispatch((kernel, tile));
}

struct ForEachSet<K>(K);

impl<K: VectorKernel> Kernel for ForEachSet<K> {
    fn run(&self, tile: &mut Tile<'_>) {
        run_vectors(&self.0, tile);
    }

    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }

    fn table_bytes(&self) -> usize {
        self.0.table_bytes()
    }
}

impl<K: VectorKernel> Vectorized for (&K, &mut Tile<'_>) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (kernel, tile) = self;
        kernel.run::<S>(tile);
    }
}
