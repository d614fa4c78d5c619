//! [`Cpu`], the back end, and [`Kernel`], what an op gives to it.

use super::tile::Tile;
use crate::ir::op::claims::contained;
use crate::ir::op::{Backend, Op, OpError, ask};
use crate::ir::shape::Operand;
use crate::memory::check_room;

/// The processor that the program runs on: tiles of models on the caller's threads.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

impl Backend for Cpu {
    const NAME: &'static str = "cpu";
    type Kernel = dyn Kernel;
}

/// An op made ready for operands of known types and layouts.
pub trait Kernel: Send + Sync {
    /// Computes the outputs of every model in `tile`.
    fn run(&self, tile: &mut Tile<'_>);

    /// Gives the number of bytes of scratch memory that [`run`](Kernel::run) needs, for one model at
    /// a time.
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// Gives the number of bytes of the tables that the kernel holds, if they grow with its operands: plans are kept
    /// within a number of bytes.
    fn table_bytes(&self) -> usize {
        0
    }
}

/// Every `Fn(&mut Tile)` is a kernel without scratch memory.
impl<F: Fn(&mut Tile<'_>) + Send + Sync> Kernel for F {
    fn run(&self, tile: &mut Tile<'_>) {
        self(tile);
    }
}

/// Asks an op for its kernel, and the bytes of scratch memory that this needs; not if all outputs are of no elements.
///
/// # Errors
///
/// If the op has none for [`Cpu`], if there is no such room, or the op panics: it may have asked another op for a kernel
/// of operands that cannot be.
pub(crate) fn prepare(
    op: &dyn Op,
    inputs: &[Operand],
    outputs: &[Operand],
) -> Result<(Box<dyn Kernel>, usize), OpError> {
    // Of no elements there is nothing to compute, but there may be sizes that no list has room for.
    if outputs.iter().all(|output| output.ty.shape.numel() == 0) {
        return Ok((Box::new(|_: &mut Tile<'_>| {}), 0));
    }
    let (kernel, scratch_bytes) = contained(op, || {
        let kernel = ask::kernel::<Cpu>(op, inputs, outputs)?;
        let scratch_bytes = kernel.scratch_bytes();
        Ok((kernel, scratch_bytes))
    })??;
    match check_room(scratch_bytes) {
        Ok(()) => Ok((kernel, scratch_bytes)),
        Err(error) => Err(OpError(format!("{}: {error}", op.name()))),
    }
}
