//! Kernels as text: what elementwise ops compute, [recorded](record) and [printed](c) in C.
//!
//! The same formulas are instantiated for vectors by the CPU's kernels, so that what is printed has their bits, elementary
//! functions included.

pub mod c;
pub mod record;

use record::{Double, Single};

use crate::ir::op::Backend;

/// The back end of all that is printed. It takes what is elementwise.
#[derive(Clone, Copy, Debug)]
pub struct Text;

impl Backend for Text {
    const NAME: &'static str = "text";
    type Kernel = dyn Expression;
}

/// What an op computes for each element, in both precisions.
pub trait Expression {
    /// Records the outputs for inputs `x`, of single precision.
    ///
    /// # Panics
    ///
    /// If there are other than the op's number of inputs.
    fn singles(&self, x: &[Single]) -> Vec<Single>;

    /// As [`singles`](Expression::singles), of double precision.
    ///
    /// # Panics
    ///
    /// If there are other than the op's number of inputs.
    fn doubles(&self, x: &[Double]) -> Vec<Double>;
}
